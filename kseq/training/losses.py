"""The loss of models that write sequences, in which padding does not count.

Models with an answer for each step take a loss of Keras, to which their mask goes.

Axes in shape comments: B batch, T target steps, V vocabulary.
"""

import keras
import numpy as np
from keras import ops

from kseq.layers import backends
from kseq.layers.cross_entropy import cross_entropy
from kseq.layers.masking import mask_of, padding_mask
from kseq.layers.validation import concrete_values, integer, rate, shapes_compatible


@keras.saving.register_keras_serializable(package="kseq")
class SequenceCrossentropy(keras.losses.Loss):
    """Cross-entropy of token ids, averaged over the real tokens of a batch.

    A token counts unless its true id is `pad_token_id`, so a long sequence weighs as
    much as it has tokens, and padding weighs nothing: the result is the same with and
    without a Keras mask on the logits. With logits `z` and smoothing `e`, a token
    whose true id is `y` costs

        (1 - e) * (logsumexp(z) - z[y]) + e * (logsumexp(z) - mean(z))

    which is the cross-entropy with a target that moves the share `e` of the
    probability evenly onto the whole vocabulary. Computed in float32 at least,
    whatever the precision of the logits. Over several batches `fit` and `evaluate`
    report the mean that Keras takes of every loss, in which each batch weighs as much
    as it has rows. Where a batch is divided among the replicas of a `tf.distribute`
    strategy, each part weighs as much as it has tokens, as on one device.

    Args:
        label_smoothing: The share `e`, in [0, 1).
        pad_token_id: The id that marks padding in `y_true`. With an id that never
            occurs, such as -1, only a Keras mask says what is padding.
        name: Name of the loss.
        dtype: Precision of the computation, float32 or wider. Less becomes float32.

    Call arguments:
        y_true: Integer token ids, `(B, T)`.
        y_pred: Logits, `(B, T, V)`. A Keras mask on them, True where a step counts,
            leaves out further tokens.
        sample_weight: Weights of the sequences, `(B,)`, or of the tokens, `(B, T)`.

    Returns:
        Scalar: the weighted sum of the tokens' losses over the sum of their weights,
        or 0 where no token counts.

    Raises:
        ValueError: `label_smoothing` is outside [0, 1), `pad_token_id` is no integer,
            `y_pred` is not `(B, T, V)` with the B and T of `y_true`, `sample_weight` is
            not of the sequences or the tokens, or a token id is not from 0 to V - 1.
            Compiled, such an id makes the loss NaN.
        NotImplementedError: A gradient of the gradient is asked for.

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
        label_smoothing=0.0,
        pad_token_id=0,
        name="sequence_crossentropy",
        dtype=None,
    ):
        super().__init__(name=name, reduction="mean_with_sample_weight", dtype=dtype)
        self.label_smoothing = rate("label_smoothing", label_smoothing)
        self.pad_token_id = integer("pad_token_id", pad_token_id)

    @property
    def dtype(self):
        dtype = super().dtype
        return "float32" if dtype in ("float16", "bfloat16") else dtype

    def __call__(self, y_true, y_pred, sample_weight=None):
        check_logits(y_true, y_pred)
        real = real_tokens(y_true, y_pred, self.pad_token_id)  # B T
        weights = token_weights(real, sample_weight, self.dtype)  # B T
        y_pred = ops.convert_to_tensor(y_pred)
        check_ids(ops.where(real, y_true, 0), y_pred.shape[-1])
        y_true = ops.cast(y_true, self.dtype)  # unsigned, it would have no -1
        y_true = ops.where(real, y_true, float(self.pad_token_id))
        loss = super().__call__(y_true, y_pred, weights)
        return loss * backends.share_of_replica(ops.sum(weights))

    def call(self, y_true, y_pred):
        real = ops.not_equal(y_true, self.pad_token_id)  # B T
        # Padding may have an id outside the vocabulary, which cannot be looked up.
        y_true = ops.where(real, y_true, 0)
        token_ids = ops.cast(y_true, "int32")  # B T
        losses = cross_entropy(token_ids, y_pred, real, self.label_smoothing)  # B T
        # An id out of range would have the loss of another.
        is_known = (token_ids >= 0) & (token_ids < y_pred.shape[-1])
        is_known &= ops.cast(token_ids, y_true.dtype) == y_true
        return ops.where(is_known, losses, float("nan"))

    def get_config(self):
        return {
            "label_smoothing": self.label_smoothing,
            "pad_token_id": self.pad_token_id,
            "name": self.name,
            "dtype": self.dtype,
        }


def check_logits(y_true, y_pred):
    """Raises unless there is one row of logits for each token id."""
    tokens, steps = np.shape(y_true), np.shape(y_pred)[:2]
    has_axes = np.ndim(y_true) == 2 and np.ndim(y_pred) == 3
    if not has_axes or not shapes_compatible(tokens, steps):
        raise ValueError(
            "`y_true` must be token ids, shape (B, T), and `y_pred` logits, shape "
            f"(B, T, V). Received: y_true of shape {np.shape(y_true)}, y_pred of shape "
            f"{np.shape(y_pred)}. Two arrays of token ids are compared by "
            "`EditDistanceRate`."
        )


def real_tokens(y_true, y_pred, pad_token_id):
    """Marks the tokens that count, `(B, T)`."""
    real = padding_mask(y_true, pad_token_id)  # B T
    # Keras leaves it to each metric to look for the mask that a model's layers kept.
    mask = mask_of(y_pred)
    return real if mask is None else real & ops.cast(mask, "bool")


def check_ids(token_ids, size):
    """Raises if it can be seen that there are no logits for a token."""
    seen = concrete_values(token_ids)
    if seen is None:
        return
    is_id = (seen >= 0) & (seen < size) & (seen == np.floor(seen))
    if not is_id.all():
        wrong = seen[~is_id].flat[0]
        raise ValueError(
            f"`y_true` must be token ids from 0 to {size - 1}, for which there are "
            f"logits, or padding. Received: y_true with {wrong}. Encode it with the "
            "vocabulary that the model was made for, and name other padding: "
            "`SequenceCrossentropy(pad_token_id=...)`."
        )


def token_weights(real, sample_weight, dtype):
    """The weight of each token, `(B, T)`: zero where it is not real."""
    if sample_weight is None:
        return ops.cast(real, dtype)
    sample_weight = ops.convert_to_tensor(sample_weight, dtype)
    batch, given = real.shape[:1], sample_weight.shape
    shapes = (batch, (*batch, 1), real.shape)
    if not any(shapes_compatible(given, shape) for shape in shapes):
        raise ValueError(
            "`sample_weight` must be weights of sequences, shape (B,), or of tokens, "
            f"(B, T), like `y_true`. Received: sample_weight of shape {tuple(given)}, "
            f"y_true of shape {tuple(real.shape)}."
        )
    if len(given) == 1:
        sample_weight = sample_weight[:, None]  # B 1
    return ops.where(real, sample_weight, 0.0)
