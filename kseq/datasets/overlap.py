"""Removal of the overlap between the parts of a data set."""

from collections.abc import Hashable, Sequence
from typing import Any


def disjoint(
    *parts: tuple[Sequence[Any], ...], columns: Sequence[int] = (0,)
) -> list[tuple[list[Any], ...]]:
    """Remove from each part the rows that a later part has too.

    A model must be tested on new data. If published parts share rows, the last part,
    the test part, stays complete, and the shared rows are removed from earlier parts.
    Duplicate rows within a part are kept.

    Args:
        *parts: Two or more parts, from training to test. A part is a tuple of lists of
            equal length, as returned by `load`.
        columns: Numbers of the lists to compare, from 0. Rows overlap if their entries
            in any of these lists are equal. Use `(0, 1)` for pairs of which neither
            text may occur in a later part.

    Returns:
        A list of the parts, as tuples of lists.

    Example:

    >>> from kseq.datasets import disjoint
    >>> disjoint((["a", "b", "a"], [0, 1, 0]), (["b", "c"], [1, 2]))
    [(['a', 'a'], [0, 0]), (['b', 'c'], [1, 2])]
    """
    later: set[Hashable] = set()
    kept: list[tuple[list[Any], ...]] = []
    for part in reversed(parts):
        compared = [[(c, _hashable(entry)) for entry in part[c]] for c in columns]
        keys = list(zip(*compared, strict=True))
        rows = [row for row, some in enumerate(keys) if later.isdisjoint(some)]
        kept.insert(0, tuple([column[row] for row in rows] for column in part))
        later.update(key for some in keys for key in some)
    return kept


def _hashable(entry: Any) -> Hashable:
    if hasattr(entry, "tobytes"):  # an array
        return entry.shape, entry.tobytes()
    return tuple(map(_hashable, entry)) if isinstance(entry, list) else entry
