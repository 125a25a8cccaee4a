"""Searches on a Dask cluster on loopback, of which a part is killed in the middle."""

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
from tests.tuning.test_search import facts, is_alive, parent_of, wait_until

distributed = pytest.importorskip("distributed")
HAS_KERAS = "'keras' in __import__('sys').modules"
ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class Cluster:
    """A scheduler and two workers of one thread, each a process."""

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


def trial_in_the_middle(folder):
    """Waits for the third epoch of a trial; returns the number of its process."""
    file = folder / "pid"
    wait_until(lambda: file.exists() and file.read_text(), seconds=300)
    return int(file.read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return on_two(Small(), tmp_path_factory.mktemp("undisturbed"), None)


def on_two(space, folder, executor):
    arguments = settings(folder / "search") | {"max_trials": 2, "workers": 2}
    return search(space, (X, Y), **arguments, executor=executor)


def table(results):
    rows, curves = facts(results)
    order = sorted(range(len(rows)), key=lambda number: rows[number]["trial"])
    return [(rows[number], curves[number]) for number in order]


def kill_in_the_middle(cluster, victim):
    trial = trial_in_the_middle(cluster.folder)
    if victim == "scheduler":
        cluster.scheduler.kill()
    else:
        server = parent_of(trial)
        victims = {"trial": trial, "server": server, "worker": parent_of(server)}
        os.kill(victims[victim], signal.SIGKILL)
        wait_until(lambda: not is_alive(trial))
        (cluster.folder / "go").touch()


def test_two_workers_find_what_this_host_does(tmp_path, undisturbed):
    options = {"processes": False, "protocol": "tcp", "host": "127.0.0.1"}
    options |= {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with forked_trials(), distributed.Client(**options) as client:
        results = on_two(Small(), tmp_path, client)
        assert table(results) == table(undisturbed)
        assert len(client.scheduler_info()["workers"]) == 2


@pytest.mark.thorough
@pytest.mark.parametrize("victim", ["worker", "server", "trial"])
def test_a_kill_in_the_middle_does_not_change_the_table(tmp_path, undisturbed, victim):
    cluster = Cluster(tmp_path)
    with cluster as client, client:
        killer = threading.Thread(target=kill_in_the_middle, args=(cluster, victim))
        killer.start()
        results = on_two(Waiting(tmp_path), tmp_path, client)
        killer.join()
        assert client.run_on_scheduler(eval, HAS_KERAS) is False
        assert not any(client.run(eval, HAS_KERAS).values())
    assert table(results) == table(undisturbed)
    attempts = sum(row["attempts"] for row in results.table())
    assert attempts == (2 if victim == "worker" else 3)


@pytest.mark.thorough
def test_the_same_call_goes_on_after_the_scheduler_was_killed(tmp_path, undisturbed):
    cluster = Cluster(tmp_path)
    with cluster as client, client:
        killer = threading.Thread(
            target=kill_in_the_middle, args=(cluster, "scheduler")
        )
        killer.start()
        with pytest.raises(SearchFailed, match="Make the same call with a new one"):
            on_two(Waiting(tmp_path), tmp_path, client)
        killer.join()
        trial = int((tmp_path / "pid").read_text())
        wait_until(lambda: not is_alive(trial))
    (tmp_path / "go").touch()
    with Cluster(tmp_path) as client, client:
        results = on_two(Waiting(tmp_path), tmp_path, client)
    assert table(results) == table(undisturbed)


@pytest.mark.thorough
def test_the_same_call_goes_on_after_its_process_was_killed(tmp_path, undisturbed):
    with Cluster(tmp_path) as client, client:
        address = client.scheduler.address
        caller = forkserver().Process(target=call, args=(tmp_path, address))
        caller.start()
        try:
            trial = trial_in_the_middle(tmp_path)
        finally:
            caller.kill()
            caller.join()
        assert is_alive(trial)
        (tmp_path / "pid").unlink()
        killer = threading.Thread(target=let_go, args=(tmp_path, trial))
        killer.start()
        results = on_two(Waiting(tmp_path), tmp_path, client)
        killer.join()
    assert table(results) == table(undisturbed)


def call(folder, address):
    """The process that searches, until it is killed."""
    on_two(Waiting(folder), folder, distributed.Client(address))


def let_go(folder, stale):
    """The trials of the call that was killed end before those of the next begin."""
    wait_until(lambda: not is_alive(stale))
    (folder / "go").touch()
