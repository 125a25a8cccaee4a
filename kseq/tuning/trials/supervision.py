"""Supervision of a trial on a worker, from its start to its end.

An executor runs `supervise`, which is sent as the text of this file, so that nothing in
between, such as Dask's scheduler, needs to import kseq and Keras. This file therefore
uses only the standard library.

Beside a worker runs a server, a `warm_server`, which has imported Keras once and forks
one trial after another.
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
from typing import Any

BREATH = 0.1  # seconds between checks of the process and the folder
PATIENCE = 5  # seconds until a missing folder counts as not shared
IDLE_SECONDS = 60  # until an idle server ends


def supervise(folder: str, environment: dict[str, str]) -> None:
    """Run the process of an attempt to its end, or until the folder is gone.

    Args:
        folder: The folder of the attempt, by a path that is valid on all hosts.
        environment: Environment variables of the process, added to the worker's.

    Raises:
        NotADirectoryError: This host, which the error names, has no such folder.
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
    else:  # it died, or could not begin
        report(folder, server.close(PATIENCE))


def idle_server(environment: dict[str, str]) -> "Server | None":
    """Return an idle server of this worker with this environment, or None."""
    for server in list(idle_servers()):
        if server.environment == environment and server.wake():
            return server
    return None


def idle_servers() -> "list[Server]":
    """Return the idle servers of this process, also of other copies of this code."""
    return vars(sys).setdefault("_kseq_idle_servers", [])


class Server:
    """A process that has imported Keras and runs one attempt after another.

    It ends with the process that started it.

    Args:
        folder: The folder of its first attempt, to which it reports startup errors.
        environment: Environment variables, added to those of this process.
    """

    def __init__(self, folder: str, environment: dict[str, str]) -> None:
        self.environment = environment
        program = ["-m", "kseq.tuning.trials.warm_server", str(os.getpid())]
        with open(os.path.join(folder, "output"), "ab") as output:
            self.process: Any = subprocess.Popen(
                [sys.executable, *program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,
                text=True,
            )

    def run(self, folder: str) -> bool:
        """Run an attempt to its end. Return whether the server is still there."""
        try:
            self.process.stdin.write(json.dumps(folder) + "\n")
            self.process.stdin.flush()
        except OSError:
            return False
        return bool(self.process.stdout.readline())

    def rest(self) -> None:
        self.timer = threading.Timer(IDLE_SECONDS, self.expire)
        self.timer.daemon = True
        idle_servers().append(self)
        self.timer.start()

    def wake(self) -> bool:
        """Remove it from the idle servers. Return whether it can be used."""
        try:
            idle_servers().remove(self)
        except ValueError:  # another thread was faster
            return False
        self.timer.cancel()
        return self.process.poll() is None

    def expire(self) -> None:
        if self.wake():
            self.close()

    def close(self, patience: float = 0) -> int:
        """End the server and everything that it runs. Return its exit code."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        end(self.process)
        code = self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        return code


def end(process: Any) -> None:
    """Kill the process of a trial, and everything it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def report(folder: str, code: int | None) -> None:
    """Report that the process has ended, after all its own messages."""
    last = json.dumps(["Exit", {"code": code}])
    with contextlib.suppress(FileNotFoundError):  # the attempt is closed
        with open(os.path.join(folder, "messages.jsonl"), "a") as messages:
            messages.write(f"\n{last}\n")  # ends a line that a kill has cut off
