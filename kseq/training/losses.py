"""Cross-entropy for models that generate sequences, which ignores padding.

For models with one answer per step, use a Keras loss, which gets their mask.

Axes in shape comments: B batch, T target steps, V vocabulary.
"""

import keras
import numpy as np
from keras import ops

from kseq.layers import backends
from kseq.layers.cross_entropy import cross_entropy
from kseq.layers.masking import mask_of, padding_mask
from kseq.layers.validation import concrete_values, integer, rate, shapes_compatible
from kseq.typing import Config, Tensor, TensorLike


@keras.saving.register_keras_serializable(package="kseq")
class SequenceCrossentropy(keras.losses.Loss):
    """Cross-entropy of token ids, averaged over the real tokens of a batch.

    A token counts unless its true id is `pad_token_id`. So a sequence weighs as much as
    it has tokens, and padding has no weight: the result is the same with and without a
    Keras mask on the logits. With logits `z` and smoothing `e`, a token with the true
    id `y` costs

        (1 - e) * (logsumexp(z) - z[y]) + e * (logsumexp(z) - mean(z))

    This is the cross-entropy with a target that moves the share `e` of the probability
    evenly to the whole vocabulary. Computed in at least float32, whatever the precision
    of the logits. Over several batches, `fit` and `evaluate` report Keras' usual mean
    of a loss, in which a batch weighs as much as it has rows. If a `tf.distribute`
    strategy divides a batch among replicas, each part weighs as much as it has tokens,
    as on one device.

    Args:
        label_smoothing: The share `e`, in [0, 1).
        pad_token_id: The id of padding in `y_true`. None is 0. With an id that never
            occurs, such as -1, only a Keras mask marks padding. Labels of a tagger
            count from 0, so there None would ignore one of them, and `compile` warns:
            pass -1, or 0 if label 0 is padding.
        name: Name of the loss.
        dtype: Precision of the computation. Types smaller than float32 become float32.

    Call arguments:
        y_true: Integer token ids, `(B, T)`.
        y_pred: Logits, `(B, T, V)`. A Keras mask on them, True where a step counts,
            excludes further tokens.
        sample_weight: Weights of the sequences, `(B,)`, or of the tokens, `(B, T)`.

    Returns:
        Scalar: the weighted sum of the losses of tokens over the sum of their weights,
        or 0 if no token counts.

    Raises:
        ValueError: `label_smoothing` is outside [0, 1); `pad_token_id` is not an
            integer; `y_pred` is not `(B, T, V)` with the B and T of `y_true`;
            `sample_weight` does not fit the sequences or the tokens; a token id is not
            from 0 to V - 1. In compiled code, such an id makes the loss NaN.
        NotImplementedError: A second derivative is computed.

    Example:

    >>> import numpy as np
    >>> from kseq.training import SequenceCrossentropy
    >>> loss = SequenceCrossentropy(label_smoothing=0.1)
    >>> y_true = np.array([[3, 1, 2], [2, 0, 0]])  # the second row ends early
    >>> logits = np.zeros((2, 3, 5), "float32")  # five words, all as likely
    >>> round(float(loss(y_true, logits)), 4)  # log(5)
    1.6094

    References:
        - [Szegedy et al., 2016](https://arxiv.org/abs/1512.00567), 7 (label smoothing)
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        pad_token_id: int | None = None,
        name: str = "sequence_crossentropy",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, reduction="mean_with_sample_weight", dtype=dtype)
        self.label_smoothing = rate("label_smoothing", label_smoothing)
        self.ignores_zero_by_default = pad_token_id is None
        self.pad_token_id = integer(
            "pad_token_id", 0 if pad_token_id is None else pad_token_id
        )

    @property
    def dtype(self) -> str:
        dtype = super().dtype
        return "float32" if dtype in ("float16", "bfloat16") else dtype

    def __call__(
        self,
        y_true: TensorLike,
        y_pred: TensorLike,
        sample_weight: TensorLike | None = None,
    ) -> Tensor:
        check_logits(y_true, y_pred)
        real = real_tokens(y_true, y_pred, self.pad_token_id)  # B T
        weights = token_weights(real, sample_weight, self.dtype)  # B T
        y_pred = ops.convert_to_tensor(y_pred)
        check_ids(ops.where(real, y_true, 0), y_pred.shape[-1])
        y_true = ops.cast(y_true, self.dtype)  # an unsigned type could not hold -1
        y_true = ops.where(real, y_true, float(self.pad_token_id))
        loss = super().__call__(y_true, y_pred, weights)
        return loss * backends.share_of_replica(ops.sum(weights))

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        real = ops.not_equal(y_true, self.pad_token_id)  # B T
        # Padding may have an id outside the vocabulary, which cannot be looked up.
        y_true = ops.where(real, y_true, 0)
        token_ids = ops.cast(y_true, "int32")  # B T
        losses = cross_entropy(token_ids, y_pred, real, self.label_smoothing)  # B T
        # An id out of range would get the loss of another id.
        is_known = (token_ids >= 0) & (token_ids < y_pred.shape[-1])
        is_known &= ops.cast(token_ids, y_true.dtype) == y_true
        return ops.where(is_known, losses, float("nan"))

    def get_config(self) -> Config:
        return {
            "label_smoothing": self.label_smoothing,
            "pad_token_id": self.pad_token_id,
            "name": self.name,
            "dtype": self.dtype,
        }


def check_logits(y_true: TensorLike, y_pred: TensorLike) -> None:
    """Raise unless there is one row of logits for each token id."""
    tokens, steps = np.shape(y_true), np.shape(y_pred)[:2]
    has_axes = np.ndim(y_true) == 2 and np.ndim(y_pred) == 3
    if not has_axes or not shapes_compatible(tokens, steps):
        raise ValueError(
            "`y_true` must be token ids, shape (B, T), and `y_pred` logits, shape "
            f"(B, T, V). Received: y_true of shape {np.shape(y_true)}, y_pred of shape "
            f"{np.shape(y_pred)}. Use `EditDistanceRate` to compare two arrays of "
            "token ids, and a loss and metrics of Keras for one answer per row."
        )


def real_tokens(y_true: TensorLike, y_pred: TensorLike, pad_token_id: int) -> Tensor:
    """Return the mask of the tokens that count, `(B, T)`."""
    real = padding_mask(y_true, pad_token_id)  # B T
    # Keras does not pass the mask of a model's layers to metrics.
    mask = mask_of(y_pred)
    return real if mask is None else real & ops.cast(mask, "bool")


def check_ids(token_ids: Tensor, size: int) -> None:
    """Raise if the values can be read and a token has no logits."""
    seen = concrete_values(token_ids)
    if seen is None:
        return
    is_id = (seen >= 0) & (seen < size) & (seen == np.floor(seen))
    if not is_id.all():
        wrong = seen[~is_id].flat[0]
        raise ValueError(
            f"`y_true` must be token ids from 0 to {size - 1}, which have logits, or "
            f"padding. Received: y_true with {wrong}. Encode it with the vocabulary "
            "that the model was made for. If padding has another id, pass it: "
            "`SequenceCrossentropy(pad_token_id=...)`."
        )


def token_weights(real: Tensor, sample_weight: TensorLike | None, dtype: str) -> Tensor:
    """Return the weight of each token, `(B, T)`, which is 0 for padding."""
    if sample_weight is None:
        return ops.cast(real, dtype)
    weights = ops.convert_to_tensor(sample_weight, dtype)
    batch, given = real.shape[:1], weights.shape
    shapes = (batch, (*batch, 1), real.shape)
    if not any(shapes_compatible(given, shape) for shape in shapes):
        raise ValueError(
            "`sample_weight` must be weights of sequences, shape (B,), or of tokens, "
            f"(B, T), like `y_true`. Received: sample_weight of shape {tuple(given)}, "
            f"y_true of shape {tuple(real.shape)}."
        )
    if len(given) == 1:
        weights = weights[:, None]  # B 1
    return ops.where(real, weights, 0.0)
