"""Rows of token ids in one flat array.

Axes in shape comments: N rows, L ids of all rows.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np

SHOWN = 100  # rows; if there are more, only the first three are shown


class TokenRows(Sequence[list[Any]]):
    """Rows of token ids in one flat array.

    It behaves like a list of lists of integers, and equals such a list, but needs only
    two or four bytes for each id, while a list needs 36. Each access copies the row.

    Args:
        flat: The concatenated ids of all rows: integers `(L,)`, in memory or mapped
            from a file; or `(L, K)`, with K ids at each step.
        limits: Start of each row, and end of the last one, integers `(N + 1,)`.

    Example:

    >>> import numpy as np
    >>> from kseq.token_rows import TokenRows
    >>> rows = TokenRows(np.array([5, 6, 7], "uint16"), np.array([0, 2, 2, 3]))
    >>> rows, rows[0], rows == [[5, 6], [], [7]]
    ([[5, 6], [], [7]], [5, 6], True)
    """

    def __init__(self, flat: np.ndarray, limits: np.ndarray) -> None:
        self.flat = flat
        self.limits = limits

    @classmethod
    def join(cls, parts: Iterable["TokenRows"]) -> Self:
        """Return the concatenated rows of several `TokenRows`."""
        parts = [part for part in parts if len(part)]
        if not parts:
            return cls(np.zeros(0, "uint16"), np.zeros(1, "int64"))
        lengths = np.concatenate([np.diff(part.limits) for part in parts])
        return cls(np.concatenate([part.flat for part in parts]), limits_of(lengths))

    @classmethod
    def of_lists(cls, rows: Sequence[Sequence[int]], dtype: str = "int32") -> Self:
        """Return rows from lists of integers."""
        flat = np.fromiter(itertools.chain.from_iterable(rows), dtype)
        return cls(flat, limits_of([len(row) for row in rows]))

    def __len__(self) -> int:
        return len(self.limits) - 1

    def __getitem__(self, index: int | slice) -> list[Any]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"Row {index} of {len(self)} rows")
        return self.flat[self.limits[number] : self.limits[number + 1]].tolist()

    def __iter__(self) -> Iterator[list[Any]]:
        for first, last in itertools.pairwise(self.limits):
            yield self.flat[first:last].tolist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | TokenRows):
            return NotImplemented
        return len(self) == len(other) and all(map(list.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Iterable[list[Any]]) -> list[list[Any]]:
        return [*self, *other]

    def __radd__(self, other: Iterable[list[Any]]) -> list[list[Any]]:
        return [*other, *self]

    def __repr__(self) -> str:
        if len(self) <= SHOWN:
            return repr(list(self))
        return f"[{str(self[:3])[1:-1]}, ...] ({len(self):,} rows)"


def limits_of(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the limits of rows with the given lengths."""
    limits = np.zeros(len(lengths) + 1, "int64")
    np.cumsum(lengths, out=limits[1:])
    return limits


def smallest(size: int) -> str:
    """Return the smallest dtype for ids below `size`: "uint16" or "int32"."""
    return "uint16" if size <= 1 << 16 else "int32"
