"""The process of an attempt at a trial: a fork of the server, or a program."""

import ctypes
import os
import pickle
import signal
import sys
from collections.abc import Callable
from typing import Any

from kseq.tuning.trials.attempts import FileLink
from kseq.tuning.trials.job import Begun
from kseq.tuning.trials.layout import AttemptDirectory, SearchDirectory
from kseq.tuning.trials.payload import Loader, read_packed
from kseq.tuning.trials.trial import run


def main(folder: str, parent: int, load: Callable[[], Any] | None = None) -> None:
    """Run an attempt.

    Args:
        folder: Its folder.
        parent: Id of the process with which this one dies.
        load: Function without arguments that returns the space and the arguments of
            `fit`. None to read them from the directory of the search.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the search
    die_with(parent)
    files = AttemptDirectory(folder)
    job, paths = pickle.loads(files.job.read_bytes())
    sys.path += [path for path in paths if path not in sys.path]
    link = FileLink(files, job.waits)
    link.send(Begun())
    run(link, load or Loader(read_packed(SearchDirectory(job.root).payload)), job)


def die_with(parent: int) -> None:
    """Make this process die with its parent, or now if the parent is already gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
