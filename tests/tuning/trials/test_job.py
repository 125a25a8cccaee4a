import pytest

from kseq.tuning.trials.job import Died, Exit, Failed, Job, Late


def test_files_of_a_job_are_in_the_folder_of_its_attempt(tmp_path):
    job = Job("07", seed=3, epochs=(0, 3), folder=str(tmp_path))
    assert job.directory.output.parent == tmp_path and job.keeps_state
    assert not Job("07", seed=3).keeps_state


@pytest.mark.parametrize(
    "code, reason",
    [
        (3, "its process ended with exit code 3"),
        (-11, "its process was killed by SIGSEGV"),
        (-9, "its process was killed by SIGKILL, perhaps because memory ran out"),
        (None, "its process ended with exit code None"),
    ],
)
def test_an_exit_says_how_the_process_ended(code, reason):
    assert Exit(code).reason() == reason


def test_failures_have_the_kinds_of_the_journal():
    kinds = [message("no memory").kind for message in (Failed, Died, Late)]
    assert kinds == ["failed", "died", "late"]
