"""Searches on a local Dask cluster, one of whose processes is killed during a trial."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kseq.tuning.search import search
from kseq.tuning.trials.errors import SearchFailed
from tests.forking import forked_trials, forkserver
from tests.tuning.searches import Small, Waiting, X, Y, settings
from tests.tuning.test_search import is_alive, outcome, parent_of, wait_until

distributed = pytest.importorskip("distributed")
HAS_KERAS = "'keras' in __import__('sys').modules"
ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class Cluster:
    """A scheduler and two workers of one thread, each in a process."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []

    def __enter__(self):
        file = self.folder / "scheduler"
        file.unlink(missing_ok=True)
        options = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0"]
        self.scheduler = self._start("scheduler", *options, "--scheduler-file", file)
        wait_until(file.exists)
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
        for _ in range(2):
            self._start("worker", *options, "--scheduler-file", file)
        return distributed.Client(scheduler_file=str(file), timeout=5)

    def _start(self, kind, *options):
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
        with open(self.folder / "log", "a") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            process.wait()


def wait_for_trial(folder):
    """Wait for the third epoch of a trial, and return the id of its process."""
    file = folder / "pid"
    wait_until(lambda: file.exists() and file.read_text(), seconds=300)
    return int(file.read_text())


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return search_with_two_workers(Small(), tmp_path_factory.mktemp("reference"), None)


def search_with_two_workers(space, folder, executor):
    arguments = settings(folder / "search") | {"max_trials": 2, "workers": 2}
    return search(space, (X, Y), **arguments, executor=executor)


def sorted_outcome(results):
    rows, curves = outcome(results)
    order = sorted(range(len(rows)), key=lambda number: rows[number]["trial"])
    return [(rows[number], curves[number]) for number in order]


def kill_during_trial(cluster, victim):
    trial = wait_for_trial(cluster.folder)
    if victim == "scheduler":
        cluster.scheduler.kill()
    else:
        server = parent_of(trial)
        victims = {"trial": trial, "server": server, "worker": parent_of(server)}
        os.kill(victims[victim], signal.SIGKILL)
        wait_until(lambda: not is_alive(trial))
        (cluster.folder / "go").touch()


def test_two_workers_give_the_same_results_as_this_host(tmp_path, reference):
    options = {"processes": False, "protocol": "tcp", "host": "127.0.0.1"}
    options |= {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with forked_trials(), distributed.Client(**options) as client:
        results = search_with_two_workers(Small(), tmp_path, client)
        assert sorted_outcome(results) == sorted_outcome(reference)
        assert len(client.scheduler_info()["workers"]) == 2


@pytest.mark.thorough
@pytest.mark.parametrize("victim", ["worker", "server", "trial"])
def test_kill_during_a_trial_does_not_change_the_results(tmp_path, reference, victim):
    cluster = Cluster(tmp_path)
    with cluster as client, client:
        killer = threading.Thread(target=kill_during_trial, args=(cluster, victim))
        killer.start()
        results = search_with_two_workers(Waiting(tmp_path), tmp_path, client)
        killer.join()
        assert client.run_on_scheduler(eval, HAS_KERAS) is False
        assert not any(client.run(eval, HAS_KERAS).values())
    assert sorted_outcome(results) == sorted_outcome(reference)
    attempts = sum(row["attempts"] for row in results.table())
    assert attempts == (2 if victim == "worker" else 3)


@pytest.mark.thorough
def test_same_call_resumes_after_the_scheduler_was_killed(tmp_path, reference):
    cluster = Cluster(tmp_path)
    with cluster as client, client:
        killer = threading.Thread(target=kill_during_trial, args=(cluster, "scheduler"))
        killer.start()
        with pytest.raises(SearchFailed, match="Make the same call with a new one"):
            search_with_two_workers(Waiting(tmp_path), tmp_path, client)
        killer.join()
        trial = int((tmp_path / "pid").read_text())
        wait_until(lambda: not is_alive(trial))
    (tmp_path / "go").touch()
    with Cluster(tmp_path) as client, client:
        results = search_with_two_workers(Waiting(tmp_path), tmp_path, client)
    assert sorted_outcome(results) == sorted_outcome(reference)


@pytest.mark.thorough
def test_same_call_resumes_after_its_process_was_killed(tmp_path, reference):
    with Cluster(tmp_path) as client, client:
        address = client.scheduler.address
        caller = forkserver().Process(target=run_search, args=(tmp_path, address))
        caller.start()
        try:
            trial = wait_for_trial(tmp_path)
        finally:
            caller.kill()
            caller.join()
        assert is_alive(trial)
        (tmp_path / "pid").unlink()
        killer = threading.Thread(target=release_trials, args=(tmp_path, trial))
        killer.start()
        results = search_with_two_workers(Waiting(tmp_path), tmp_path, client)
        killer.join()
    assert sorted_outcome(results) == sorted_outcome(reference)


def run_search(folder, address):
    """Search in a process that a test kills."""
    search_with_two_workers(Waiting(folder), folder, distributed.Client(address))


def release_trials(folder, stale):
    """Let trials continue after the trial of the killed search has ended."""
    wait_until(lambda: not is_alive(stale))
    (folder / "go").touch()
