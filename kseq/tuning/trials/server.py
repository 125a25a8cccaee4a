"""A server that spawns a process for each trial.

Keras takes seconds to import. The server does that once, runs nothing with it, so that
no thread of TensorFlow or JAX has begun, and forks: a trial begins in milliseconds,
with the space and the data in its memory already. Where a runtime has begun all the
same, or the system is not Linux, each trial is a new process that imports Keras itself.

Every process dies with the one that made it, even when that is killed.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import warnings
from multiprocessing.connection import wait

from kseq.tuning.trials.errors import TrialServerLost
from kseq.tuning.trials.job import Exit, Kill, Start, Tell
from kseq.tuning.trials.payload import (
    Loader,
    hidden_prompt,
    pack,
    receive_packed,
    send_packed,
)

THREADS_OF_RUNTIMES = ("tf_", "llvm-worker")
BREATH = 0.1  # seconds between two looks at whether a child has died


class TrialServer:
    """The parent's side: starts trials by name, and hears from them.

    Args:
        payload: What each trial gets, such as a space and its data; it must pickle.
        workers: How many trials run at once, which share out the cores.

    Raises:
        ValueError: The payload does not pickle.
    """

    context = multiprocessing.get_context("spawn")
    has_queue = False  # a trial begins when it is started

    def __init__(self, payload, workers):
        self._packed = pack(payload)
        self._environment = shares(workers)
        self._process = None
        self.link = None  # the connection to the server, while there is one

    def open(self):
        if self._process is not None:
            return
        self.link, theirs = self.context.Pipe()
        with environment(self._environment), hidden_prompt():
            self._process = self.context.Process(
                target=serve, args=(theirs,), name="kseq-trial-server"
            )
            self._process.start()
        theirs.close()
        with self._lost():
            send_packed(self.link, self._packed)

    def start(self, name, job):
        """Starts a trial. `name` is free again when its `exit` was heard."""
        self.open()
        with self._lost():
            self.link.send(Start(name, job))

    def tell(self, name, message):
        with self._lost():
            self.link.send(Tell(name, message))

    def kill(self, name):
        """Kills a trial; its `exit` will be heard."""
        with self._lost():
            self.link.send(Kill(name))

    def hear(self, seconds):
        """Returns `(name, message)`, or None if all is silent for that long.

        Raises:
            TrialServerLost: The server was killed, and all trials with it.
        """
        with self._lost():
            return self.link.recv() if self.link.poll(seconds) else None

    def close(self):
        """Kills all trials, and the server."""
        if self._process is None:
            return
        self.link.close()  # which the server takes as the sign to go
        self.link = None
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()
        self._process = None

    @property
    def pid(self):
        return self._process.pid

    @contextlib.contextmanager
    def _lost(self):
        try:
            yield
        except (EOFError, OSError) as error:
            self.close()
            raise TrialServerLost from error


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
    """The server's loop: starts and kills trials, and passes messages both ways."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    children = {}
    try:
        from kseq.tuning.trials.trial import run

        load = Loader(receive_packed(connection))
        context = multiprocessing.get_context("fork" if can_fork() else "spawn")
        while True:
            links = [link for _, link in children.values() if not link.closed]
            ready = wait([connection, *links], BREATH if children else None)
            for name in list(children):
                forward(connection, children, name)
            if connection in ready:
                message = connection.recv()
                child = children.get(message.name)
                if isinstance(message, Start):
                    children[message.name] = spawn(context, run, load, message.job)
                elif child and isinstance(message, Tell):
                    with contextlib.suppress(OSError):
                        child[1].send(message.content)
                elif child and isinstance(message, Kill):
                    end(child[0])
    except (EOFError, OSError):
        pass  # the parent is gone
    finally:
        for process, _ in children.values():
            end(process)


def spawn(context, run, load, job):
    mine, theirs = context.Pipe()
    process = context.Process(target=main, args=(run, theirs, load, job, os.getpid()))
    with warnings.catch_warnings():
        # NumPy's idle threads are no danger to a fork, and JAX has not begun.
        warnings.simplefilter("ignore")
        process.start()
    theirs.close()
    return process, mine


def main(run, connection, load, job, parent):
    """A trial's process: a group of its own, which dies with the server."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    die_with(parent)
    run(connection, load, job)


def die_with(parent):
    """Has this process die when its parent does, or has done by now."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def forward(connection, children, name):
    """Passes on what a child says, and at last how it ended."""
    process, link = children[name]
    exit_code = process.exitcode  # looked at first: no message comes after
    try:
        while not link.closed and link.poll():
            connection.send((name, link.recv()))
    except (EOFError, OSError):
        link.close()
    if exit_code is not None:
        end(process)
        process.join()
        link.close()
        del children[name]
        connection.send((name, Exit(exit_code)))


def end(process):
    """Kills a trial, and whatever it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.exitcode is None:
        process.kill()


def can_fork():
    """Whether no runtime's threads have begun, which a fork would leave behind."""
    if sys.platform != "linux":
        return False
    names = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/comm") as file:
            names.append(file.read())
    return not any(name.startswith(THREADS_OF_RUNTIMES) for name in names)
