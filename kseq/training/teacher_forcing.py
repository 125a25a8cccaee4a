"""Batches for training a decoder on pairs of sequences.

Axes in shape comments: N rows, B batch, S source steps, T target steps, D features.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kseq.layers.validation import integer, number
from kseq.training.batch_dataset import BatchDataset
from kseq.training.batches import EpochBatches, steps_of
from kseq.training.flat_rows import FlatRows
from kseq.training.length_batches import LengthBatches
from kseq.training.named_rows import by_name, each_input, names_of
from kseq.training.row_kinds import Rows, checked_rows, kind_of, lengths_of, stacked
from kseq.training.weights import label_weights, stacked_weights


def teacher_forcing(
    source: Rows | dict[str, Any] | Callable[[int], Any] | None,
    target: Rows | Callable[[int], Rows],
    batch_size: int = 64,
    shuffle: bool = True,
    seed: int = 0,
    length_multiple: int = 4,
    pad_token_id: int = 0,
    source_padding: float = 0.0,
    sample_weight: Rows | None = None,
    class_weight: Mapping[int, float] | None = None,
    batch_tokens: int | None = None,
    steps: int | None = None,
    shard: Sequence[int] | None = None,
    max_length: int | None = None,
    covariates: Rows | None = None,
    **kwargs: Any,
) -> BatchDataset:
    """Make batches for teacher forcing: true tokens in, next tokens as labels.

    Each batch is `({"source": source, "target": target[:, :-1]}, target[:, 1:])`. At
    every step, the model sees the target up to that step, beginning with the start
    token. The label is the next token, up to and including the end token.

    A row ends at its last id that is not `pad_token_id`. Padding after it is removed,
    and each batch is padded only as far as it needs. The model recognizes padding by
    that id alone, as do the loss and metrics of `kseq.training`. Therefore a batch has
    weights, as its third item, only if weights are given.

    A numeric target has no start token: batches are
    `({"source": source, "target": before}, target)`, where `before` is the target one
    step earlier. Its first step is NaN, which means unknown. Short targets are padded
    with NaN too. `ForecastLoss` and the metrics of numbers ignore NaN.

    Rows of similar length share a batch; see `LengthBatches`. The lengths that the
    model sees are rounded up to a multiple, so that a compiled model sees few shapes.

    Args:
        source: N rows of one kind, or a dictionary of rows by name, for a model with
            several sources. Or a function that takes the number of an epoch, from 0,
            and returns as many rows for each epoch, such as texts that are split at
            random (`Vocabulary.sampler`) or noise. The kinds are:

            - token ids: lists, arrays, or one padded integer array `(N, S)`
            - features: arrays `(S, D)`, or one array `(N, S, D)`; padded with
              `source_padding`
            - sources that are not sequences and never padded: classes, integers
              `(N,)`; vectors, floats `(N, D)`; pictures `(N, H, W, C)`
            - None, for a model without a source: its batches are
              `({"target": target[:, :-1]}, target[:, 1:])`
        target: Rows of token ids with start and end tokens: lists, arrays, or one
            padded integer array `(N, T)`. There is a warning if they begin with
            different tokens. Or numbers: arrays `(T, F)`, or one array `(N, T, F)`,
            with NaN for missing numbers. Or a function of the number of an epoch.
        batch_size: See `batches`.
        shuffle: See `batches`.
        seed: See `batches`.
        length_multiple: The numbers of steps that the model sees, of source and of
            target, are rounded up to multiples of this.
        pad_token_id: The id of padding.
        source_padding: The number that pads features. Pass the `mask_value` of the
            `FeatureEmbedding` in the model, which may be NaN; otherwise padding counts
            as data.
        sample_weight: Non-negative weights in the loss: one per row, or one per token
            of the target. The weight of the first token is ignored, because that token
            is not predicted.
        class_weight: Dictionary from token id to the weight of that token as a label.
            Tokens that are not in it have weight 1. It is multiplied with
            `sample_weight`.
        batch_tokens: See `batches`. The longer of source and target counts.
        steps: See `batches`.
        shard: See `batches`.
        max_length: See `batches`. The longer of source and target counts, where a
            target counts without its one token that is not predicted.
        covariates: For a numeric target: values known in advance for each of its steps,
            rows `(T, C)` of the same lengths. Inputs get them as "covariates".
        **kwargs: See `batches`.

    Returns:
        A `TeacherForcing` data set for `fit` and `evaluate`. With functions of the
        epoch, a data set that makes one for each epoch.

    Raises:
        ValueError: There are no rows; source and target have different numbers of rows;
            rows are of an unknown kind; a target has fewer than 2 tokens; a number is
            less than 1; `pad_token_id` is not an integer, or `source_padding` not a
            number; weights do not fit the target; `batch_tokens` or `shard` do not fit
            the rows, as for `batches`.

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
    is_numbers = not isinstance(target, FlatRows)
    if covariates is not None:
        covariates = checked_covariates(covariates, target, is_numbers)
    if isinstance(target, FlatRows):
        check_targets(target, pad_token_id)
        check_start_tokens(target)
        weights = target_weights(target, sample_weight, class_weight, pad_token_id)
    else:
        check_numbers(target)
        weights = label_weights(target, sample_weight, class_weight)
        target = [np.pad(row, START, constant_values=np.nan) for row in target]
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


STARTS_SEEN = 1000  # targets whose start token is checked
START = ((1, 0), (0, 0))  # pads a numeric target with one unknown step in front


def checked_source(source: Any, pad_token_id: int) -> Any:
    """Return the rows of the source, by name if there are several."""
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


def check_counts(source: Any, target: Sequence[np.ndarray]) -> None:
    """Raise unless each source has one row per target."""
    if source is None:
        return
    names = names_of("source", source)
    for name, rows in zip(names, each_input(source), strict=True):
        if len(rows) != len(target):
            raise ValueError(
                f"`{name}` and `target` must have the same number of rows. Received: "
                f"{len(rows)} rows in {name}, {len(target)} in target."
            )


def check_numbers(target: Sequence[np.ndarray]) -> None:
    """Raise if a numeric target is empty or contains infinity."""
    for index, row in enumerate(target):
        if not len(row) or np.isinf(row).any():
            raise ValueError(
                "A numeric target must have at least one step, of finite numbers or "
                f"NaN, which means unknown. Received: target[{index}] of shape "
                f"{row.shape} with maximum {row.max(initial=0)}. Leave such rows out, "
                "or use NaN for missing numbers."
            )


def checked_covariates(
    covariates: Rows, target: Sequence[np.ndarray], is_numbers: bool
) -> Sequence[np.ndarray]:
    """Return covariates with as many steps as the numeric targets."""
    if not is_numbers:
        raise ValueError(
            "`covariates` need a numeric target, shape (T, F). Received: covariates "
            "with a target of token ids. Leave them out."
        )
    covariates = checked_rows("covariates", covariates, ["features"])
    lengths = [len(row) for row in covariates]
    if lengths != [len(row) for row in target]:
        raise ValueError(
            "`covariates` must have one step for each step of each target. Received: "
            f"covariates of {lengths[:3]} steps, targets of "
            f"{[len(row) for row in target[:3]]} steps, the first of {len(lengths)} "
            f"and {len(target)} rows. Cut both to the same steps."
        )
    return covariates


def check_targets(target: FlatRows, pad_token_id: int) -> None:
    """Raise if a target has nothing to predict, or padding among its tokens."""
    short = np.flatnonzero(target.lengths < 2)
    if short.size:
        raise ValueError(
            "A target must have at least 2 tokens, one to start from and one to "
            f"predict. Received: target[{short[0]}]={target[short[0]].tolist()}. Add "
            "the start and end tokens to every target."
        )
    padded = target.first_with(pad_token_id)
    if padded is not None:
        raise ValueError(
            f"Padding, {pad_token_id}, must come after the tokens of a target, not "
            f"before or among them. Received: target[{padded}]="
            f"{target[padded].tolist()}. If your vocabulary uses this id for a token, "
            "pass another `pad_token_id`."
        )


def check_start_tokens(target: FlatRows) -> None:
    """Warn if the first of the targets begin with different tokens."""
    first_tokens = target.flat[target.starts[:STARTS_SEEN]]
    different = np.flatnonzero(first_tokens != first_tokens[0])
    if different.size:
        warnings.warn(
            "Every target must begin with the start token, which is never predicted. "
            f"Received: target[0] begins with {first_tokens[0]}, target[{different[0]}]"
            f" with {first_tokens[different[0]]}. Add the start token in front of "
            "every target; `generate` begins with it.",
            stacklevel=3,
        )


def target_weights(
    target: FlatRows,
    sample_weight: Rows | None,
    class_weight: Mapping[int, float] | None,
    pad_token_id: int,
) -> list[np.ndarray] | None:
    """Return the weights of the predicted tokens, arrays `(T - 1,)`, or None."""
    if class_weight is not None and pad_token_id in class_weight:
        raise ValueError(
            "`class_weight` must not contain padding, which is never predicted. "
            f"Received: class_weight={class_weight!r}, pad_token_id={pad_token_id}. "
            "Leave the padding out."
        )
    weights = label_weights(target, sample_weight, class_weight)
    return None if weights is None else [row[1:] for row in weights]


class TeacherForcing(LengthBatches):
    """The data set that `teacher_forcing` returns.

    Args:
        source: List of arrays without padding, as `teacher_forcing` describes them, or
            None.
        target: List of as many integer arrays `(T,)` without padding; or numeric arrays
            `(T, F)` that begin with a step of NaN.
        *args: `batch_size` and the other arguments of `LengthBatches`.
        pad_token_id: See `teacher_forcing`.
        source_padding: See `teacher_forcing`.
        weights: List of as many arrays `(T - 1,)`, the weights of the predicted tokens;
            for a numeric target `(T,)`. Or None.
        covariates: List of as many arrays `(T, C)`, for a numeric target, or None.
        **kwargs: The arguments of `LengthBatches` by keyword.
    """

    def __init__(
        self,
        source: Any,
        target: Sequence[np.ndarray],
        *args: Any,
        pad_token_id: int = 0,
        source_padding: float = 0.0,
        weights: list[np.ndarray] | None = None,
        covariates: Sequence[np.ndarray] | None = None,
        **kwargs: Any,
    ) -> None:
        self.source = source
        self.target = target
        self.weights = weights
        self.covariates = covariates
        self.pad_token_id = integer("pad_token_id", pad_token_id)
        self.source_padding = number("source_padding", source_padding)
        sources = [] if source is None else map(steps_of, each_input(source))
        # The model sees the whole source, and all but one token of the target.
        lengths = [*sources, lengths_of(target) - 1]
        if source is None:
            lengths = [np.ones(len(target), "int32"), *lengths]
        super().__init__(lengths, *args, **kwargs)

    def make_batch(self, rows: np.ndarray, lengths: np.ndarray) -> tuple[Any, ...]:
        *source_lengths, target_length = lengths
        is_ids = kind_of(self.target[0]) == "ids"
        padding = self.pad_token_id if is_ids else np.nan
        target = stacked(self.target, rows, target_length + 1, padding)
        inputs: dict[str, Any] = {"target": target[:, :-1]}  # of B T+1
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

    def _stacked(
        self, source: Sequence[np.ndarray], rows: np.ndarray, length: int
    ) -> np.ndarray:
        is_ids = kind_of(source[0]) == "ids"
        padding = self.pad_token_id if is_ids else self.source_padding
        return stacked(source, rows, length, padding)
