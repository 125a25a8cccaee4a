"""Batches for training a decoder on pairs of sequences.

Axes in shape comments: N rows, B batch, S source steps, T target steps, D features.
"""

import numpy as np

from kseq.layers.validation import integer, number
from kseq.training.batches import EpochBatches, steps_of
from kseq.training.length_batches import LengthBatches
from kseq.training.named_rows import by_name, each_input, names_of
from kseq.training.row_kinds import checked_rows, kind_of, lengths_of, stacked
from kseq.training.weights import label_weights, stacked_weights


def teacher_forcing(
    source,
    target,
    batch_size=64,
    shuffle=True,
    seed=0,
    length_multiple=4,
    pad_token_id=0,
    source_padding=0.0,
    sample_weight=None,
    class_weight=None,
    batch_tokens=None,
    steps=None,
    shard=None,
    max_length=None,
    covariates=None,
    **kwargs,
):
    """Batches in which a decoder reads the true tokens and predicts the next ones.

    Each batch is `({"source": source, "target": target[:, :-1]}, target[:, 1:])`: at
    every step the model sees the target up to there, start token first, and its label
    is the token that follows, end token last.

    A row ends at its last id that is not `pad_token_id`; padding behind it is cut off
    and put back only as far as its batch needs. The model tells padding by that id
    alone, as do `kseq.training`'s loss and metrics, so weights come with a batch,
    third, only where some are given.

    A target of numbers has no start: `({"source": source, "target": before}, target)`,
    where `before` is the target one step earlier, and NaN, which is what is not known,
    at the first step. Short targets are filled up with NaN too. `ForecastLoss` and the
    metrics of numbers leave NaN out.

    Rows of like length share a batch, as `LengthBatches` describes, and the lengths
    that the model sees are rounded up to a multiple, so that a compiled model meets few
    shapes.

    Args:
        source: Rows of token ids, as lists, arrays or one padded integer array
            `(N, S)`; or of features, as arrays `(S, D)` or one array `(N, S, D)`.
            Features are padded with `source_padding`. Or what is no sequence and never
            padded: classes, integers `(N,)`; vectors, floats `(N, D)`; pictures
            `(N, H, W, C)`. Or None, for a model that writes from nothing: its batches
            are `({"target": target[:, :-1]}, target[:, 1:])`. Or a function of the
            number of an epoch, from 0, that gives any of these, so that each epoch may
            have others, as many: texts cut by chance (`Vocabulary.sampler`), noise. Or
            a dictionary of any of these by name, for a model of several sources.
        target: Rows of token ids that hold their start and end tokens, as lists,
            arrays or one padded integer array `(N, T)`; or of numbers, as arrays
            `(T, F)` or one array `(N, T, F)`, NaN where one is missing; or a function
            of the number of an epoch.
        batch_size: As for `batches`.
        shuffle: As for `batches`.
        seed: As for `batches`.
        length_multiple: What the numbers of steps that the model sees, of the source
            and of the target, are multiples of.
        pad_token_id: The id of padding.
        source_padding: The number that fills up rows of features: the `mask_value` of
            the `FeatureEmbedding` that reads them, NaN too, without which padding
            counts as data.
        sample_weight: N numbers of at least 0, how much each row counts in the loss; or
            N rows of numbers, one for each token of the target. That of the first,
            which is not predicted, counts for nothing.
        class_weight: Dictionary of numbers by token id: how much a token counts where
            it is to be predicted, 1 if the dictionary lacks it. With `sample_weight`,
            the two are multiplied.
        batch_tokens: As for `batches`; what counts is the longer of source and target.
        steps: As for `batches`.
        shard: As for `batches`.
        max_length: As for `batches`; what counts is the longer of source and target,
            of which one token is not predicted.
        covariates: Of a target of numbers, what is known of its steps before: rows of
            numbers as long, `(T, C)`, which go under "covariates" into the inputs.
        **kwargs: As for `batches`.

    Returns:
        A `TeacherForcing` data set for `fit` and `evaluate`, or one of those for each
        epoch.

    Raises:
        ValueError: There are no rows, or not as many in source and target; rows are
            neither ids nor features; a target has fewer than 2 tokens; a number is
            less than 1; `pad_token_id` is no integer, or `source_padding` no number;
            weights do not fit the target; `batch_tokens` or `shard` do not fit the
            rows, as for `batches`.

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
    >>> [(_, _, weights)] = teacher_forcing(source, target, shuffle=False,
    ...     length_multiple=1, sample_weight=[2, 1], class_weight={3: 0.5})
    >>> weights.tolist()
    [[2.0, 2.0, 0.0], [0.5, 0.5, 1.0]]

    References:
        - [Williams and Zipser, 1989](https://doi.org/10.1162/neco.1989.1.2.270)
    """
    if callable(source) or callable(target):
        options = {
            "batch_size": batch_size,
            "shuffle": shuffle,
            "seed": seed,
            "length_multiple": length_multiple,
            "pad_token_id": pad_token_id,
            "source_padding": source_padding,
            "sample_weight": sample_weight,
            "class_weight": class_weight,
            "batch_tokens": batch_tokens,
            "steps": steps,
            "shard": shard,
            "max_length": max_length,
            "covariates": covariates,
        }
        return EpochBatches(teacher_forcing, (source, target), options, **kwargs)
    if source is not None:
        source = checked_source(source, pad_token_id)
    target = checked_rows("target", target, ["ids", "features"], pad_token_id)
    check_counts(source, target)
    is_numbers = kind_of(target[0]) == "features"
    if covariates is not None:
        covariates = checked_covariates(covariates, target, is_numbers)
    if is_numbers:
        check_numbers(target)
        weights = label_weights(target, sample_weight, class_weight)
        target = [np.pad(row, START, constant_values=np.nan) for row in target]
    else:
        check_targets(target, pad_token_id)
        weights = target_weights(target, sample_weight, class_weight, pad_token_id)
    return TeacherForcing(
        source,
        target,
        batch_size,
        shuffle,
        seed,
        length_multiple,
        batch_tokens,
        steps,
        shard,
        max_length,
        pad_token_id=pad_token_id,
        source_padding=source_padding,
        weights=weights,
        covariates=covariates,
        **kwargs,
    )


START = ((1, 0), (0, 0))  # of numbers a step of which nothing is known


def checked_source(source, pad_token_id):
    """The rows of a source, of several inputs by name."""
    kinds = ["ids", "features", "class", "vector", "picture"]
    if isinstance(source, dict) and not source:
        raise ValueError(
            "`source` must have rows, or a dictionary of rows by name. Received: {}."
        )
    names = names_of("source", source)
    return by_name(
        source,
        [
            checked_rows(name, rows, kinds, pad_token_id)
            for name, rows in zip(names, each_input(source), strict=True)
        ],
    )


def check_counts(source, target):
    """Raise unless there is a target for each row of each source."""
    if source is None:
        return
    names = names_of("source", source)
    for name, rows in zip(names, each_input(source), strict=True):
        if len(rows) != len(target):
            raise ValueError(
                f"`{name}` and `target` must have the same number of rows. Received: "
                f"{len(rows)} rows in {name}, {len(target)} in target."
            )


def check_numbers(target):
    """Raises if a target of numbers has nothing to predict, or what is no number."""
    for index, row in enumerate(target):
        if not len(row) or np.isinf(row).any():
            raise ValueError(
                "A target of numbers must hold a step at least, of finite numbers or "
                f"NaN, which is what is not known. Received: target[{index}] of shape "
                f"{row.shape}, the greatest of it {row.max(initial=0)}. Leave such "
                "rows out, or put NaN where nothing was measured."
            )


def checked_covariates(covariates, target, is_numbers):
    """Rows of numbers, as long as those of a target of numbers."""
    if not is_numbers:
        raise ValueError(
            "`covariates` go with a target of numbers, shape (T, F). Received: "
            "covariates with a target of token ids. Leave them out."
        )
    covariates = checked_rows("covariates", covariates, ["features"])
    lengths = [len(row) for row in covariates]
    if lengths != [len(row) for row in target]:
        raise ValueError(
            "`covariates` must have a step for each step of each target. Received: "
            f"covariates of {lengths[:3]} steps, targets of "
            f"{[len(row) for row in target[:3]]}, the first of {len(lengths)} and "
            f"{len(target)} rows. Cut both from the same stretches."
        )
    return covariates


def check_targets(target, pad_token_id):
    """Raises if a target has nothing to predict, or padding among its tokens."""
    short = np.flatnonzero(target.lengths < 2)
    if short.size:
        raise ValueError(
            "A target must hold 2 tokens at least, one to start from and one to "
            f"predict. Received: target[{short[0]}]={target[short[0]].tolist()}. Put "
            "the start and end tokens around every target."
        )
    padded = target.first_with(pad_token_id)
    if padded is not None:
        raise ValueError(
            f"Padding, {pad_token_id}, must stand behind the tokens of a target, "
            f"not among or before them. Received: target[{padded}]="
            f"{target[padded].tolist()}. A vocabulary that gives this id to a word "
            "needs another `pad_token_id`."
        )


def target_weights(target, sample_weight, class_weight, pad_token_id):
    """The weight of each token that is to be predicted, arrays `(T - 1,)`, or None."""
    if class_weight is not None and pad_token_id in class_weight:
        raise ValueError(
            "`class_weight` must be of tokens that are predicted, and padding is not. "
            f"Received: class_weight={class_weight!r}, pad_token_id={pad_token_id}. "
            "Leave the padding out."
        )
    weights = label_weights(target, sample_weight, class_weight)
    return None if weights is None else [row[1:] for row in weights]


class TeacherForcing(LengthBatches):
    """The data set that `teacher_forcing` makes and describes.

    Args:
        source: List of arrays, as `teacher_forcing` describes them, no padding; or
            None.
        target: List of as many integer arrays `(T,)`, no padding; or of arrays of
            numbers `(T, F)`, a step of NaN in front.
        *args: `batch_size` and the other arguments of `LengthBatches`.
        pad_token_id: As for `teacher_forcing`.
        source_padding: As for `teacher_forcing`.
        weights: List of as many arrays `(T - 1,)`, how much each token counts where it
            is to be predicted; or None. Of numbers `(T,)`.
        covariates: List of as many arrays `(T, C)`, of a target of numbers; or None.
        **kwargs: The arguments of `LengthBatches`, where they have names.
    """

    def __init__(
        self,
        source,
        target,
        *args,
        pad_token_id=0,
        source_padding=0.0,
        weights=None,
        covariates=None,
        **kwargs,
    ):
        self.source = source
        self.target = target
        self.weights = weights
        self.covariates = covariates
        self.pad_token_id = integer("pad_token_id", pad_token_id)
        self.source_padding = number("source_padding", source_padding)
        lengths = [] if source is None else map(steps_of, each_input(source))
        # The model sees all of a source, and all of a target but one token.
        lengths = [*lengths, lengths_of(target) - 1]
        if source is None:
            lengths = [np.ones(len(target), "int32"), *lengths]
        super().__init__(lengths, *args, **kwargs)

    def make_batch(self, rows, lengths):
        *source_lengths, target_length = lengths
        is_ids = kind_of(self.target[0]) == "ids"
        padding = self.pad_token_id if is_ids else np.nan
        target = stacked(self.target, rows, target_length + 1, padding)
        inputs = {"target": target[:, :-1]}  # of B T+1
        if self.covariates is not None:
            inputs["covariates"] = stacked(self.covariates, rows, target_length, 0.0)
        if self.source is not None:
            pairs = zip(each_input(self.source), source_lengths, strict=True)
            arrays = [self._stacked(source, rows, length) for source, length in pairs]
            inputs = {"source": by_name(self.source, arrays), **inputs}
        if self.weights is None:
            return inputs, target[:, 1:]
        weights = stacked_weights(self.weights, rows, target_length)
        return inputs, target[:, 1:], weights

    def _stacked(self, source, rows, length):
        is_ids = kind_of(source[0]) == "ids"
        padding = self.pad_token_id if is_ids else self.source_padding
        return stacked(source, rows, length, padding)
