"""Batches for training a decoder on pairs of sequences.

Axes in shape comments: N rows, B batch, S source steps, T target steps, D features.
"""

import math

import keras
import numpy as np

from kseq.layers.arguments import integer, number, positive_integer


def teacher_forcing(
    source,
    target,
    batch_size=64,
    shuffle=True,
    seed=0,
    length_multiple=4,
    pad_token_id=0,
    source_padding=0.0,
    **kwargs,
):
    """Batches in which a decoder reads the true tokens and predicts the next ones.

    Each batch is `({"source": source, "target": target[:, :-1]}, target[:, 1:])`: at
    every step the model sees the target up to there, start token first, and its label
    is the token that follows, end token last.

    A row ends at its last id that is not `pad_token_id`; padding behind it is cut off
    and put back only as far as its batch needs. The model tells padding by that id
    alone, as do `kseq.training`'s loss and metrics, so no weights come with a batch.

    Rows of like length share a batch: all rows are shuffled and cut into pools, each
    pool is sorted by length and cut into batches, and the batches are shuffled. Every
    row comes once an epoch, in an order that `seed` and the number of the epoch
    decide. `fit` shuffles the batches once more unless it is told `shuffle=False`.

    Lengths are rounded up to a multiple, so that a compiled model meets few shapes,
    but where possible not beyond the longest row; a limit on positions must leave
    room for one multiple more.

    Args:
        source: Rows of token ids, as lists, arrays or one padded integer array
            `(N, S)`; or of features, as arrays `(S, D)` or one array `(N, S, D)`.
            Features are padded with `source_padding`. Or what is no sequence and never
            padded: classes, integers `(N,)`; vectors, floats `(N, D)`; pictures
            `(N, H, W, C)`. Or None, for a model that writes from nothing: its batches
            are `({"target": target[:, :-1]}, target[:, 1:])`.
        target: Rows of token ids that hold their start and end tokens, as lists,
            arrays or one padded integer array `(N, T)`.
        batch_size: Number of rows in a batch. The batch of those left over is kept.
        shuffle: False keeps the rows in their order, whatever their length.
        seed: Non-negative integer that the orders of all epochs follow from.
        length_multiple: What the numbers of steps that the model sees, of the source
            and of the target, are multiples of.
        pad_token_id: The id of padding.
        source_padding: The number that fills up rows of features: the `mask_value` of
            the `FeatureEmbedding` that reads them, NaN too, without which padding
            counts as data.
        **kwargs: `workers`, `use_multiprocessing` and `max_queue_size` of
            `keras.utils.PyDataset`.

    Returns:
        A `TeacherForcing` data set for `fit` and `evaluate`.

    Raises:
        ValueError: There are no rows, or not as many in source and target; rows are
            neither ids nor features; a target has fewer than 2 tokens; `batch_size`
            or `length_multiple` is less than 1; `pad_token_id` is no integer, or
            `source_padding` no number.

    Example:

    >>> from kseq.training import teacher_forcing
    >>> source = [[5, 6, 7], [8]]
    >>> target = [[1, 4, 2], [1, 3, 3, 2]]  # start 1, end 2
    >>> batches = teacher_forcing(source, target, shuffle=False, length_multiple=1)
    >>> inputs, labels = batches[0]
    >>> inputs["source"].tolist()
    [[5, 6, 7], [8, 0, 0]]
    >>> inputs["target"].tolist()
    [[1, 4, 2], [1, 3, 3]]
    >>> labels.tolist()
    [[4, 2, 0], [3, 3, 2]]

    References:
        - [Williams and Zipser, 1989](https://doi.org/10.1162/neco.1989.1.2.270)
    """
    if source is not None:
        source = _rows("source", source, pad_token_id)
    target = _rows("target", target, pad_token_id)
    if source is not None and len(source) != len(target):
        raise ValueError(
            "`source` and `target` must have the same number of rows. Received: "
            f"{len(source)} rows in source, {len(target)} in target."
        )
    if _kind(target[0]) != "ids":
        raise ValueError(
            "`target` must be rows of integer token ids. Received: rows of "
            f"{target[0].ndim} axes and dtype={target[0].dtype}."
        )
    for index, row in enumerate(target):
        if len(row) < 2:
            raise ValueError(
                "A target must hold 2 tokens at least, one to start from and one to "
                f"predict. Received: target[{index}]={row.tolist()}. Put the start "
                "and end tokens around every target."
            )
    return TeacherForcing(
        source,
        target,
        batch_size,
        shuffle,
        seed,
        length_multiple,
        pad_token_id,
        source_padding,
        **kwargs,
    )


class TeacherForcing(keras.utils.PyDataset):
    """The data set that `teacher_forcing` makes and describes.

    Args:
        source: List of arrays, as `teacher_forcing` describes them, no padding; or
            None.
        target: List of as many integer arrays `(T,)`, no padding.
        batch_size: As for `teacher_forcing`, and so are the arguments after it.
    """

    batches_in_pool = 100

    def __init__(
        self,
        source,
        target,
        batch_size=64,
        shuffle=True,
        seed=0,
        length_multiple=4,
        pad_token_id=0,
        source_padding=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.source = source
        self.target = target
        self.batch_size = positive_integer("batch_size", batch_size)
        self.shuffle = shuffle
        self.seed = seed
        self.length_multiple = positive_integer("length_multiple", length_multiple)
        self.pad_token_id = integer("pad_token_id", pad_token_id)
        self.source_padding = number("source_padding", source_padding)
        # The model sees all of a source, and all of a target but one token.
        target_lengths = [len(row) - 1 for row in target]
        source_lengths = [1] * len(target)
        if source is not None and _is_sequence(source[0]):
            source_lengths = [max(len(row), 1) for row in source]
        self._lengths = np.array([source_lengths, target_lengths])  # 2 N
        self._start_epoch(0)

    def __len__(self):
        return math.ceil(len(self.target) / self.batch_size)

    def __getitem__(self, index):
        rows = self._batches[index]
        source_length, target_length = self._padded_lengths[index]
        target = self._pad([self.target[row] for row in rows], target_length + 1)
        inputs = {"target": target[:, :-1]}  # B T
        if self.source is not None:
            source = [self.source[row] for row in rows]
            inputs = {"source": self._pad(source, source_length), **inputs}  # B S
        return inputs, target[:, 1:]

    def on_epoch_end(self):
        self._start_epoch(self._epoch + 1)

    def _start_epoch(self, epoch):
        self._epoch = epoch
        self._batches = self._batch_rows(epoch)
        multiple = self.length_multiple
        lengths = [self._lengths[:, rows].max(axis=1) for rows in self._batches]
        lengths = np.array(lengths)  # batches 2
        longest = self._lengths.max(axis=1)
        lengths = np.minimum(-(-lengths // multiple) * multiple, longest)
        if len(lengths) > 1:
            # On TensorFlow, Keras takes an axis on which the first two batches agree
            # for one that never changes, and stops at the first batch that differs.
            varies = self._lengths.min(axis=1) < longest
            lengths[1] += multiple * (varies & (lengths[0] == lengths[1]))
        self._padded_lengths = lengths

    def _batch_rows(self, epoch):
        """Lists of row numbers, one for each batch."""
        rows = np.arange(len(self.target))
        if not self.shuffle:
            return _cut(rows, self.batch_size)
        random = np.random.default_rng([self.seed, epoch])
        rows = random.permutation(rows)
        batches = []
        for pool in _cut(rows, self.batch_size * self.batches_in_pool):
            by_length = np.lexsort(self._lengths[:, pool])  # by target, then source
            batches += _cut(pool[by_length], self.batch_size)
        random.shuffle(batches)
        return batches

    def _pad(self, rows, length):
        if not _is_sequence(rows[0]):
            return np.stack(rows)
        features = rows[0].shape[1:]
        padding = self.source_padding if features else self.pad_token_id
        padded = np.full((len(rows), length, *features), padding, rows[0].dtype)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = row
        return padded


def _cut(rows, size):
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _rows(name, data, pad_token_id):
    """Ids as int32 arrays without padding behind them, other numbers as float32."""
    has_rows = hasattr(data, "__len__") and getattr(data, "ndim", 1)
    if not has_rows or not len(data):
        raise ValueError(
            f"`{name}` must have at least one row. Received: {name}={data!r}."
        )
    rows = [np.asarray(row) for row in data]
    kind = _kind(rows[0])
    fixed = 1 if _is_sequence(rows[0]) else 0
    for index, row in enumerate(rows):
        is_like_first = row.shape[fixed:] == rows[0].shape[fixed:]
        if kind is None or _kind(row) != kind or not is_like_first:
            raise ValueError(
                f"`{name}` must be rows of integer token ids, shape (steps,), or of "
                f"features, shape (steps, D), all of the same kind. Received: "
                f"{name}[{index}] of shape {row.shape} and dtype={row.dtype}."
            )
    if kind == "ids":
        return [_trim(row.astype("int32"), pad_token_id) for row in rows]
    return [row.astype("int32" if kind == "class" else "float32") for row in rows]


def _kind(row):
    """What a row is, or None if it is nothing that a model reads."""
    is_integer = np.issubdtype(row.dtype, np.integer) or not row.size
    if row.ndim < 2 and is_integer:
        return ("class", "ids")[row.ndim]
    return {1: "vector", 2: "features", 3: "picture"}.get(row.ndim)


def _is_sequence(row):
    """Whether rows like this one may have different lengths."""
    return _kind(row) in ("ids", "features")


def _trim(row, pad_token_id):
    real = np.flatnonzero(row != pad_token_id)
    return row[: real[-1] + 1] if real.size else row[:0]
