"""A server that spawns a process for each trial.

Keras takes seconds to import. The server does that once, runs nothing with it, so that
no thread of TensorFlow or JAX has begun, and forks: a trial begins in milliseconds,
with the space and the data in its memory already. Where a runtime has begun all the
same, or the system is not Linux, each trial is a new process that imports Keras itself.

Every process dies with the one that made it, even when that is killed.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import warnings
from concurrent.futures import Future
from multiprocessing.connection import wait

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
    """The parent's side: has processes started for the folders of attempts.

    Args:
        payload: What each trial gets, such as a space and its data; it must pickle.
        workers: How many trials run at once, which share out the cores.

    Raises:
        ValueError: The payload does not pickle.

    Attributes:
        breath: How many seconds to rest between two looks at the messages.
        is_near: Whether a process hears at once what it is told.
    """

    context = multiprocessing.get_context("spawn")
    breath = 0.02
    is_near = True

    def __init__(self, payload, workers):
        self._packed = pack(payload)
        self._environment = shares(workers)
        self._process = None
        self._link = None  # the connection to the server, while there is one
        self._futures = {}  # folder of an attempt -> future

    def submit(self, folder):
        """Starts a process, and returns a future that is done when it has ended."""
        future = self._futures[folder] = Future()
        future.set_running_or_notify_cancel()
        if self._process is None:
            self._open()
        with contextlib.suppress(OSError):  # it is gone, which `poll` will see
            self._link.send(folder)
        return future

    def poll(self):
        """Brings the futures up to date."""
        try:
            while self._link is not None and self._link.poll():
                self._futures.pop(self._link.recv()).set_result(None)
        except (EOFError, OSError):
            lost = ChildProcessError("the server of the trials' processes was killed")
            for future in self._futures.values():
                future.set_exception(lost)
            self.close()

    def _open(self):
        self._link, theirs = self.context.Pipe()
        with environment(self._environment), hidden_prompt():
            self._process = self.context.Process(
                target=serve, args=(theirs,), name="kseq-trial-server"
            )
            self._process.start()
        theirs.close()
        with contextlib.suppress(OSError):
            send_packed(self._link, self._packed)

    def close(self):
        """Kills all trials, and the server."""
        self._futures.clear()
        if self._process is None:
            return
        self._link.close()  # which the server takes as the sign to go
        self._link = None
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self._process = None


def shares(workers):
    """Environment variables that give each of several trials its share of the cores."""
    threads = str(max(1, available_cores() // workers))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    settings = {name: threads for name in (*names, "TF_NUM_INTEROP_THREADS")}
    settings["TF_CPP_MIN_LOG_LEVEL"] = "2"
    if workers > 1:
        settings["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    return {n: v for n, v in settings.items() if n not in os.environ}


def available_cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def environment(settings):
    """Sets variables for the processes that begin here."""
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]


# What follows runs in the server.


def serve(connection):
    """The server's loop: starts processes, and says when they have ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    children = {}  # folder of an attempt -> process
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


def spawn(context, main, folder, load):
    arguments = main, folder, os.getpid(), load
    process = context.Process(target=in_own_group, args=arguments)
    with warnings.catch_warnings():
        # NumPy's idle threads are no danger to a fork, and JAX has not begun.
        warnings.simplefilter("ignore")
        process.start()
    return process


def in_own_group(main, *arguments):
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    main(*arguments)


def forking_context():
    """What starts processes of `multiprocessing`: by forks where that is safe."""
    return multiprocessing.get_context("fork" if can_fork() else "spawn")


def can_fork():
    """Whether no runtime's threads have begun, which a fork would leave behind."""
    if sys.platform != "linux":
        return False
    names = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/comm") as file:
            names.append(file.read())
    return not any(name.startswith(THREADS_OF_RUNTIMES) for name in names)
