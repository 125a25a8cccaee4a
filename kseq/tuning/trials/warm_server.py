"""The server beside a worker of an executor: forks one attempt after another.

It reads the folder of each from its standard input, a line of JSON, and answers with an
empty line when the attempt has ended. It ends when there is nothing more to read, or
when the worker is gone.
"""

import json
import os
import sys
import time

from kseq.tuning.trials.server import forking_context, spawn
from kseq.tuning.trials.supervision import BREATH, end, report


def main(parent):
    """Serves the process `parent`."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is printed here is no answer
    from kseq.tuning.trials.attempt_process import main as run

    context = forking_context()
    for line in sys.stdin:
        folder = json.loads(line)
        watch(spawn(context, printing_to_its_folder, folder, run), folder, parent)
        print(file=answers, flush=True)


def printing_to_its_folder(folder, parent, run):
    with open(os.path.join(folder, "output"), "ab") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    run(folder, parent)


def watch(process, folder, parent):
    """Waits for the end of an attempt, or ends it when nobody wants it any more."""
    while process.exitcode is None and os.path.isdir(folder):
        if os.getppid() != parent:  # the trial is lost, and has not failed
            end(process)
            sys.exit()
        time.sleep(BREATH)
    end(process)
    process.join()
    report(folder, process.exitcode)


if __name__ == "__main__":
    main(int(sys.argv[1]))
