"""Position encodings: sinusoidal and learned.

Positions are integers. By default, the real steps are counted from 0, so padding on
the left does not shift positions.

Axes in shape comments: B batch, S steps, D width.
"""

from typing import Any, Literal

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
from kseq.typing import Config, Initializer, Shape, Tensor, TensorLike

LAYOUTS = ("interleaved", "halves")


@keras.saving.register_keras_serializable(package="kseq")
class SinusoidalPositions(Layer):
    """Sinusoidal position encoding, added to the input.

    `x + P` with `P[s, 2i] = sin(s / 10000^(2i/D))` and
    `P[s, 2i+1] = cos(s / 10000^(2i/D))`. It has no weights and no maximum length.

    Args:
        layout: `"interleaved"`, sines and cosines alternating, as in the paper, or
            `"halves"`, all sines before all cosines. The two differ only in the order
            of the features.
        max_wavelength: Longest wavelength divided by 2 pi.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        positions: Integers `(B, S)` or `(1, S)`. By default, the real steps are
            counted from 0.
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

    def __init__(
        self,
        layout: Literal["interleaved", "halves"] = "interleaved",
        max_wavelength: float = 10_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layout = one_of("layout", layout, LAYOUTS)
        self.max_wavelength = positive_number("max_wavelength", max_wavelength)
        self.supports_masking = True

    def build(self, sequences_shape: Shape) -> None:
        check_even(sequences_shape[-1])  # type: ignore[arg-type]

    def compute_output_shape(self, sequences_shape: Shape) -> Shape:
        return sequences_shape

    def call(
        self,
        sequences: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        if positions is None:
            positions = step_positions(mask, ops.shape(sequences)[-2])
        width = sequences.shape[-1]
        angles = position_angles(positions, width, self.max_wavelength)  # B S D/2
        encoding = join_pairs(ops.sin(angles), ops.cos(angles), self.layout)  # B S D
        return sequences + ops.cast(encoding, sequences.dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "layout": self.layout,
            "max_wavelength": self.max_wavelength,
        }


@keras.saving.register_keras_serializable(package="kseq")
class LearnedPositions(keras.layers.Layer):
    """Learned position vectors, added to the input.

    Args:
        max_length: Number of positions, which is the maximum length of a sequence.
        embeddings_initializer: Initializer of the table.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        positions: Integers `(B, S)` or `(1, S)`. By default, the real steps are
            counted from 0.
        mask: Boolean `(B, S)`, True where a step is real. Defaults to the Keras mask of
            `sequences`, which the outputs keep.

    Returns:
        `(B, S, D)`.

    Raises:
        ValueError: `max_length` is not a positive integer, or a sequence has more real
            steps. In a compiled function, TensorFlow raises its own error with the same
            message. A function compiled by JAX or XLA cannot raise; there, and where
            `positions` are passed, steps beyond the table become NaN.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import LearnedPositions
    >>> tuple(LearnedPositions(max_length=9)(np.zeros((2, 7, 5))).shape)
    (2, 7, 5)

    References:
        - [Gehring et al., 2017](https://arxiv.org/abs/1705.03122), 3.1
    """

    def __init__(
        self,
        max_length: int,
        embeddings_initializer: Initializer = "uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_length = positive_integer("max_length", max_length)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.supports_masking = True

    def build(self, sequences_shape: Shape) -> None:
        self.table = self.add_weight(
            shape=(self.max_length, sequences_shape[-1]),
            initializer=initializer_of("embeddings", self.embeddings_initializer),
            name="table",
        )

    def compute_output_shape(self, sequences_shape: Shape) -> Shape:
        return sequences_shape  # tracing would use a long length for an unknown one

    def call(
        self,
        sequences: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        rows, is_beyond = table_rows(
            sequences,
            positions,
            mask,
            self.max_length,
            "A sequence must not have more steps than there are learned positions, "
            f"padding not counted. Received: more than max_length={self.max_length}. "
            "Truncate the sequence, or use a larger `max_length`.",
        )
        vectors = ops.cast(ops.take(self.table, rows, axis=0), sequences.dtype)
        return sequences + ops.where(is_beyond[..., None], float("nan"), vectors)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "max_length": self.max_length,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
        }


def make_positions(
    positions: str | keras.layers.Layer | None, max_length: int | None, dtype: Any
) -> keras.layers.Layer | None:
    """Return the position layer of a name; layers and None are returned unchanged."""
    if positions == "learned":
        if max_length is None:
            raise ValueError(
                "Learned positions need `max_length`, the number of positions. "
                'Received: positions="learned" with max_length=None. Or use '
                'positions="sinusoidal", which has no maximum length.'
            )
        return LearnedPositions(max_length, dtype=dtype, name="positions")
    if max_length is not None:
        raise ValueError(
            "`max_length` is the number of learned positions. Received: "
            f"max_length={max_length} with positions={positions!r}. Omit it, or use "
            'positions="learned".'
        )
    if positions == "sinusoidal":
        return SinusoidalPositions(dtype=dtype, name="positions")
    if positions is None or isinstance(positions, keras.layers.Layer):
        return positions
    raise ValueError(
        '`positions` must be "sinusoidal", "learned", a layer such as '
        f"`SinusoidalPositions`, or None. Received: positions={positions!r}."
    )


def most_positions(positions_layer: keras.layers.Layer | None) -> int | None:
    """Return the `max_length` of a position layer, or None if it has no limit."""
    return getattr(positions_layer, "max_length", None)


def serialize_positions(positions: str | keras.layers.Layer | None) -> Any:
    """Return the config entry of positions: a name, the config of a layer, or None."""
    if isinstance(positions, keras.layers.Layer):
        return keras.saving.serialize_keras_object(positions)
    return positions


def deserialize_positions(config: Config) -> Config:
    """Return an embedding's config with its positions deserialized."""
    positions = config["positions"]
    if isinstance(positions, dict):
        positions = keras.saving.deserialize_keras_object(positions)
    return {**config, "positions": positions}


def step_positions(mask: TensorLike | None, length: int | Tensor) -> Tensor:
    """Count the real steps from 0: positions `(B, S)`, or `(1, S)` without a mask."""
    if mask is None:
        return ops.expand_dims(ops.arange(length, dtype="int32"), 0)
    count = ops.cumsum(ops.cast(as_boolean_mask(mask), "int32"), axis=-1)
    return ops.maximum(count - 1, 0)


def table_rows(
    sequences: Tensor,
    positions: Tensor | None,
    mask: TensorLike | None,
    max_length: int,
    message: str,
) -> tuple[Tensor, Tensor]:
    """Return the row of a position table for each step, and which steps are beyond it.

    Args:
        sequences: `(B, S, D)`.
        positions: Integers `(B, S)` or `(1, S)`, or None to count the real steps.
        mask: Boolean `(B, S)`, or None.
        max_length: Number of positions of the table.
        message: Message of the error if there are more real steps than positions.

    Returns:
        Rows, integers from 0 to `max_length - 1`, and a boolean tensor, both `(B, S)`
        or `(1, S)`.

    Raises:
        ValueError: `positions` is None, and more real steps are counted.
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
    elif seen is not None and seen.any():
        raise ValueError(message)
    return ops.clip(positions, 0, max_length - 1), is_beyond


def position_angles(positions: TensorLike, width: int, max_wavelength: float) -> Tensor:
    """Return the angles `(B, S, D/2)` of integer positions `(B, S)`, in float32."""
    pairs = ops.arange(width // 2, dtype="float32")
    speeds = ops.exp(pairs * (-2 / width * ops.log(max_wavelength)))  # D/2
    return ops.expand_dims(ops.cast(positions, "float32"), -1) * speeds


def join_pairs(first: Tensor, second: Tensor, layout: str) -> Tensor:
    """Join the first and second features of pairs along the last axis."""
    if layout == "halves":
        return ops.concatenate([first, second], axis=-1)
    shape = (*ops.shape(first)[:-1], 2 * first.shape[-1])
    return ops.reshape(ops.stack([first, second], axis=-1), shape)


def check_even(width: int) -> None:
    """Raise unless the width is even, as pairs of features need."""
    if width % 2:
        raise ValueError(
            "Positions are encoded in pairs of features, so the last axis, the "
            f"`width` of a model, must be even. Received: size {width}."
        )


def prefix_positions(mask: Tensor | None, prefix: Tensor) -> Tensor:
    """Return the positions `(B, S)` of a prefix, whose last real step is at -1.

    Without a mask, the shape of `prefix` is used: `(B, S, D)` or `(B, N, S, C)`.
    """
    if mask is None:
        rows, length = ops.shape(prefix)[0], ops.shape(prefix)[-2]
        positions = ops.expand_dims(ops.arange(length, dtype="int32") - length, 0)
        return ops.broadcast_to(positions, (rows, length))
    count = ops.sum(ops.cast(mask, "int32"), axis=1, keepdims=True)
    return step_positions(mask, ops.shape(mask)[1]) - count
