"""Metrics of models that generate sequences.

Axes in shape comments: B batch, T reference steps, H hypothesis steps, V vocabulary.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from kseq.layers.validation import integer
from kseq.training.losses import check_logits, real_tokens, token_weights
from kseq.typing import Config, Tensor, TensorLike


def edit_distance(
    reference: TensorLike,
    hypothesis: TensorLike,
    pad_token_id: int = 0,
    end_token_id: int | None = None,
) -> Tensor:
    """Compute the Levenshtein distance of token sequences, row by row.

    It is the least number of tokens to insert, delete or replace that turns one
    sequence into the other. Padding, at any position, is not part of a sequence;
    neither are the first end token and everything after it. All rows together take time
    `O(H T^2)`. Compiles on every backend.

    Args:
        reference: Integer token ids, `(B, T)`.
        hypothesis: Integer token ids, `(B, H)`.
        pad_token_id: The id of padding in both.
        end_token_id: The id that ends a sequence in both. None if only padding does.

    Returns:
        Integer tensor `(B,)`: one distance per row.

    Example:

    >>> import numpy as np
    >>> from kseq.training import edit_distance
    >>> reference = np.array([[5, 6, 7, 0], [5, 6, 7, 8]])
    >>> hypothesis = np.array([[5, 7, 0], [9, 6, 7]])
    >>> np.asarray(edit_distance(reference, hypothesis)).tolist()
    [1, 2]

    References:
        - [Wagner and Fischer, 1974](https://doi.org/10.1145/321796.321811)
    """
    reference = ops.cast(reference, "int32")
    hypothesis = ops.cast(hypothesis, "int32")
    in_reference = _counts(reference, pad_token_id, end_token_id)  # B T
    # One extra step that is never reached: JAX cannot compile indexing an empty axis.
    hypothesis = ops.pad(hypothesis, [(0, 0), (0, 1)], constant_values=pad_token_id)
    in_hypothesis = _counts(hypothesis, pad_token_id, end_token_id)  # B H+1
    # Number of tokens before each of the T + 1 places in the reference: the distance
    # between that prefix and an empty hypothesis, which is the first row of the table.
    places = ops.pad(ops.cumsum(ops.cast(in_reference, "int32"), 1), [(0, 0), (1, 0)])
    order = ops.arange(ops.shape(reference)[1] + 1, dtype="int32")
    comes_before = order <= order[:, None]  # T+1 T+1
    far = 2**30

    def add_token(step, row):
        token = ops.take(hypothesis, step, axis=1)[:, None]  # B 1
        replaced = row[:, :-1] + ops.cast(reference != token, "int32")  # B T
        replaced = ops.where(in_reference, replaced, far)
        inserted = row + 1  # B T+1
        best = ops.minimum(inserted[:, 1:], replaced)
        best = ops.concatenate([inserted[:, :1], best], axis=1)  # B T+1
        # Deleting reference tokens moves from an earlier place to a later one:
        # min over i <= j of best[i] + places[j] - places[i].
        earlier = ops.where(comes_before, (best - places)[:, None], far)  # B T+1 T+1
        best = ops.min(earlier, axis=-1) + places
        return ops.where(ops.take(in_hypothesis, step, axis=1)[:, None], best, row)

    return ops.fori_loop(0, ops.shape(hypothesis)[1] - 1, add_token, places)[:, -1]


class _Rate(keras.metrics.Metric):
    """Ratio of two sums over all batches."""

    def __init__(
        self,
        pad_token_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.ignores_zero_by_default = pad_token_id is None
        self.pad_token_id = integer(
            "pad_token_id", 0 if pad_token_id is None else pad_token_id
        )
        # Half precision cannot count beyond 2048.
        self.sum_dtype = keras.backend.result_type(self.dtype, "float32")
        self.total = self.add_variable((), "zeros", dtype=self.sum_dtype, name="total")
        self.count = self.add_variable((), "zeros", dtype=self.sum_dtype, name="count")

    def add(self, values: Tensor, possible: Tensor, weights: Tensor) -> None:
        self.total.assign_add(ops.sum(ops.cast(values, self.sum_dtype) * weights))
        self.count.assign_add(ops.sum(ops.cast(possible, self.sum_dtype) * weights))

    def result(self) -> Tensor:
        return ops.divide_no_nan(self.total, self.count)

    def get_config(self) -> Config:
        return {**super().get_config(), "pad_token_id": self.pad_token_id}


@keras.saving.register_keras_serializable(package="kseq")
class TokenAccuracy(_Rate):
    """Fraction of the real tokens whose logit is the highest.

    Every token has the same weight, whatever batch it is in.

    Args:
        pad_token_id: The id of padding in `y_true`. None is 0. With an id that never
            occurs, such as -1, only a Keras mask marks padding. For a tagger, whose
            labels count from 0, pass -1, or 0 if label 0 is padding.
        name: Name of the metric.
        dtype: Dtype of the sums. Types smaller than float32 become float32.

    Call arguments:
        y_true: Integer token ids, `(B, T)`.
        y_pred: Logits, `(B, T, V)`. A Keras mask on them, True where a step counts,
            excludes further tokens.
        sample_weight: Weights of the sequences, `(B,)`, or of the tokens, `(B, T)`.

    Returns:
        Scalar from `result()`, 0 before the first real token.

    Raises:
        ValueError: `pad_token_id` is not an integer, or `y_pred` is not `(B, T, V)`.

    Example:

    >>> import numpy as np
    >>> from kseq.training import TokenAccuracy
    >>> accuracy = TokenAccuracy()
    >>> logits = np.eye(5, dtype="float32")[[[3, 1, 2], [4, 4, 4]]]
    >>> float(accuracy(np.array([[3, 1, 2], [2, 0, 0]]), logits))
    0.75
    """

    def __init__(
        self,
        pad_token_id: int | None = None,
        name: str = "token_accuracy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(pad_token_id, name, dtype)

    def update_state(
        self,
        y_true: TensorLike,
        y_pred: TensorLike,
        sample_weight: TensorLike | None = None,
    ) -> None:
        best, real = _best_tokens(y_true, y_pred, self.pad_token_id)
        weights = token_weights(real, sample_weight, self.sum_dtype)  # B T
        self.add(best == ops.cast(y_true, "int32"), real, weights)


@keras.saving.register_keras_serializable(package="kseq")
class ExactMatch(_Rate):
    """Fraction of the sequences predicted without any error.

    With logits, the highest logit must be right at every real token. With token ids,
    as from a model with CTC, the ids must equal the reference. A row without a real
    token does not count.

    Args:
        pad_token_id: The id of padding in `y_true`. None is 0. With an id that never
            occurs, such as -1, only a Keras mask marks padding. For a tagger, whose
            labels count from 0, pass -1, or 0 if label 0 is padding.
        name: Name of the metric.
        dtype: Dtype of the sums. Types smaller than float32 become float32.

    Call arguments:
        y_true: Integer token ids, `(B, T)`.
        y_pred: Logits, `(B, T, V)`. A Keras mask on them, True where a step counts,
            excludes further tokens. Or integer token ids of a hypothesis, `(B, H)`,
            whose padding is ignored.
        sample_weight: Weights of the sequences, `(B,)`.

    Returns:
        Scalar from `result()`, 0 before the first sequence.

    Raises:
        ValueError: `pad_token_id` is not an integer; `y_pred` is not `(B, T, V)`;
            `sample_weight` is not `(B,)`.

    Example:

    >>> import numpy as np
    >>> from kseq.training import ExactMatch
    >>> exact = ExactMatch()
    >>> logits = np.eye(5, dtype="float32")[[[3, 1, 2], [4, 4, 4]]]
    >>> float(exact(np.array([[3, 1, 2], [2, 0, 0]]), logits))
    0.5

    References:
        - [Rajpurkar et al., 2016](https://arxiv.org/abs/1606.05250) (exact match)
    """

    def __init__(
        self,
        pad_token_id: int | None = None,
        name: str = "exact_match",
        dtype: str | None = None,
    ) -> None:
        super().__init__(pad_token_id, name, dtype)

    def update_state(
        self,
        y_true: TensorLike,
        y_pred: TensorLike,
        sample_weight: TensorLike | None = None,
    ) -> None:
        if _is_ids(y_pred):
            real = y_true != self.pad_token_id
            wrong = edit_distance(y_true, y_pred, self.pad_token_id) > 0  # B
        else:
            best, real = _best_tokens(y_true, y_pred, self.pad_token_id)
            wrong = ops.any(real & (best != ops.cast(y_true, "int32")), axis=1)  # B
        sequences = ops.any(real, axis=1)  # B
        weights = _row_weights(sample_weight, self.sum_dtype)
        self.add(sequences & ~wrong, sequences, weights)


@keras.saving.register_keras_serializable(package="kseq")
class EditDistanceRate(_Rate):
    """Edit distance rate: total edit distance divided by total reference length.

    This is the phoneme, character or word error rate, depending on what a token is. It
    exceeds 1 if hypotheses are much longer than their references. Generated ids are
    compared as by `edit_distance`. Logits come from teacher forcing and predict step by
    step, so steps where `y_true` is padding do not count as insertions.

    Args:
        pad_token_id: The id of padding in `y_true` and in a hypothesis. None is 0. For
            a tagger, whose labels count from 0, pass -1, or 0 if label 0 is padding.
        end_token_id: The id that ends a sequence. The first one and everything after it
            do not count. None if only padding ends a sequence; an end token then counts
            like any other.
        name: Name of the metric.
        dtype: Dtype of the sums. Types smaller than float32 become float32.

    Call arguments:
        y_true: Integer token ids, `(B, T)`.
        y_pred: Integer token ids of a hypothesis, `(B, H)`. Or logits, `(B, T, V)`,
            whose argmax is used. A Keras mask on logits, True where a step counts,
            excludes further tokens.
        sample_weight: Weights of the sequences, `(B,)`.

    Returns:
        Scalar from `result()`, 0 before the first reference token.

    Raises:
        ValueError: A token id is not an integer; `y_true` is not `(B, T)`;
            `sample_weight` is not `(B,)`.

    Example:

    >>> import numpy as np
    >>> from kseq.training import EditDistanceRate
    >>> rate = EditDistanceRate(end_token_id=2)
    >>> y_true = np.array([[5, 6, 7, 2], [5, 6, 2, 0]])
    >>> hypothesis = np.array([[5, 7, 2], [5, 6, 2]])
    >>> round(float(rate(y_true, hypothesis)), 2)  # one deletion in five tokens
    0.2

    References:
        - [Graves et al., 2006](https://doi.org/10.1145/1143844.1143891), 2.1 (label
          error rate)
    """

    def __init__(
        self,
        pad_token_id: int | None = None,
        end_token_id: int | None = None,
        name: str = "edit_distance_rate",
        dtype: str | None = None,
    ) -> None:
        super().__init__(pad_token_id, name, dtype)
        if end_token_id is not None:
            end_token_id = integer("end_token_id", end_token_id)
        self.end_token_id = end_token_id

    def update_state(
        self,
        y_true: TensorLike,
        y_pred: TensorLike,
        sample_weight: TensorLike | None = None,
    ) -> None:
        if np.ndim(y_true) != 2:
            raise ValueError(
                "`y_true` must be rows of token ids, shape (B, T). Received: y_true of "
                f"shape {np.shape(y_true)}. Use an accuracy of Keras for one answer "
                "per row."
            )
        reference, hypothesis = ops.cast(y_true, "int32"), y_pred
        if np.ndim(y_pred) == 3:
            best, real = _best_tokens(y_true, y_pred, self.pad_token_id)
            reference = ops.where(real, reference, self.pad_token_id)  # B T
            hypothesis = ops.where(real, best, self.pad_token_id)  # B T
        ends = (self.pad_token_id, self.end_token_id)
        distances = edit_distance(reference, hypothesis, *ends)  # B
        lengths = ops.sum(ops.cast(_counts(reference, *ends), "int32"), axis=1)  # B
        self.add(distances, lengths, _row_weights(sample_weight, self.sum_dtype))

    def get_config(self) -> Config:
        return {**super().get_config(), "end_token_id": self.end_token_id}


def _counts(token_ids: Tensor, pad_token_id: int, end_token_id: int | None) -> Tensor:
    """Return a mask that is True where a token is part of its sequence."""
    real = token_ids != pad_token_id
    if end_token_id is None:
        return real
    ends = ops.cumsum(ops.cast(token_ids == end_token_id, "int32"), axis=1)
    return real & (ends == 0)


def _is_ids(y_pred: Any) -> bool:
    """Return whether predictions are integers `(B, H)`."""
    is_integer = "int" in keras.backend.standardize_dtype(y_pred.dtype)
    return is_integer and len(y_pred.shape) == 2


def _best_tokens(
    y_true: TensorLike, y_pred: Any, pad_token_id: int
) -> tuple[Tensor, Tensor]:
    """Return the most likely token of each step, and a mask of the steps that count."""
    check_logits(y_true, y_pred)
    real = real_tokens(y_true, y_pred, pad_token_id)  # B T
    # Not `argmax`, whose lowering on TensorFlow breaks exported graphs.
    return ops.top_k(y_pred, 1)[1][..., 0], real


def _row_weights(sample_weight: TensorLike | None, dtype: str) -> Tensor:
    """Return one weight per row, `(B,)`, or 1 for all rows."""
    if sample_weight is None:
        return ops.ones((), dtype)
    weights = ops.convert_to_tensor(sample_weight, dtype)
    if len(weights.shape) == 2 and weights.shape[1] == 1:
        weights = weights[:, 0]
    if len(weights.shape) != 1:
        raise ValueError(
            "`sample_weight` of a metric of whole sequences must have one weight per "
            f"row, shape (B,). Received: shape {tuple(weights.shape)}. Use "
            "`TokenAccuracy` with weights of tokens; pass this metric under `metrics`, "
            "not `weighted_metrics`."
        )
    return weights
