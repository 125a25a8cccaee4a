"""Batches of rows of like length, padded no further than they need.

Axes in shape comments: N rows, B batch, S steps, D features.
"""

import numpy as np

from kseq.layers.validation import integer, number
from kseq.training.batch_dataset import BatchDataset
from kseq.training.flat_rows import FlatRows
from kseq.training.length_batches import LengthBatches
from kseq.training.row_kinds import (
    checked_rows,
    is_sequence,
    kind_of,
    lengths_of,
    stacked,
)
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
    batch_tokens=None,
    steps=None,
    shard=None,
    max_length=None,
    aligned=True,
    **kwargs,
):
    """Batches for a model that reads sequences: `kseq.many_to_one`, `many_to_many`.

    Each batch is `(inputs, labels)`, or `(inputs, labels, weights)` where weights are
    given. Rows of like length share a batch, as `LengthBatches` describes; for models
    that write, see `teacher_forcing`.

    Args:
        inputs: N rows of token ids, as lists, arrays or one padded integer array
            `(N, S)`, whose padding behind the last id is cut off; or what a
            `kseq.text.WordCharacterVocabulary` encodes; or of features, as
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
        batch_tokens: Number of tokens, padding counted, that a batch has room for, in
            place of `batch_size`: many short rows, or few long ones. None for batches
            of so many rows.
        steps: Number of batches in an epoch, where it shall not be all of the rows: the
            next epoch goes on with those that are left.
        shard: `(number, count)`: which of how many processes this is, from 0, where
            several train one model. Each gets its part of every batch; `batch_size`
            and `batch_tokens` are of all parts together. The parts have as many rows:
            of those that are left over, `count - 1` at most, an epoch does without.
        max_length: Longer rows are left out. None leaves none out.
        aligned: Whether rows of labels have one for each step of the inputs. False for
            rows of their own lengths, ids that are filled up with 0, from which a model
            with `head="ctc"` learns; a weight is then of a whole row.
        **kwargs: `workers` (2 threads), `use_multiprocessing` and `max_queue_size` of
            `keras.utils.PyDataset`.

    Returns:
        A `LengthBatches` data set for `fit`, `evaluate` and, unshuffled, `predict`.

    Raises:
        ValueError: There are no rows, or not as many inputs as labels, or not a label
            for each step where there is one for some; rows are nothing that a model
            reads; a number is less than 1; `pad_token_id` is no integer, or `padding`
            no number; weights do not fit the labels; a row has more than
            `batch_tokens`; `batch_size` does not divide by the number of processes.

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
            "batch_tokens": batch_tokens,
            "steps": steps,
            "shard": shard,
            "max_length": max_length,
            "aligned": aligned,
        }
        return EpochBatches(batches, (inputs, labels), options, **kwargs)
    pad_token_id = integer("pad_token_id", pad_token_id)
    kinds = ["ids", "features", "vector", "picture"]
    inputs = checked_rows("inputs", inputs, kinds, pad_token_id)
    kinds = ["class", "number", "vector", "ids", "features"] if aligned else ["ids"]
    labels = checked_rows("labels", labels, kinds, None if aligned else 0)
    if len(inputs) != len(labels):
        raise ValueError(
            "`inputs` and `labels` must have the same number of rows. Received: "
            f"{len(inputs)} rows of inputs, {len(labels)} of labels."
        )
    if aligned and is_sequence(labels[0]):
        labels = _cut_to_inputs(inputs, labels)
    if not aligned and class_weight is not None:
        raise ValueError(
            "`class_weight` needs a label for each row, or for each step. Received: "
            f"class_weight={class_weight!r} with aligned=False. Give a `sample_weight`."
        )
    weighed = labels if aligned else np.zeros(len(labels), "int32")
    return _Batches(
        inputs,
        labels,
        aligned,
        label_weights(weighed, sample_weight, class_weight),
        padding_of(inputs, pad_token_id, padding),
        batch_size,
        shuffle,
        seed,
        length_multiple,
        batch_tokens,
        steps,
        shard,
        max_length,
        **kwargs,
    )


def padding_of(inputs, pad_token_id, padding):
    """What fills up rows: an id, also of words with their characters, or a number."""
    is_ids = isinstance(inputs, FlatRows) or kind_of(inputs[0]) == "ids"
    return pad_token_id if is_ids else number("padding", padding)


def _cut_to_inputs(inputs, labels):
    """A label for each step of the inputs, without those of padding that was cut."""
    lengths, are_steps = lengths_of(inputs), is_sequence(inputs[0])
    short = lengths_of(labels) < lengths if are_steps else [True]
    if np.any(short):
        index = int(np.argmax(short))
        raise ValueError(
            "`labels` must be one label for each step of the inputs, or one for "
            f"each row. Received: labels[{index}] with {len(labels[index])} labels, "
            f"inputs[{index}] of shape {inputs[index].shape}. Shorter rows, from which "
            "CTC learns, come with `aligned=False`."
        )
    if isinstance(labels, FlatRows):
        return labels.cut(lengths)
    return [row[:length] for row, length in zip(labels, lengths, strict=True)]


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

    def count(self):
        return len(self._data)

    def batch(self, index):
        return self._data[index]

    def on_epoch_end(self):
        before = self.count()
        super().on_epoch_end()
        if self.count() != before:
            raise ValueError(
                "A function must give as many rows for each epoch. Received: "
                f"{self.count()} batches for epoch {self._epoch}, {before} before."
            )

    def _start_epoch(self, epoch):
        super()._start_epoch(epoch)
        rows = [rows(epoch) if callable(rows) else rows for rows in self.rows]
        self._data = self.make(*rows, **self.options)
        self._data._start_epoch(epoch)


class _Batches(LengthBatches):
    def __init__(self, inputs, labels, aligned, weights, padding, *args, **kwargs):
        self.inputs = inputs
        self.labels = labels
        self.weights = weights
        self.padding = padding
        own = [] if aligned else [lengths_of(labels)]
        super().__init__([*own, steps_of(inputs)], *args, **kwargs)

    def make_batch(self, rows, lengths):
        length = lengths[-1]
        inputs = stacked(self.inputs, rows, length, self.padding)
        labels = stacked(self.labels, rows, lengths[0], 0)
        if self.weights is None:
            return inputs, labels  # B S ..., B ... or B S ...
        return inputs, labels, stacked_weights(self.weights, rows, length)  # B or B S


def steps_of(rows):
    """How many steps each row has when it is padded: one at least."""
    return np.maximum(lengths_of(rows), 1)
