"""Positions: how a layer that knows no order learns which step stands where.

Positions are integers. Where they are not given they are counted from 0 over the real
steps, so padding on the left moves nothing.

Axes in shape comments: B batch, S steps, D width.
"""

import keras
from keras import ops

from kseq.layers import backends
from kseq.layers.initializers import initializer_of
from kseq.layers.layer import Layer
from kseq.layers.masking import as_boolean_mask
from kseq.layers.validation import (
    concrete_values,
    one_of,
    positive_integer,
    positive_number,
)

LAYOUTS = ("interleaved", "halves")


@keras.saving.register_keras_serializable(package="kseq")
class SinusoidalPositions(Layer):
    """Adds sines and cosines of the position, in many wavelengths.

    `x + P` with `P[s, 2i] = sin(s / 10000^(2i/D))` and
    `P[s, 2i+1] = cos(s / 10000^(2i/D))`. It has no weights, and no longest sequence.

    Args:
        layout: `"interleaved"`, sines and cosines in turns, as in the paper, or
            `"halves"`, all sines and then all cosines. The two differ by the order of
            the features alone.
        max_wavelength: The longest wavelength over 2 pi.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        positions: Integers `(B, S)` or `(1, S)`. Counted over the real steps where not
            given.
        mask: Boolean `(B, S)`, True where a step is real. Defaults to the Keras mask of
            `sequences`, which the outputs keep.

    Returns:
        `(B, S, D)`.

    Raises:
        ValueError: D is odd, the layout is unknown, or `max_wavelength` is not
            positive.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import SinusoidalPositions
    >>> encoding = SinusoidalPositions()(np.zeros((1, 2, 2)))
    >>> np.array(encoding, "float64").round(2).tolist()
    [[[0.0, 1.0], [0.84, 0.54]]]

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), 3.5
    """

    def __init__(self, layout="interleaved", max_wavelength=10_000, **kwargs):
        super().__init__(**kwargs)
        self.layout = one_of("layout", layout, LAYOUTS)
        self.max_wavelength = positive_number("max_wavelength", max_wavelength)
        self.supports_masking = True

    def build(self, sequences_shape):
        check_even(sequences_shape[-1])

    def compute_output_shape(self, sequences_shape):
        return sequences_shape

    def call(self, sequences, positions=None, mask=None):
        if positions is None:
            positions = step_positions(mask, ops.shape(sequences)[-2])
        width = sequences.shape[-1]
        angles = position_angles(positions, width, self.max_wavelength)  # B S D/2
        encoding = join_pairs(ops.sin(angles), ops.cos(angles), self.layout)  # B S D
        return sequences + ops.cast(encoding, sequences.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "layout": self.layout,
            "max_wavelength": self.max_wavelength,
        }


@keras.saving.register_keras_serializable(package="kseq")
class LearnedPositions(keras.layers.Layer):
    """Adds a learned vector for each position.

    Args:
        max_length: Number of positions there are vectors for.
        embeddings_initializer: Initializer of the table.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        positions: Integers `(B, S)` or `(1, S)`. Counted over the real steps where not
            given.
        mask: Boolean `(B, S)`, True where a step is real. Defaults to the Keras mask of
            `sequences`, which the outputs keep.

    Returns:
        `(B, S, D)`.

    Raises:
        ValueError: `max_length` is not a positive integer, or a sequence has more real
            steps. In a compiled function TensorFlow raises its own error with the same
            words. Where nothing can be raised, as in one that JAX or XLA compiles, and
            for positions that are given, what is beyond the table gets NaN.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import LearnedPositions
    >>> tuple(LearnedPositions(max_length=9)(np.zeros((2, 7, 5))).shape)
    (2, 7, 5)

    References:
        - [Gehring et al., 2017](https://arxiv.org/abs/1705.03122), 3.1
    """

    def __init__(self, max_length, embeddings_initializer="uniform", **kwargs):
        super().__init__(**kwargs)
        self.max_length = positive_integer("max_length", max_length)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.supports_masking = True

    def build(self, sequences_shape):
        self.table = self.add_weight(
            shape=(self.max_length, sequences_shape[-1]),
            initializer=initializer_of("embeddings", self.embeddings_initializer),
            name="table",
        )

    def compute_output_shape(self, sequences_shape):
        return sequences_shape  # a trace stands long lengths in for unknown ones

    def call(self, sequences, positions=None, mask=None):
        rows, is_beyond = rows_of_table(
            sequences,
            positions,
            mask,
            self.max_length,
            "A sequence must have as many steps as there are learned positions, "
            f"padding not counted. Received: more than max_length={self.max_length}. "
            "Cut it off, or make the table longer.",
        )
        vectors = ops.cast(ops.take(self.table, rows, axis=0), sequences.dtype)
        return sequences + ops.where(is_beyond[..., None], float("nan"), vectors)

    def get_config(self):
        return {
            **super().get_config(),
            "max_length": self.max_length,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
        }


def make_positions(positions, max_length, dtype):
    """Makes a layer from its name; layers and None stay as they are."""
    if positions == "learned":
        if max_length is None:
            raise ValueError(
                "Learned positions need `max_length`, the number of positions. "
                'Received: positions="learned" with max_length=None. Or take '
                'positions="sinusoidal", which has no longest sequence.'
            )
        return LearnedPositions(max_length, dtype=dtype, name="positions")
    if max_length is not None:
        raise ValueError(
            "`max_length` is the number of learned positions. Received: "
            f"max_length={max_length} with positions={positions!r}. Leave it out, or "
            'use positions="learned".'
        )
    if positions == "sinusoidal":
        return SinusoidalPositions(dtype=dtype, name="positions")
    if positions is None or isinstance(positions, keras.layers.Layer):
        return positions
    raise ValueError(
        '`positions` must be "sinusoidal", "learned", a layer such as '
        f"`SinusoidalPositions`, or None. Received: positions={positions!r}."
    )


def most_positions(positions_layer):
    """The number of learned positions of a layer, of one's own too; None for any."""
    return getattr(positions_layer, "max_length", None)


def serialize_positions(positions):
    """Return what a config says of positions: a name, or the config of a layer."""
    if isinstance(positions, keras.layers.Layer):
        return keras.saving.serialize_keras_object(positions)
    return positions


def deserialize_positions(config):
    """What an embedding's config was made from."""
    positions = config["positions"]
    if isinstance(positions, dict):
        positions = keras.saving.deserialize_keras_object(positions)
    return {**config, "positions": positions}


def step_positions(mask, length):
    """Positions `(B, S)` that count the real steps, or `(1, S)` where all are real."""
    if mask is None:
        return ops.expand_dims(ops.arange(length, dtype="int32"), 0)
    count = ops.cumsum(ops.cast(as_boolean_mask(mask), "int32"), axis=-1)
    return ops.maximum(count - 1, 0)


def rows_of_table(sequences, positions, mask, max_length, message):
    """Where in a table of positions to look up each step, and which steps are beyond.

    Args:
        sequences: `(B, S, D)`.
        positions: Integers `(B, S)` or `(1, S)`, or None to count the real steps.
        mask: Boolean `(B, S)`, or None.
        max_length: Number of positions of the table.
        message: Of the error where more real steps are counted.

    Returns:
        Integers from 0 to below `max_length`, and a boolean tensor, both `(B, S)` or
        `(1, S)`.
    """
    is_counted = positions is None
    if is_counted:
        positions = step_positions(mask, ops.shape(sequences)[-2])
    positions = ops.convert_to_tensor(positions, "int32")
    is_beyond = positions >= max_length
    if mask is not None:
        is_beyond = ops.logical_and(is_beyond, as_boolean_mask(mask))
    seen = concrete_values(is_beyond) if is_counted else None
    if is_counted and seen is None:
        backends.require(ops.logical_not(ops.any(is_beyond)), message)
    elif is_counted and seen.any():
        raise ValueError(message)
    return ops.clip(positions, 0, max_length - 1), is_beyond


def position_angles(positions, width, max_wavelength):
    """Angles `(B, S, D/2)` of integer positions `(B, S)`, in float32."""
    pairs = ops.arange(width // 2, dtype="float32")
    speeds = ops.exp(pairs * (-2 / width * ops.log(max_wavelength)))  # D/2
    return ops.expand_dims(ops.cast(positions, "float32"), -1) * speeds


def join_pairs(first, second, layout):
    """The first and the second features of each pair, as features on the last axis."""
    if layout == "halves":
        return ops.concatenate([first, second], axis=-1)
    shape = (*ops.shape(first)[:-1], 2 * first.shape[-1])
    return ops.reshape(ops.stack([first, second], axis=-1), shape)


def check_even(width):
    """Refuses features that do not go in pairs."""
    if width % 2:
        raise ValueError(
            "Positions go into pairs of features, so the last axis, the `width` of a "
            f"model, must be even. Received: size {width}."
        )


def prefix_positions(mask, prefix):
    """Positions `(B, S)` of a prefix, whose last real step stands at -1.

    Without a mask, `prefix` says how many there are: `(B, S, D)` or `(B, N, S, C)`.
    """
    if mask is None:
        rows, length = ops.shape(prefix)[0], ops.shape(prefix)[-2]
        positions = ops.expand_dims(ops.arange(length, dtype="int32") - length, 0)
        return ops.broadcast_to(positions, (rows, length))
    count = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)
    return step_positions(mask, ops.shape(mask)[1]) - count
