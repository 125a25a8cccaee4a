"""What an executor runs for a trial: the one task of an attempt.

It travels by value, so that a worker imports neither Keras nor kseq to run it: this
module knows the standard library alone.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

BREATH = 0.1  # seconds between two looks at the process and the folder
PATIENCE = 5  # seconds until a folder that does not appear is not shared


def supervise(folder, environment):
    """Runs the process of an attempt to its end, or until the folder is gone.

    Args:
        folder: The folder of the attempt, by a path that all hosts know.
        environment: Variables of the process, besides those of the worker.

    Returns:
        The exit code; or None, if another task has run the attempt; or the name of
        this host, if it has no such folder.
    """
    deadline = time.monotonic() + PATIENCE
    while not os.path.isdir(folder):
        if time.monotonic() > deadline:
            return socket.gethostname()
        time.sleep(BREATH)
    try:
        os.close(os.open(os.path.join(folder, "taken"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return None
    program = ["-m", "kseq.tuning.trials.attempt_process", folder, str(os.getpid())]
    with open(os.path.join(folder, "output"), "ab") as output:
        process = subprocess.Popen(
            [sys.executable, *program],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        while process.poll() is None and os.path.isdir(folder):
            time.sleep(BREATH)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.poll() is None:
            process.kill()
    return process.wait()
