import dataclasses

import pytest

from kseq.tuning.trials.job import Died, Exit, Failed, Job, Late
from kseq.tuning.trials.layout import SearchDirectory


def test_a_job_may_keep_its_files_in_a_folder_of_its_own(tmp_path):
    job = Job("/there", seed=3, trial="07", values={"units": 5}, epochs=(0, 3))
    there = SearchDirectory("/there").trial("07").output
    assert job.directory.output == there and job.keeps_state
    moved = dataclasses.replace(job, folder=str(tmp_path))
    assert moved.directory.output.parent == tmp_path
    assert Job("/there", seed=3).directory.output.parent.as_posix() == "/there"


@pytest.mark.parametrize(
    "code, reason",
    [
        (3, "its process ended with exit code 3"),
        (-11, "its process was killed by SIGSEGV"),
        (-9, "its process was killed by SIGKILL, perhaps for want of memory"),
        (None, "its process ended with exit code None"),
    ],
)
def test_an_exit_says_how_the_process_ended(code, reason):
    assert Exit(code).reason() == reason


def test_what_is_found_out_has_the_kind_that_the_journal_keeps():
    kinds = [message("no memory").kind for message in (Failed, Died, Late)]
    assert kinds == ["failed", "died", "late"]
