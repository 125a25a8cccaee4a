"""Batches of rows of similar length, by number of rows or of tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kseq.layers.validation import (
    integer,
    optional_positive_integer,
    positive_integer,
)
from kseq.training.batch_dataset import BatchDataset
from kseq.training.plans import by_rows, by_tokens, cut, in_order
from kseq.typing import TensorLike


class LengthBatches(BatchDataset):
    """A data set that batches rows of similar length, which saves padding.

    All rows are shuffled and cut into pools. Each pool is sorted by length and cut into
    batches, and the batches are shuffled. With `batch_tokens`, all rows are one pool.
    Every row comes once per epoch, in an order that follows from `seed` and the number
    of the epoch. `fit` shuffles the batches once more unless `shuffle=False`.

    Lengths are rounded up to a multiple, so that a compiled model sees few shapes, but
    where possible not beyond the longest row. A limit on positions must leave room for
    one more multiple.

    Subclasses define `make_batch(rows, lengths)`: the batch of the rows with these
    numbers, padded to these numbers of steps, one per kind.

    Args:
        lengths: Number of steps of each row, integers `(kinds, N)`; kinds are, for
            example, source and target. Rows are sorted by the last kind first.
        batch_size: See `batches` for this and the following arguments.

    Example:

    >>> import numpy as np
    >>> from kseq.training import LengthBatches
    >>> class Numbers(LengthBatches):
    ...     def make_batch(self, rows, lengths):
    ...         return rows.tolist(), lengths.tolist()
    >>> Numbers([[3, 5, 2]], batch_size=2, shuffle=False, length_multiple=1)[0]
    ([0, 1], [5])
    """

    batches_in_pool = 100

    def __init__(
        self,
        lengths: TensorLike,
        batch_size: int = 64,
        shuffle: bool = True,
        seed: int = 0,
        length_multiple: int = 4,
        batch_tokens: int | None = None,
        steps: int | None = None,
        shard: Sequence[int] | None = None,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.batch_size = positive_integer("batch_size", batch_size)
        self.shuffle = shuffle
        if not 0 <= integer("seed", seed):
            raise ValueError(
                f"`seed` must be a non-negative integer. Received: seed={seed}."
            )
        self.seed = seed
        self.length_multiple = positive_integer("length_multiple", length_multiple)
        self._lengths = np.asarray(lengths, "int32")  # kinds N
        self.batch_tokens = optional_positive_integer("batch_tokens", batch_tokens)
        self.steps = optional_positive_integer("steps", steps)
        self.shard = checked_shard(shard)
        self.max_length = optional_positive_integer("max_length", max_length)
        self._rows = np.arange(self._lengths.shape[1])  # rows up to `max_length`
        if max_length is not None:
            self._rows = np.flatnonzero(self._lengths.max(axis=0) <= max_length)
        self._check_rows()
        # The batches of the most recent passes over all rows, by number.
        self._passes: dict[int, list[np.ndarray]] = {}
        self._start_epoch(0)

    def make_batch(self, rows: np.ndarray, lengths: np.ndarray) -> tuple[Any, ...]:
        raise NotImplementedError

    def count(self) -> int:
        return len(self._batches)

    def batch(self, index: int) -> tuple[Any, ...]:
        number, parts = self.shard
        rows = self._batches[index][number::parts]
        return self.make_batch(rows, self._padded_lengths[index])

    def _start_epoch(self, epoch: int) -> None:
        super()._start_epoch(epoch)
        self._batches = self._batches_of(epoch)
        rows = np.concatenate(self._batches)
        firsts = np.cumsum([0, *map(len, self._batches[:-1])])
        lengths = np.maximum.reduceat(self._lengths[:, rows], firsts, axis=1)
        lengths = self._rounded(lengths).T  # batches kinds
        if len(lengths) > 1:
            # On TensorFlow, Keras assumes that an axis on which the first two batches
            # agree never changes, and fails at the first batch that differs.
            varies = self._lengths[:, self._rows].min(axis=1) < self._longest
            lengths[1] += self.length_multiple * (varies & (lengths[0] == lengths[1]))
        self._padded_lengths = lengths

    def _rounded(self, lengths: np.ndarray) -> np.ndarray:
        """Return the lengths `(kinds, ...)` to which rows are padded."""
        multiple = self.length_multiple
        longest = self._longest[:, None]
        return np.minimum(-(-lengths // multiple) * multiple, longest)

    def _batches_of(self, epoch: int) -> list[np.ndarray]:
        """Return the row numbers of each batch of an epoch."""
        if self.steps is None:
            return self._pass(epoch)
        each = len(self._pass(0))
        start = epoch * self.steps
        passes = range(start // each, (start + self.steps - 1) // each + 1)
        self._passes = {number: self._pass(number) for number in passes}
        batches = [rows for number in passes for rows in self._passes[number]]
        return batches[start % each :][: self.steps]

    def _pass(self, number: int) -> list[np.ndarray]:
        """Return the row numbers of each batch of one pass over all rows."""
        if number in self._passes:
            return self._passes[number]
        parts, tokens = self.shard[1], self.batch_tokens
        random = np.random.default_rng([self.seed, number])
        rows = random.permutation(self._rows) if self.shuffle else self._rows
        rows = rows[: len(rows) // parts * parts]
        if not self.shuffle:
            if tokens is None:
                return cut(rows, self.batch_size)
            return in_order(self._rounded(self._lengths), rows, tokens, parts)
        if tokens is None:
            pool = self.batch_size * self.batches_in_pool
            return by_rows(self._lengths, rows, self.batch_size, pool, random)
        return by_tokens(self._rounded(self._lengths), rows, tokens, parts, random)

    def _check_rows(self) -> None:
        """Raise if a row does not fit in a batch, or a process gets no rows."""
        parts = self.shard[1]
        if len(self._rows) < parts:
            raise ValueError(
                "Each process needs a row that is no longer than `max_length`. "
                f"Received: {len(self._rows)} such rows, shard={self.shard}, "
                f"max_length={self.max_length}."
            )
        self._longest = self._lengths[:, self._rows].max(axis=1)  # kinds
        if self.batch_tokens is None and self.batch_size % parts:
            raise ValueError(
                "`batch_size` must be divisible by the number of processes. Received: "
                f"batch_size={self.batch_size}, shard={self.shard}."
            )
        needed = int(self._longest.max()) * parts
        if self.batch_tokens is not None and self.batch_tokens < needed:
            raise ValueError(
                f"`batch_tokens` must be at least {needed} to fit the longest row on "
                f"each of {parts} processes. Received: batch_tokens="
                f"{self.batch_tokens}. Use `max_length` to leave out longer rows."
            )


def checked_shard(shard: Sequence[int] | None) -> tuple[int, int]:
    """Return `(number, count)` of this process, which is `(0, 1)` for None."""
    if shard is None:
        return 0, 1
    is_pair = isinstance(shard, tuple | list) and len(shard) == 2
    if not is_pair or not 0 <= integer("shard", shard[0]) < integer("shard", shard[1]):
        raise ValueError(
            "`shard` must be the number of this process, from 0, and the number of "
            f"processes, such as `(0, 2)` and `(1, 2)`. Received: shard={shard!r}."
        )
    number, count = shard
    return number, count
