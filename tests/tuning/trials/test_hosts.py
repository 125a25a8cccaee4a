"""A search over several hosts, which are processes of this one here."""

import socket
import subprocess
import sys
import threading
from multiprocessing.connection import Listener
from pathlib import Path

import pytest

from kseq.tuning.search import SearchFailed, search
from kseq.tuning.trials import hosts
from kseq.tuning.trials.table import LiveTable
from tests.tuning.searches import Small, Waiting, X, Y, settings


@pytest.fixture
def address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.mark.thorough
def test_a_killed_worker_gives_its_trial_back(tmp_path, address, monkeypatch):
    command = ["-m", "tests.tuning.searches", tmp_path / "mounted", tmp_path, address]
    root = Path(__file__).parents[3]
    (tmp_path / "mounted").symlink_to(tmp_path / "search")  # a place of its own
    process = subprocess.Popen([sys.executable, *command], cwd=root)
    far = []

    def kill_in_the_third_epoch(self, running):
        for worker, run in running.items():
            if "/" in worker and len(run.curve) == 2 and process.poll() is None:
                far.append(run.trial.trial_id)
                process.kill()
                (tmp_path / "go").touch()

    monkeypatch.setattr(LiveTable, "update", kill_in_the_third_epoch)
    space = Waiting(tmp_path)
    results = search(space, (X, Y), **settings(tmp_path / "search"), chief=address)
    process.wait()
    assert len(far) == 1
    rows = results.table()
    assert [row["trial"] for row in rows] == ["0000", "0001", "0002"]
    assert [row["attempts"] for row in rows] == [1, 1, 1]
    # The one that was killed has all its epochs, of which none is there twice.
    assert [len(results.curves(r["trial"])["val_loss"]) for r in rows] == [4, 4, 4]
    assert (tmp_path / "search" / "key").stat().st_mode & 0o777 == 0o600


class Chief(threading.Thread):
    """Takes in one worker, says one thing to it, and leaves."""

    def __init__(self, address, directory, message=None):
        super().__init__()
        directory.mkdir(exist_ok=True)
        self.listener = Listener(
            hosts.parse(address, "chief"), authkey=hosts.key_of(directory)
        )
        self.message = message
        self.start()

    def run(self):
        with self.listener, self.listener.accept() as link:
            self.names = link.recv()
            if self.message:
                link.send(self.message)


def test_a_worker_returns_with_its_chief(tmp_path, address):
    chief = Chief(address, tmp_path / "search", ("done",))
    arguments = settings(tmp_path / "search") | {"worker": address, "workers": 2}
    assert search(Small(), (X, Y), **arguments) is None
    chief.join()
    assert [name.rpartition("/")[2] for name in chief.names] == ["worker-0", "worker-1"]


def test_a_worker_ends_when_its_chief_dies(tmp_path, address):
    chief = Chief(address, tmp_path / "search")
    with pytest.raises(SearchFailed, match="The chief of the search is gone"):
        search(Small(), (X, Y), **settings(tmp_path / "search"), worker=address)
    chief.join()
    again = Chief(address, tmp_path / "search", ("done",))
    search(Small(), (X, Y), **settings(tmp_path / "search"), worker=address)
    again.join()
    assert again.names


def test_who_does_not_share_the_directory_is_not_let_in(tmp_path, address, monkeypatch):
    chief = Chief(address, tmp_path / "search", ("done",))
    (tmp_path / "other").mkdir()
    hosts.key_of(tmp_path / "other")
    monkeypatch.setattr(threading, "excepthook", lambda failure: None)
    with pytest.raises(hosts.ChiefLost, match="no answer.*AuthenticationError"):
        hosts.connect(address, tmp_path / "other", patience=0)
    chief.join()
    assert not hasattr(chief, "names")


def test_a_worker_without_a_chief_does_not_wait_for_ever(tmp_path, address):
    with pytest.raises(hosts.ChiefLost, match="in the same directory. Received"):
        hosts.connect(address, tmp_path, patience=0)


def test_addresses_that_are_none(tmp_path, address):
    for chief in ("here", "host:", "host:70000", 8700):
        with pytest.raises(ValueError, match="`chief` must be an address 'host:port'"):
            search(Small(), directory=tmp_path, chief=chief)
    with pytest.raises(ValueError, match="must not both be given"):
        search(Small(), directory=tmp_path, chief=address, worker=address)
    with socket.create_server(hosts.parse(address, "chief")):
        with pytest.raises(ValueError, match="at which this host can listen"):
            search(Small(), (X, Y), **settings(tmp_path / "new"), chief=address)
