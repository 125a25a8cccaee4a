"""Parts of a data set that share nothing."""


def disjoint(*parts, columns=(0,)):
    """Leaves out of each part the rows that a later part has too.

    What a model is tested on must be new to it. Where published parts share rows, the
    last part, the test, stays whole, and those before it lose what they share. A row
    that a part holds several times is kept as often.

    Args:
        *parts: Two or more parts, from the one to learn from to the one to test on.
            A part is a tuple of lists of equal length, as `load` returns them.
        columns: The lists to compare by, counted from 0. Rows share something if their
            entries in any of these are the same: `(0, 1)` for pairs of which neither
            text may have been seen.

    Returns:
        A list of the parts, as tuples of lists.

    Example:

    >>> from kseq.datasets import disjoint
    >>> disjoint((["a", "b", "a"], [0, 1, 0]), (["b", "c"], [1, 2]))
    [(['a', 'a'], [0, 0]), (['b', 'c'], [1, 2])]
    """
    later, kept = set(), []
    for part in reversed(parts):
        compared = [[(c, _hashable(entry)) for entry in part[c]] for c in columns]
        keys = list(zip(*compared, strict=True))
        rows = [row for row, some in enumerate(keys) if later.isdisjoint(some)]
        kept.insert(0, tuple([column[row] for row in rows] for column in part))
        later.update(key for some in keys for key in some)
    return kept


def _hashable(entry):
    if hasattr(entry, "tobytes"):  # an array
        return entry.shape, entry.tobytes()
    return tuple(map(_hashable, entry)) if isinstance(entry, list) else entry
