"""The server beside a worker of an executor, which forks one attempt after another.

It reads the folder of each attempt from its standard input, one line of JSON, and
answers with an empty line when the attempt has ended. It ends when its input ends or
the worker is gone.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from kseq.tuning.trials.server import forking_context, spawn
from kseq.tuning.trials.supervision import BREATH, end, report


def main(parent: int) -> None:
    """Serve the process with the id `parent`."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keeps printed output out of the answers
    from kseq.tuning.trials.attempt_process import main as run

    context = forking_context()
    for line in sys.stdin:
        folder = json.loads(line)
        watch(spawn(context, printing_to_its_folder, folder, run), folder, parent)
        print(file=answers, flush=True)


def printing_to_its_folder(folder: str, parent: int, run: Callable[..., Any]) -> None:
    with open(os.path.join(folder, "output"), "ab") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    run(folder, parent)


def watch(process: BaseProcess, folder: str, parent: int) -> None:
    """Wait for the end of an attempt, or end it if its folder or the worker is gone."""
    while process.exitcode is None and os.path.isdir(folder):
        if os.getppid() != parent:  # the trial is lost, not failed
            end(process)
            sys.exit()
        time.sleep(BREATH)
    end(process)
    process.join()
    report(folder, process.exitcode)


if __name__ == "__main__":
    main(int(sys.argv[1]))
