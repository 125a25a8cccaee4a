"""Parts of a data set that share nothing."""


def disjoint(*parts):
    """Leaves out of each part the rows that a later part has too.

    What a model is tested on must be new to it. Where published parts share rows, the
    last part, the test, stays whole, and those before it lose what they share. A row
    that a part holds several times is kept as often.

    Args:
        *parts: Two or more parts, from the one to learn from to the one to test on.
            A part is a tuple of lists of equal length, as `load` returns them; rows are
            the same if their entries in the first list are.

    Returns:
        A list of the parts, as tuples of lists.

    Example:

    >>> from kseq.datasets import disjoint
    >>> disjoint((["a", "b", "a"], [0, 1, 0]), (["b", "c"], [1, 2]))
    [(['a', 'a'], [0, 0]), (['b', 'c'], [1, 2])]
    """
    later, kept = set(), []
    for columns in reversed(parts):
        keys = [_hashable(entry) for entry in columns[0]]
        rows = [row for row, key in enumerate(keys) if key not in later]
        kept.insert(0, tuple([column[row] for row in rows] for column in columns))
        later.update(keys)
    return kept


def _hashable(entry):
    return tuple(map(_hashable, entry)) if isinstance(entry, list) else entry
