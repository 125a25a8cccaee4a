"""Rows of token ids in one flat array, whatever their number.

Axes in shape comments: N rows, L ids of all rows.
"""

import collections.abc
import itertools

import numpy as np

SHOWN = 100  # rows; of more, the first three are shown


class TokenRows(collections.abc.Sequence):
    """Rows of token ids in one flat array.

    It reads like a list of lists of integers, and is equal to one, but takes two or
    four bytes for an id, where a list takes 36. A row that is taken out is a copy.

    Args:
        flat: The ids of all rows, one behind the other, integers `(L,)`, in memory or
            mapped from a file; or `(L, K)`, where each step has several.
        limits: Where each row begins and the last one ends, integers `(N + 1,)`.

    Example:

    >>> import numpy as np
    >>> from kseq.token_rows import TokenRows
    >>> rows = TokenRows(np.array([5, 6, 7], "uint16"), np.array([0, 2, 2, 3]))
    >>> rows, rows[0], rows == [[5, 6], [], [7]]
    ([[5, 6], [], [7]], [5, 6], True)
    """

    def __init__(self, flat, limits):
        self.flat = flat
        self.limits = limits

    @classmethod
    def join(cls, parts):
        """Rows of all parts, each of them `TokenRows`, one behind the other."""
        parts = [part for part in parts if len(part)]
        if not parts:
            return cls(np.zeros(0, "uint16"), np.zeros(1, "int64"))
        lengths = np.concatenate([np.diff(part.limits) for part in parts])
        return cls(np.concatenate([part.flat for part in parts]), limits_of(lengths))

    @classmethod
    def of_lists(cls, rows, dtype="int32"):
        """Rows from lists of integers."""
        flat = np.fromiter(itertools.chain.from_iterable(rows), dtype)
        return cls(flat, limits_of([len(row) for row in rows]))

    def __len__(self):
        return len(self.limits) - 1

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"Row {index} of {len(self)} rows")
        return self.flat[self.limits[number] : self.limits[number + 1]].tolist()

    def __iter__(self):
        for first, last in itertools.pairwise(self.limits):
            yield self.flat[first:last].tolist()

    def __eq__(self, other):
        if not isinstance(other, list | TokenRows):
            return NotImplemented
        return len(self) == len(other) and all(map(list.__eq__, self, other))

    __hash__ = None

    def __add__(self, other):
        return [*self, *other]

    def __radd__(self, other):
        return [*other, *self]

    def __repr__(self):
        if len(self) <= SHOWN:
            return repr(list(self))
        return f"[{str(self[:3])[1:-1]}, ...] ({len(self):,} rows)"


def limits_of(lengths):
    """The limits of rows of these lengths."""
    limits = np.zeros(len(lengths) + 1, "int64")
    np.cumsum(lengths, out=limits[1:])
    return limits


def smallest(size):
    """The type of fewest bytes for ids below `size`."""
    return "uint16" if size <= 1 << 16 else "int32"
