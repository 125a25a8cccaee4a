"""Batches of rows of like length, padded no further than they need.

Axes in shape comments: N rows, B batch, S steps, D features.
"""

import math

import numpy as np

from kseq.layers.validation import integer, number, positive_integer
from kseq.training.batch_dataset import BatchDataset
from kseq.training.row_kinds import checked_rows, is_sequence, kind_of, stacked
from kseq.training.weights import label_weights, stacked_weights


def batches(
    inputs,
    labels,
    batch_size=64,
    shuffle=True,
    seed=0,
    length_multiple=4,
    pad_token_id=0,
    padding=0.0,
    sample_weight=None,
    class_weight=None,
    **kwargs,
):
    """Batches for a model that reads sequences: `kseq.many_to_one`, `many_to_many`.

    Each batch is `(inputs, labels)`, or `(inputs, labels, weights)` where weights are
    given. Rows of like length share a batch, as `LengthBatches` describes; for models
    that write, see `teacher_forcing`.

    Args:
        inputs: N rows of token ids, as lists, arrays or one padded integer array
            `(N, S)`, whose padding behind the last id is cut off; or of features, as
            arrays `(S, D)` or one array `(N, S, D)`. Or what is no sequence and never
            padded: vectors, floats `(N, D)`; pictures `(N, H, W, C)`. Or a function of
            the number of an epoch, from 0, that gives them, so that each epoch may have
            others, as many.
        labels: N answers: classes, integers `(N,)`; numbers, floats `(N,)`; vectors
            `(N, D)`. Or one answer for each step: rows of classes or of vectors, as
            long as those of the inputs, filled up with 0 where the inputs are padded.
            Or a function of the number of an epoch.
        batch_size: Number of rows in a batch. The batch of those left over is kept.
        shuffle: False keeps the rows in their order, whatever their length.
        seed: Non-negative integer that the orders of all epochs follow from.
        length_multiple: What the number of steps of a batch is a multiple of, except
            that it never exceeds the longest row.
        pad_token_id: The id of padding.
        padding: The number that fills up rows of features: the `mask_value` of the
            `FeatureEmbedding` that reads them, NaN too, without which padding counts
            as data.
        sample_weight: N numbers of at least 0, how much each row counts in the loss; or
            N rows of numbers, one for each step, where there is a label for each. What
            is padded counts 0.
        class_weight: Dictionary of numbers by class, where the labels are classes: how
            much a label counts, 1 if the dictionary lacks its class. With
            `sample_weight`, the two are multiplied. (In `fit`, Keras' `class_weight`
            is for one label to a row.)
        **kwargs: `workers` (2 threads), `use_multiprocessing` and `max_queue_size` of
            `keras.utils.PyDataset`.

    Returns:
        A `LengthBatches` data set for `fit`, `evaluate` and, unshuffled, `predict`.

    Raises:
        ValueError: There are no rows, or not as many inputs as labels, or not a label
            for each step where there is one for some; rows are nothing that a model
            reads; `batch_size` or `length_multiple` is less than 1; `pad_token_id` is
            no integer, or `padding` no number; weights do not fit the labels.

    Example:

    >>> from kseq.training import batches
    >>> words = [[5, 6, 7], [8], [9, 5]]
    >>> data = batches(words, [1, 0, 1], batch_size=2, shuffle=False, length_multiple=1)
    >>> [inputs.tolist() for inputs, labels in data]
    [[[5, 6, 7], [8, 0, 0]], [[9, 5]]]
    >>> [labels.tolist() for inputs, labels in data]
    [[1, 0], [1]]
    >>> [weights.tolist() for *_, weights in batches(words, [1, 0, 1], 2, shuffle=False,
    ...     class_weight={1: 0.5})]
    [[0.5, 1.0], [0.5]]
    """
    if callable(inputs) or callable(labels):
        options = {
            "batch_size": batch_size,
            "shuffle": shuffle,
            "seed": seed,
            "length_multiple": length_multiple,
            "pad_token_id": pad_token_id,
            "padding": padding,
            "sample_weight": sample_weight,
            "class_weight": class_weight,
        }
        return EpochBatches(batches, (inputs, labels), options, **kwargs)
    pad_token_id = integer("pad_token_id", pad_token_id)
    kinds = ["ids", "features", "vector", "picture"]
    inputs = checked_rows("inputs", inputs, kinds, pad_token_id)
    kinds = ["class", "number", "vector", "ids", "features"]
    labels = checked_rows("labels", labels, kinds)
    if len(inputs) != len(labels):
        raise ValueError(
            "`inputs` and `labels` must have the same number of rows. Received: "
            f"{len(inputs)} rows of inputs, {len(labels)} of labels."
        )
    if is_sequence(labels[0]):
        labels = _cut_to_inputs(inputs, labels)
    return _Batches(
        inputs,
        labels,
        label_weights(labels, sample_weight, class_weight),
        pad_token_id if kind_of(inputs[0]) == "ids" else number("padding", padding),
        batch_size,
        shuffle,
        seed,
        length_multiple,
        **kwargs,
    )


def _cut_to_inputs(inputs, labels):
    """A label for each step of the inputs, without those of padding that was cut."""
    for index, (steps, row) in enumerate(zip(inputs, labels, strict=True)):
        if not is_sequence(steps) or len(row) < len(steps):
            raise ValueError(
                "`labels` must be one label for each step of the inputs, or one for "
                f"each row. Received: labels[{index}] with {len(row)} labels, "
                f"inputs[{index}] of shape {steps.shape}."
            )
    return [row[: len(steps)] for steps, row in zip(inputs, labels, strict=True)]


class LengthBatches(BatchDataset):
    """A data set whose batches hold rows of like length, so that little is padded.

    All rows are shuffled and cut into pools, each pool is sorted by length and cut into
    batches, and the batches are shuffled. Every row comes once an epoch, in an order
    that `seed` and the number of the epoch decide. `fit` shuffles the batches once more
    unless it is told `shuffle=False`.

    Lengths are rounded up to a multiple, so that a compiled model meets few shapes,
    but where possible not beyond the longest row; a limit on positions must leave room
    for one multiple more.

    Subclasses say what is in a batch: `make_batch(rows, lengths)` gets the numbers of
    its rows, and how many steps of each kind to pad them to.

    Args:
        lengths: Integers `(kinds, N)`: how many steps each row has of each kind (such
            as source and target). Rows are sorted by the last kind first.
        batch_size: As for `batches`, and so are the arguments after it.

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
        lengths,
        batch_size=64,
        shuffle=True,
        seed=0,
        length_multiple=4,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.batch_size = positive_integer("batch_size", batch_size)
        self.shuffle = shuffle
        if not 0 <= integer("seed", seed):
            raise ValueError(f"`seed` must be at least 0. Received: seed={seed}.")
        self.seed = seed
        self.length_multiple = positive_integer("length_multiple", length_multiple)
        self._lengths = np.asarray(lengths)  # kinds N
        self._start_epoch(0)

    def make_batch(self, rows, lengths):
        raise NotImplementedError

    def __len__(self):
        return math.ceil(self._lengths.shape[1] / self.batch_size)

    def __getitem__(self, index):
        return self.make_batch(self._batches[index], self._padded_lengths[index])

    def on_epoch_end(self):
        self._start_epoch(self._epoch + 1)

    def _start_epoch(self, epoch):
        self._epoch = epoch
        self._batches = self._batch_rows(epoch)
        multiple = self.length_multiple
        lengths = [self._lengths[:, rows].max(axis=1) for rows in self._batches]
        lengths = np.array(lengths)  # batches kinds
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
        rows = np.arange(self._lengths.shape[1])
        if not self.shuffle:
            return _cut(rows, self.batch_size)
        random = np.random.default_rng([self.seed, epoch])
        rows = random.permutation(rows)
        batches = []
        for pool in _cut(rows, self.batch_size * self.batches_in_pool):
            by_length = np.lexsort(self._lengths[:, pool])
            batches += _cut(pool[by_length], self.batch_size)
        random.shuffle(batches)
        return batches


class EpochBatches(BatchDataset):
    """Batches of rows that each epoch has anew, such as texts that are cut by chance.

    Args:
        make: `batches` or `teacher_forcing`.
        rows: Its two kinds of rows, or functions of the number of an epoch that give
            them.
        options: Its other arguments.
        **kwargs: `workers` and the other arguments of `PyDataset`.

    Example:

    >>> from kseq.training import batches
    >>> data = batches(lambda epoch: [[5 + epoch]], [1], shuffle=False)
    >>> data.on_epoch_end()
    >>> [inputs.tolist() for inputs, labels in data]
    [[[6]]]
    """

    def __init__(self, make, rows, options, **kwargs):
        super().__init__(**kwargs)
        self.make, self.rows, self.options = make, rows, options
        self._start_epoch(0)

    def __len__(self):
        return len(self._data)

    def __getitem__(self, index):
        return self._data[index]

    def on_epoch_end(self):
        before = len(self)
        self._start_epoch(self._epoch + 1)
        if len(self) != before:
            raise ValueError(
                "A function must give as many rows for each epoch. Received: "
                f"{len(self)} batches for epoch {self._epoch}, {before} before."
            )

    def _start_epoch(self, epoch):
        rows = [rows(epoch) if callable(rows) else rows for rows in self.rows]
        data = self.make(*rows, **self.options)
        data._start_epoch(epoch)
        self._data, self._epoch = data, epoch


class _Batches(LengthBatches):
    def __init__(self, inputs, labels, weights, padding, *args, **kwargs):
        self.inputs = inputs
        self.labels = labels
        self.weights = weights
        self.padding = padding
        super().__init__([steps(inputs)], *args, **kwargs)

    def make_batch(self, rows, lengths):
        [length] = lengths
        inputs = stacked([self.inputs[row] for row in rows], length, self.padding)
        labels = stacked([self.labels[row] for row in rows], length, 0)
        if self.weights is None:
            return inputs, labels  # B S ..., B ... or B S ...
        weights = stacked_weights([self.weights[row] for row in rows], length)
        return inputs, labels, weights  # B or B S


def steps(rows):
    """How many steps each row has when it is padded: one at least."""
    if not is_sequence(rows[0]):
        return [1] * len(rows)
    return [max(len(row), 1) for row in rows]


def _cut(rows, size):
    return [rows[start : start + size] for start in range(0, len(rows), size)]
