"""Batches of rows of similar length, with as little padding as possible.

Axes in shape comments: N rows, B batch, S steps, D features.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kseq.layers.validation import integer, number
from kseq.training.batch_dataset import BatchDataset
from kseq.training.flat_rows import FlatRows
from kseq.training.length_batches import LengthBatches
from kseq.training.row_kinds import (
    Rows,
    checked_rows,
    is_sequence,
    kind_of,
    lengths_of,
    stacked,
)
from kseq.training.weights import label_weights, stacked_weights


def batches(
    inputs: Rows | Callable[[int], Rows],
    labels: Rows | Callable[[int], Rows],
    batch_size: int = 64,
    shuffle: bool = True,
    seed: int = 0,
    length_multiple: int = 4,
    pad_token_id: int = 0,
    padding: float = 0.0,
    sample_weight: Rows | None = None,
    class_weight: Mapping[int, float] | None = None,
    batch_tokens: int | None = None,
    steps: int | None = None,
    shard: Sequence[int] | None = None,
    max_length: int | None = None,
    aligned: bool = True,
    **kwargs: Any,
) -> BatchDataset:
    """Make batches for models such as `kseq.many_to_one` and `many_to_many`.

    Each batch is `(inputs, labels)`, or `(inputs, labels, weights)` if weights are
    given. Rows of similar length share a batch; see `LengthBatches`. For models that
    generate, use `teacher_forcing`.

    Args:
        inputs: N rows of one kind, or a function that takes the number of an epoch,
            from 0, and returns as many rows for each epoch. The kinds are:

            - token ids: lists, arrays, or one padded integer array `(N, S)`, whose
              padding at the end of rows is removed; or the output of a
              `kseq.text.WordCharacterVocabulary`
            - features: arrays `(S, D)`, or one array `(N, S, D)`
            - inputs that are not sequences and never padded: vectors, floats `(N, D)`,
              or pictures `(N, H, W, C)`
        labels: One label per row: classes, integers `(N,)`; numbers, floats `(N,)`; or
            vectors `(N, D)`. Or one label per step: rows of classes or vectors, as long
            as the inputs, padded with 0 where the inputs are padded. Or a function of
            the number of an epoch.
        batch_size: Number of rows in a batch. A smaller last batch is kept.
        shuffle: Whether to shuffle. False keeps the order of the rows and does not
            group them by length.
        seed: Non-negative integer. Determines the order of every epoch.
        length_multiple: The number of steps of a batch is rounded up to a multiple of
            this, but never beyond the longest row.
        pad_token_id: The id of padding.
        padding: The number that pads features. Pass the `mask_value` of the
            `FeatureEmbedding` in the model, which may be NaN; otherwise padding counts
            as data.
        sample_weight: Non-negative weights in the loss: one per row, or one per step
            where there is one label per step. Padding has weight 0.
        class_weight: Dictionary from class to weight, for labels that are classes.
            Classes that are not in it have weight 1. It is multiplied with
            `sample_weight`. (Keras' `class_weight` of `fit` works only with one label
            per row.)
        batch_tokens: Maximum number of tokens in a batch, padding included, instead of
            `batch_size`: many short rows or few long ones. None for batches of
            `batch_size` rows.
        steps: Number of batches in an epoch. The next epoch continues with the
            remaining rows. None for all rows.
        shard: `(number, count)`, if several processes train one model: the number of
            this process, from 0, and the number of processes. Each process gets its
            share of every batch; `batch_size` and `batch_tokens` are for all processes
            together. All processes get the same number of rows, so an epoch may drop up
            to `count - 1` rows.
        max_length: Longer rows are left out. None keeps all rows.
        aligned: Whether rows of labels have one label per step of the inputs. False if
            rows of labels have lengths of their own, as for a model with `head="ctc"`:
            token ids, padded with 0. A weight is then for a whole row.
        **kwargs: `workers` (2 threads), `use_multiprocessing` and `max_queue_size` of
            `keras.utils.PyDataset`.

    Returns:
        A `LengthBatches` data set for `fit`, `evaluate` and, without shuffling,
        `predict`.

    Raises:
        ValueError: There are no rows; the numbers of inputs and labels differ; some
            steps have no label; rows are of an unknown kind; a number is less than 1;
            `pad_token_id` is not an integer, or `padding` not a number; weights do not
            fit the labels; a row has more than `batch_tokens`; `batch_size` is not
            divisible by the number of processes.

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
            "`class_weight` needs one label per row or one per step. Received: "
            f"class_weight={class_weight!r} with aligned=False. Use `sample_weight`."
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


def padding_of(
    inputs: Sequence[np.ndarray], pad_token_id: int, padding: float
) -> float:
    """Return the value that pads the inputs: an id for token ids, or a number."""
    is_ids = isinstance(inputs, FlatRows) or kind_of(inputs[0]) == "ids"
    return pad_token_id if is_ids else number("padding", padding)


def _cut_to_inputs(
    inputs: Sequence[np.ndarray], labels: Sequence[np.ndarray]
) -> Sequence[np.ndarray]:
    """Return one label per step of the inputs, without those of removed padding."""
    lengths, are_steps = lengths_of(inputs), is_sequence(inputs[0])
    short = lengths_of(labels) < lengths if are_steps else [True]
    if np.any(short):
        index = int(np.argmax(short))
        raise ValueError(
            "`labels` must have one label per step of the inputs, or one per row. "
            f"Received: labels[{index}] with {len(labels[index])} labels, "
            f"inputs[{index}] of shape {inputs[index].shape}. Each token needs a "
            "label: is a label missing, or does a word contain a space? Only rows of "
            "labels for CTC may be shorter: pass `aligned=False`."
        )
    if isinstance(labels, FlatRows):
        return labels.cut(lengths)
    return [row[:length] for row, length in zip(labels, lengths, strict=True)]


class EpochBatches(BatchDataset):
    """Batches whose rows change each epoch, such as texts split at random.

    Args:
        make: `batches` or `teacher_forcing`.
        rows: The two arguments with rows. Each may be a function of the number of an
            epoch that returns rows.
        options: The other arguments of `make`.
        **kwargs: `workers` and the other arguments of `PyDataset`.

    Example:

    >>> from kseq.training import batches
    >>> data = batches(lambda epoch: [[5 + epoch]], [1], shuffle=False)
    >>> data.on_epoch_end()
    >>> [inputs.tolist() for inputs, labels in data]
    [[[6]]]
    """

    def __init__(
        self,
        make: Callable[..., BatchDataset],
        rows: tuple[Any, Any],
        options: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.make, self.rows, self.options = make, rows, options
        self._start_epoch(0)

    def count(self) -> int:
        return len(self._data)

    def batch(self, index: int) -> tuple[Any, ...]:
        return self._data[index]

    def on_epoch_end(self) -> None:
        before = self.count()
        super().on_epoch_end()
        if self.count() != before:
            raise ValueError(
                "A function of the epoch must return the same number of rows for each "
                f"epoch. Received: {self.count()} batches for epoch {self._epoch}, "
                f"{before} before."
            )

    def _start_epoch(self, epoch: int) -> None:
        super()._start_epoch(epoch)
        rows = [rows(epoch) if callable(rows) else rows for rows in self.rows]
        self._data = self.make(*rows, **self.options)
        self._data._start_epoch(epoch)


class _Batches(LengthBatches):
    def __init__(
        self,
        inputs: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        aligned: bool,
        weights: list[np.ndarray] | None,
        padding: float,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self.inputs = inputs
        self.labels = labels
        self.weights = weights
        self.padding = padding
        own = [] if aligned else [lengths_of(labels)]
        super().__init__([*own, steps_of(inputs)], *args, **kwargs)

    def make_batch(self, rows: np.ndarray, lengths: np.ndarray) -> tuple[Any, ...]:
        length = lengths[-1]
        inputs = stacked(self.inputs, rows, length, self.padding)
        labels = stacked(self.labels, rows, lengths[0], 0)
        if self.weights is None:
            return inputs, labels  # B S ..., B ... or B S ...
        return inputs, labels, stacked_weights(self.weights, rows, length)  # B or B S


def steps_of(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Return the number of steps of each row after padding, which is at least 1."""
    return np.maximum(lengths_of(rows), 1)
