"""The process of an attempt at a trial, which `supervise` starts."""

import pickle
import sys

from kseq.tuning.trials.attempts import FileLink
from kseq.tuning.trials.job import Begun
from kseq.tuning.trials.layout import AttemptDirectory, SearchDirectory
from kseq.tuning.trials.payload import Loader, read_packed
from kseq.tuning.trials.server import die_with
from kseq.tuning.trials.trial import run


def main(folder, parent):
    die_with(int(parent))
    files = AttemptDirectory(folder)
    job, paths = pickle.loads(files.job.read_bytes())
    sys.path += [path for path in paths if path not in sys.path]
    link = FileLink(files)
    link.send(Begun())
    run(link, Loader(read_packed(SearchDirectory(job.root).payload)), job)


if __name__ == "__main__":
    main(*sys.argv[1:])
