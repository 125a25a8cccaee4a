"""Searches whose trials are tasks of an executor, reliable or not."""

import concurrent.futures
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from kseq.tuning.search import search
from kseq.tuning.trials import supervision
from kseq.tuning.trials.attempts import Attempt, FileLink, close_all
from kseq.tuning.trials.errors import SearchFailed
from kseq.tuning.trials.executor_engine import ExecutorEngine
from kseq.tuning.trials.job import (
    Begun,
    Ended,
    Epoch,
    Exit,
    Explored,
    Failed,
    Fatal,
    Job,
    Resumed,
)
from kseq.tuning.trials.layout import SearchDirectory
from kseq.tuning.trials.stopping import MedianStopping
from kseq.tuning.trials.table import LiveTable
from tests.forking import close_idle_servers, forked_trials
from tests.tuning.searches import Instant, Small, Waiting, X, Y, settings
from tests.tuning.test_search import is_alive, outcome, wait_until


@pytest.fixture(autouse=True)
def no_idle_servers():
    yield
    close_idle_servers()


@pytest.fixture
def forked():
    with forked_trials():
        yield


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Return the results of an uninterrupted search on this host."""
    directory = tmp_path_factory.mktemp("reference")
    return search(Small(), (X, Y), **settings(directory / "search"))


class UnreliableExecutor(concurrent.futures.ThreadPoolExecutor):
    """An executor that cancels the first task, skips the next, and runs one twice."""

    def __init__(self):
        super().__init__(2)
        self.tasks = []

    def submit(self, task, *args):
        self.tasks.append(args[0])
        match len(self.tasks):
            case 1:
                dropped = concurrent.futures.Future()
                dropped.cancel()
                return dropped
            case 2:
                return super().submit(lambda: None)
            case 3:
                first = super().submit(task, *args)
                folder = re.findall(r"(?m)^supervise\('(.*?)'", args[0])[-1]
                wait_until((Path(folder) / "taken").exists)
                super().submit(task, *args)
                return first
        return super().submit(task, *args)


def test_unreliable_executor_gives_the_same_results_as_this_host(
    tmp_path, reference, forked
):
    with UnreliableExecutor() as executor:
        results = search(
            Small(), (X, Y), **settings(tmp_path / "search"), executor=executor
        )
    assert outcome(results) == outcome(reference)
    assert [row["attempts"] for row in results.table()] == [1, 1, 1]
    assert len(executor.tasks) == len(set(executor.tasks)) == 5
    left = {path.name for path in (tmp_path / "search").iterdir()}
    assert left == {"journal.json", "search.json", "lock", "trials"}
    model = results.best_model()
    loss = model.evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(results.best["score"], rel=1e-5)


def test_hopeless_trial_is_stopped_through_a_file(tmp_path, forked):
    class StopAfterFirst(MedianStopping):
        def is_hopeless(self, curve, others, direction):
            return len(others) > 0

    arguments = settings(tmp_path) | {"max_trials": 2, "epochs": 60}
    with concurrent.futures.ThreadPoolExecutor() as executor:
        results = search(
            Small(), (X, Y), **arguments, stopping=StopAfterFirst(), executor=executor
        )
    lengths = {row["status"]: row["epochs"] for row in results.table()}
    assert lengths["completed"] == 60 > lengths["stopped"]


def test_ctrl_c_stops_the_trials_and_the_same_call_resumes_them(
    tmp_path, reference, forked, monkeypatch
):
    def press_ctrl_c(self, running):
        if (tmp_path / "pid").exists():
            raise KeyboardInterrupt

    arguments = settings(tmp_path / "search")
    with concurrent.futures.ThreadPoolExecutor() as executor:
        with monkeypatch.context() as patch:
            patch.setattr(LiveTable, "update", press_ctrl_c)
            with pytest.raises(KeyboardInterrupt):
                search(Waiting(tmp_path), (X, Y), **arguments, executor=executor)
        assert not is_alive(int((tmp_path / "pid").read_text()))
        assert list(tmp_path.glob("search/trials/*/checkpoint-0.npz"))
        (tmp_path / "go").touch()
        results = search(Waiting(tmp_path), (X, Y), **arguments, executor=executor)
    assert outcome(results) == outcome(reference)


def test_time_in_the_queue_is_not_time_of_the_trial(tmp_path, forked):
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        executor.submit(time.sleep, 4)
        options = {"executor": executor, "max_trials": 1, "trial_timeout": 3}
        results = search(Instant(), seed=3, directory=tmp_path, verbose=0, **options)
    assert [row["status"] for row in results.table()] == ["completed"]
    assert results.table()[0]["seconds"] < 3


def test_trial_beyond_its_timeout_is_ended(tmp_path, forked):
    arguments = settings(tmp_path / "search") | {"max_trials": 1, "trial_timeout": 9}
    with concurrent.futures.ThreadPoolExecutor() as executor:
        with pytest.raises(SearchFailed, match="more than trial_timeout=9 s"):
            search(Waiting(tmp_path), (X, Y), **arguments, executor=executor)
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_error_has_the_output_of_a_process_that_cannot_start(tmp_path, monkeypatch):
    program = "raise ImportError('no kseq here')"
    popen = subprocess.Popen

    def without_kseq(command, **options):
        return popen([sys.executable, "-c", program], **options)

    monkeypatch.setattr(supervision.subprocess, "Popen", without_kseq)
    arguments = settings(tmp_path) | {"retries": 0, "max_failures": 1}
    with concurrent.futures.ThreadPoolExecutor() as executor:
        with pytest.raises(SearchFailed, match="exit code 1\n(.|\n)*no kseq here"):
            search(Instant(), **arguments, executor=executor)


def test_worker_reuses_a_server_with_keras(tmp_path, monkeypatch):
    started, popen = [], subprocess.Popen

    def record_process(command, **options):
        started.append(popen(command, **options))
        return started[-1]

    monkeypatch.setattr(supervision.subprocess, "Popen", record_process)
    monkeypatch.setattr(supervision, "IDLE_SECONDS", 0.2)
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        attempt = make_attempt(folder)
        supervision.supervise(str(attempt.files.path), {})
        *_, last = attempt.messages()
        assert isinstance(last, Exit)
    [server] = started
    wait_until(lambda: server.poll() is not None)
    assert supervision.idle_servers() == []


class LosingExecutor(concurrent.futures.Executor):
    def submit(self, task, *args):
        future = concurrent.futures.Future()
        future.set_exception(MemoryError("none left"))
        return future


def test_an_executor_that_loses_all_trials_ends_the_search(tmp_path):
    arguments = settings(tmp_path) | {"workers": 2}
    with pytest.raises(SearchFailed, match="Received: 11 .*MemoryError: none left"):
        search(Instant(), **arguments, executor=LosingExecutor())


class RemoteExecutor(concurrent.futures.Executor):
    """An executor that pickles tasks like the scheduler of Dask, and runs none."""

    def __init__(self, file):
        self.file = file

    def submit(self, *task):
        self.file.write_bytes(pickle.dumps(task))
        return concurrent.futures.Future()


def test_a_task_imports_neither_keras_nor_kseq(tmp_path):
    make_attempt(tmp_path).close()
    program = (
        "import pickle, sys, time\n"
        f"task = pickle.load(open({str(tmp_path / 'task')!r}, 'rb'))\n"
        "task, *arguments = pickle.loads(pickle.dumps(task))\n"
        "time.sleep = time.monotonic = lambda *seconds: time.time() * 9\n"
        "try:\n"
        "    task(*arguments)\n"
        "except NotADirectoryError:\n"
        "    print(*(name.partition('.')[0] for name in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    packages = set(done.stdout.split())
    assert "subprocess" in packages
    assert not packages & {"kseq", "keras", "tensorflow", "jax", "torch", "numpy"}


def make_attempt(directory):
    """Return an attempt at trial 0003 that no engine runs."""
    engine = ExecutorEngine(RemoteExecutor(directory / "task"), None, directory)
    return Attempt(engine, SearchDirectory(directory), Job("0003", seed=3))


def test_closed_attempt_cannot_report(tmp_path, forked):
    trial = SearchDirectory(tmp_path).trial("0003")
    trial.path.mkdir(parents=True)
    trial.events.touch()
    trial.checkpoint(0).write_text("two epochs")
    attempt = make_attempt(tmp_path)
    job, _ = pickle.loads(attempt.files.job.read_bytes())
    assert job.directory.checkpoint(0).read_text() == "two epochs"
    assert trial.events.exists() and not trial.checkpoints()
    stale = FileLink(attempt.files, waits=True)
    stale.send(Begun())
    assert attempt.messages() == [Begun()] and attempt.messages() == []
    job.directory.checkpoint(0).write_text("three epochs")
    later = make_attempt(tmp_path)
    attempt.close()
    assert trial.checkpoint(0).read_text() == "three epochs"
    for report in (lambda: stale.send(Begun()), stale.recv):
        with pytest.raises(FileNotFoundError):
            report()
    assert attempt.messages() == later.messages() == []
    later.search.payload.unlink()
    supervision.supervise(str(later.files.path), {})
    with pytest.raises(FileExistsError):
        supervision.supervise(str(later.files.path), {})
    *_, failed = later.messages()
    assert isinstance(failed, Exit) and failed.code == 1
    make_attempt(tmp_path)
    close_all(SearchDirectory(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"trials", "task"}


def test_messages_arrive_unchanged(tmp_path):
    attempt = make_attempt(tmp_path)
    link = FileLink(attempt.files, waits=False)
    ended = Ended(0.1, 2, {"loss": [0.3, None]}, False, None, True, {"space": []})
    sent = [Begun(), Resumed([{"loss": 0.3}]), Epoch(None, {"loss": 0.1}), ended]
    sent += [Failed("ü\n", "line\nline"), Fatal("no"), Explored({"space": []})]
    for message in sent:
        link.send(message)
    link.send(Epoch(np.float32(0.5), {}))
    with open(attempt.files.messages, "ab") as file:
        file.write(b'["Epoch", {"sc')
    assert attempt.messages() == [*sent, Epoch(0.5, {})]
    with open(attempt.files.messages, "ab") as file:
        file.write(b'ore": 3.0, "logs": {}}]\n')
    assert attempt.messages() == [Epoch(3.0, {})]
    with open(attempt.files.messages, "ab") as file:
        file.write(b'["Epoch", {"sc')
    supervision.report(attempt.files.path, 0)
    assert attempt.messages() == [Exit(0)]


def test_only_a_waiting_link_waits_for_an_answer(tmp_path):
    attempt = make_attempt(tmp_path)
    waiting, passing = (FileLink(attempt.files, waits) for waits in (True, False))
    assert passing.recv()
    for go_on in (True, True, False):
        threading.Timer(0.1, attempt.answer, [go_on]).start()
        assert waiting.recv() == go_on
    assert not passing.recv()


def test_broken_pool_ends_the_search_and_another_resumes_it(tmp_path, reference):
    arguments = settings(tmp_path) | {"max_trials": 1}
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        killed = pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL)
        concurrent.futures.wait([killed])
        with pytest.raises(SearchFailed, match="must accept tasks.*BrokenProcessPool"):
            search(Small(), (X, Y), **arguments, executor=pool)
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
        results = search(Small(), (X, Y), **arguments, executor=pool)
    assert outcome(results)[1] == outcome(reference)[1][:1]


def test_rejects_a_value_that_is_not_an_executor(tmp_path):
    for wrong in ("tcp://host:8786", concurrent.futures.ThreadPoolExecutor, 2):
        with pytest.raises(ValueError, match="`executor` must be None.*Received: exec"):
            search(Instant(), directory=tmp_path, executor=wrong)
    with pytest.raises(ValueError, match="`workers` must be an integer of 1 or more"):
        search(Instant(), directory=tmp_path, executor=LosingExecutor(), workers=0)
