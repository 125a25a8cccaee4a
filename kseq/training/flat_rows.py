"""Rows of token ids in one flat array, from which batches are cut.

Axes in shape comments: N rows, L ids of all rows, B batch, S steps.
"""

import collections.abc
from typing import Self

import numpy as np

from kseq.token_rows import TokenRows, limits_of

PIECE = 1 << 22  # ids searched at a time, to limit the memory needed


class FlatRows(collections.abc.Sequence[np.ndarray]):
    """Rows of token ids, stored in one flat array. A row is an int32 array.

    Args:
        flat: The ids of all rows, integers `(L,)`, in memory or mapped from a file. Or
            `(L, K)`, for words with their characters.
        starts: Start of each row, integers `(N,)` in non-decreasing order.
        lengths: Length of each row, integers `(N,)`.
    """

    def __init__(
        self, flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray
    ) -> None:
        self.flat = flat
        self.starts = starts
        self.lengths = np.asarray(lengths, "int32")

    @classmethod
    def of(
        cls, rows: TokenRows | list[np.ndarray], pad_token_id: int | None = None
    ) -> Self:
        """Make rows from `TokenRows` or a list of arrays.

        Args:
            rows: The rows.
            pad_token_id: The id that is removed at the end of rows, or None.
        """
        if isinstance(rows, TokenRows):
            flat, limits = rows.flat, np.asarray(rows.limits)
        else:
            limits = limits_of([len(row) for row in rows])
            flat = np.concatenate([row.astype("int32") for row in rows])
        starts, lengths = limits[:-1], np.diff(limits)
        if pad_token_id is not None and flat.ndim == 1:
            filled = np.flatnonzero(lengths)
            ends = starts[filled] + lengths[filled] - 1
            for row in filled[flat[ends] == pad_token_id]:
                ids = flat[starts[row] : limits[row + 1]]
                real = np.flatnonzero(ids != pad_token_id)
                lengths[row] = real[-1] + 1 if real.size else 0
        return cls(flat, starts, lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, number: int) -> np.ndarray:  # type: ignore[override]
        start = self.starts[number]
        return self.flat[start : start + self.lengths[number]].astype("int32")

    def cut(self, lengths: np.ndarray) -> "FlatRows":
        """Return the rows, truncated to the given lengths."""
        return FlatRows(self.flat, self.starts, lengths)

    def first_with(self, token_id: int) -> int | None:
        """Return the number of the first row that contains an id, or None."""
        for first in range(0, len(self.flat), PIECE):
            piece = np.asarray(self.flat[first : first + PIECE])
            places = first + np.flatnonzero(piece == token_id)
            rows = np.searchsorted(self.starts, places, "right") - 1
            inside = rows[places < self.starts[rows] + self.lengths[rows]]
            if inside.size:
                return int(inside[0])
        return None

    def stacked(self, rows: np.ndarray, length: int, padding: float) -> np.ndarray:
        """Return the rows with these numbers as one padded array `(B, length, ...)`."""
        lengths = self.lengths[rows, None]  # B 1
        places = np.arange(length)  # S
        inside = places < lengths  # B S
        padded = np.full((*inside.shape, *self.flat.shape[1:]), padding, "int32")
        padded[inside] = self.flat[(self.starts[rows, None] + places)[inside]]
        return padded
