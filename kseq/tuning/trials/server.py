"""A server that starts a process for each trial.

Importing Keras takes seconds. The server does it once and runs nothing with it, so that
no thread of TensorFlow or JAX has started, and forks: a trial starts in milliseconds,
with the space and the data already in memory. If a runtime has started anyway, or the
system is not Linux, each trial is a new process that imports Keras itself.

Every process dies with the process that started it, even if that is killed.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from multiprocessing.connection import wait
from typing import Any

from kseq.tuning.trials.payload import (
    Loader,
    hidden_prompt,
    pack,
    receive_packed,
    send_packed,
)
from kseq.tuning.trials.supervision import BREATH, end, report

THREADS_OF_RUNTIMES = ("tf_", "llvm-worker")


class TrialServer:
    """The parent's side: starts processes for the folders of attempts.

    Args:
        payload: The input of each trial, such as a space and its data. It must be
            picklable.
        workers: Number of trials that run at once and share the cores.

    Raises:
        ValueError: The payload cannot be pickled.

    Attributes:
        breath: Seconds between checks for messages.
        is_near: Whether a process receives answers immediately.
    """

    context = multiprocessing.get_context("spawn")
    breath = 0.02
    is_near = True

    def __init__(self, payload: Any, workers: int) -> None:
        self._packed = pack(payload)
        self._environment = shares(workers)
        self._process: Any = None
        self._link: Any = None  # the connection to the server, while there is one
        self._futures: dict[str, Future[None]] = {}  # folder of an attempt -> future

    def submit(self, folder: str) -> "Future[None]":
        """Start a process, and return a future that is done when it has ended."""
        future: Future[None] = Future()
        self._futures[folder] = future
        future.set_running_or_notify_cancel()
        if self._process is None:
            self._open()
        with contextlib.suppress(OSError):  # the server is gone; `poll` will notice
            self._link.send(folder)
        return future

    def poll(self) -> None:
        """Update the futures."""
        try:
            while self._link is not None and self._link.poll():
                self._futures.pop(self._link.recv()).set_result(None)
        except (EOFError, OSError):
            lost = ChildProcessError("the server of the trials' processes was killed")
            for future in self._futures.values():
                future.set_exception(lost)
            self.close()

    def _open(self) -> None:
        self._link, theirs = self.context.Pipe()
        with environment(self._environment), hidden_prompt():
            self._process = self.context.Process(
                target=serve, args=(theirs,), name="kseq-trial-server"
            )
            self._process.start()
        theirs.close()
        with contextlib.suppress(OSError):
            send_packed(self._link, self._packed)

    def close(self) -> None:
        """Kill all trials, and the server."""
        self._futures.clear()
        if self._process is None:
            return
        self._link.close()  # tells the server to end
        self._link = None
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self._process = None


def shares(workers: int) -> dict[str, str]:
    """Return environment variables that give each trial its share of the cores."""
    threads = str(max(1, available_cores() // workers))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    settings = {name: threads for name in (*names, "TF_NUM_INTEROP_THREADS")}
    settings["TF_CPP_MIN_LOG_LEVEL"] = "2"
    if workers > 1:
        settings["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    return {n: v for n, v in settings.items() if n not in os.environ}


def available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes that start in this context."""
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]


# The following runs in the server.


def serve(connection: Any) -> None:
    """Start processes, and report when they have ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    children: dict[str, Any] = {}  # folder of an attempt -> process
    try:
        from kseq.tuning.trials.attempt_process import main

        load = Loader(receive_packed(connection))
        context = forking_context()
        while True:
            ends = [process.sentinel for process in children.values()]
            if connection in wait([connection, *ends], BREATH if children else None):
                folder = connection.recv()
                children[folder] = spawn(context, main, folder, load)
            for folder, process in list(children.items()):
                if process.exitcode is None and os.path.isdir(folder):
                    continue
                end(process)
                process.join()
                del children[folder]
                report(folder, process.exitcode)
                connection.send(folder)
    except (EOFError, OSError):
        pass  # the parent is gone
    finally:
        for process in children.values():
            end(process)


def spawn(
    context: Any, main: Callable[..., Any], folder: str, load: Callable[..., Any]
) -> Any:
    arguments = main, folder, os.getpid(), load
    process = context.Process(target=in_own_group, args=arguments)
    with warnings.catch_warnings():
        # NumPy's idle threads do not endanger a fork, and JAX has not started.
        warnings.simplefilter("ignore")
        process.start()
    return process


def in_own_group(main: Callable[..., Any], *arguments: Any) -> None:
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    main(*arguments)


def forking_context() -> Any:
    """Return the context of `multiprocessing`, which forks if that is safe."""
    return multiprocessing.get_context("fork" if can_fork() else "spawn")


def can_fork() -> bool:
    """Return whether no runtime has started threads, which a fork would lose."""
    if sys.platform != "linux":
        return False
    names = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/comm") as file:
            names.append(file.read())
    return not any(name.startswith(THREADS_OF_RUNTIMES) for name in names)
