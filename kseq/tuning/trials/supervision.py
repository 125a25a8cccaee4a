"""The supervision of a trial on a worker, from its start to its end.

An executor runs `supervise`, which travels as the text of this file, so that nobody on
its way, such as the scheduler of Dask, imports kseq and Keras with it: this file knows
the standard library alone.

Beside a worker stands a server, a `warm_server`, which has imported Keras once and
forks one trial after another.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

BREATH = 0.1  # seconds between two looks at the process and the folder
PATIENCE = 5  # seconds until a folder that does not appear is not shared
IDLE_SECONDS = 60  # until a server that has nothing to do ends


def supervise(folder, environment):
    """Runs the process of an attempt to its end, or until the folder is gone.

    Args:
        folder: The folder of the attempt, by a path that all hosts know.
        environment: Variables of the process, besides those of the worker.

    Raises:
        NotADirectoryError: This host, which it names, has no such folder.
        FileExistsError: Another task has run the attempt.
    """
    deadline = time.monotonic() + PATIENCE
    while not os.path.isdir(folder):
        if time.monotonic() > deadline:
            raise NotADirectoryError(socket.gethostname())
        time.sleep(BREATH)
    open(os.path.join(folder, "taken"), "x").close()
    server = idle_server(environment) or Server(folder, environment)
    try:
        has_ended = server.run(folder)
    except BaseException:
        server.close()
        raise
    if has_ended:
        server.rest()
    else:  # it has died, or could not begin
        report(folder, server.close(PATIENCE))


def idle_server(environment):
    """A server of this worker with such an environment, or None if none is idle."""
    for server in list(idle_servers()):
        if server.environment == environment and server.wake():
            return server
    return None


def idle_servers():
    """The servers of this process that have nothing to do, whatever text made them."""
    return vars(sys).setdefault("_kseq_idle_servers", [])


class Server:
    """A process that has imported Keras and runs one attempt after another.

    It ends with the process that has started it.

    Args:
        folder: The folder of its first attempt, which gets to know why it cannot begin.
        environment: Variables of the process, besides those of this one.
    """

    def __init__(self, folder, environment):
        self.environment = environment
        program = ["-m", "kseq.tuning.trials.warm_server", str(os.getpid())]
        with open(os.path.join(folder, "output"), "ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,
                text=True,
            )

    def run(self, folder):
        """Runs an attempt to its end; returns whether the server is still there."""
        try:
            self.process.stdin.write(json.dumps(folder) + "\n")
            self.process.stdin.flush()
        except OSError:
            return False
        return bool(self.process.stdout.readline())

    def rest(self):
        self.timer = threading.Timer(IDLE_SECONDS, self.expire)
        self.timer.daemon = True
        idle_servers().append(self)
        self.timer.start()

    def wake(self):
        """Takes it from the idle ones; returns whether it is there to be taken."""
        try:
            idle_servers().remove(self)
        except ValueError:  # another thread was faster
            return False
        self.timer.cancel()
        return self.process.poll() is None

    def expire(self):
        if self.wake():
            self.close()

    def close(self, patience=0):
        """Ends it, and all that it runs; returns its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        end(self.process)
        code = self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        return code


def end(process):
    """Kills the process of a trial, and whatever it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def report(folder, code):
    """Says that the process has ended, after all that it has said itself."""
    last = json.dumps(["Exit", {"code": code}])
    with contextlib.suppress(FileNotFoundError):  # the attempt is closed
        with open(os.path.join(folder, "messages.jsonl"), "a") as messages:
            messages.write(f"\n{last}\n")  # what a kill has cut off ends there
