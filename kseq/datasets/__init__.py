"""Named data sets as plain strings or NumPy arrays, with their published splits.

Each data set has a licence and files with a checksum. Most are downloaded from a public
address.

- `load(name)` loads a data set, and downloads it first if necessary.
- `describe(name)` describes a data set, and `names()` lists all of them.
- `hold_out` splits pairs that were published without a split.
- `read_labelled`, `read_tagged`, `read_pairs`, `read_inflections`, `read_series`,
  `read_columns` and `read_text` read your own files, `read_pictures` a folder.
- `disjoint` removes from each part the rows that a later part has too.
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
