"""The supervision of a trial's process, from its start to its end.

An executor runs `supervise`, which travels as the text of this file, so that nobody on
its way, such as the scheduler of Dask, imports kseq and Keras with it: this file knows
the standard library alone.
"""

import contextlib
import json
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
        end(process)
    report(folder, process.wait())


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
