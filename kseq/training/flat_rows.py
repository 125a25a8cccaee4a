"""Rows of token ids in one flat array, from which batches are cut.

Axes in shape comments: N rows, L ids of all rows, B batch, S steps.
"""

import collections.abc

import numpy as np

from kseq.token_rows import TokenRows, limits_of

PIECE = 1 << 22  # ids that are looked at together, where there may be very many


class FlatRows(collections.abc.Sequence):
    """Rows of token ids as arrays, int32, that lie in one flat array.

    A word with its characters is a row of ids itself.

    Args:
        flat: The ids, integers `(L,)`, in memory or mapped from a file; or `(L, K)`.
        starts: Where each row begins, integers `(N,)` that never fall.
        lengths: How long each is, integers `(N,)`.
    """

    def __init__(self, flat, starts, lengths):
        self.flat = flat
        self.starts = starts
        self.lengths = np.asarray(lengths, "int32")

    @classmethod
    def of(cls, rows, pad_token_id=None):
        """Takes `TokenRows`, or a list of arrays, without the padding behind them."""
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

    def __len__(self):
        return len(self.starts)

    def __getitem__(self, number):
        start = self.starts[number]
        return self.flat[start : start + self.lengths[number]].astype("int32")

    def cut(self, lengths):
        """The same rows, only as long as these lengths."""
        return FlatRows(self.flat, self.starts, lengths)

    def first_with(self, token_id):
        """The number of the first row that holds an id, or None."""
        for first in range(0, len(self.flat), PIECE):
            piece = np.asarray(self.flat[first : first + PIECE])
            places = first + np.flatnonzero(piece == token_id)
            rows = np.searchsorted(self.starts, places, "right") - 1
            inside = rows[places < self.starts[rows] + self.lengths[rows]]
            if inside.size:
                return int(inside[0])
        return None

    def stacked(self, rows, length, padding):
        """One array `(B, length, ...)` of the rows with these numbers, filled up."""
        lengths = self.lengths[rows, None]  # B 1
        places = np.arange(length)  # S
        inside = places < lengths  # B S
        padded = np.full((*inside.shape, *self.flat.shape[1:]), padding, "int32")
        padded[inside] = self.flat[(self.starts[rows, None] + places)[inside]]
        return padded
