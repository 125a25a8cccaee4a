import pickle

import pytest

from kseq.tuning.trials.job import Died, Exit, Failed, Job, Late, moved
from kseq.tuning.trials.layout import SearchDirectory


def test_the_files_of_a_job_are_where_its_host_finds_the_search(tmp_path):
    job = Job("/there", seed=3, trial="07", values={"units": 5}, epochs=(0, 3))
    here = pickle.loads(pickle.dumps(moved(job, tmp_path)))
    assert here.directory.output == SearchDirectory(tmp_path).trial("07").output
    assert (here.seed, here.values, here.keeps_state) == (3, {"units": 5}, True)
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
