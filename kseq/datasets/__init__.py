"""Named data sets: plain strings or NumPy arrays, split as published.

Each is known by its public address, its licence and its checksum:

- `load(name)` reads one, and downloads it first where that is needed.
- `describe(name)` says what it holds, and `names()` which there are.
- `hold_out` splits pairs that were published in one piece.
- `read_labelled`, `read_tagged`, `read_pairs`, `read_inflections`, `read_series`,
  `read_columns` and `read_text` read files of your own, `read_pictures` a folder.
- `disjoint` leaves out of each part what a later one has too.
"""

from kseq.datasets.catalogue import DataSet, describe, load, names
from kseq.datasets.characters import read_text
from kseq.datasets.columns import read_columns
from kseq.datasets.holding_out import hold_out
from kseq.datasets.inflections import read_inflections
from kseq.datasets.labelled import read_labelled
from kseq.datasets.overlap import disjoint
from kseq.datasets.pairs import read_pairs
from kseq.datasets.pictures import read_pictures
from kseq.datasets.series import read_series
from kseq.datasets.tagged import read_tagged

__all__ = [
    "DataSet",
    "describe",
    "disjoint",
    "hold_out",
    "load",
    "names",
    "read_columns",
    "read_inflections",
    "read_labelled",
    "read_pairs",
    "read_pictures",
    "read_series",
    "read_tagged",
    "read_text",
]
