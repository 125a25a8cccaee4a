"""Base classes of the blocks and stacks of a Transformer.

Axes in shape comments: B batch, S steps, H heads, D features.
"""

from collections.abc import Callable
from typing import Any, Self

import keras

from kseq.layers.composition import Composite
from kseq.layers.dropout import Dropout
from kseq.layers.masking import apply_mask
from kseq.layers.positions import serialize_positions
from kseq.layers.rotary_positions import RotaryPositions, make_rotary
from kseq.layers.transformer.feed_forward import FeedForward
from kseq.layers.transformer.multi_head_attention import MultiHeadAttention
from kseq.layers.validation import (
    optional_positive_integer,
    positive_integer,
    positive_number,
    rate,
    sequence_shape,
)
from kseq.typing import Activation, Config, Shape, Tensor


class TransformerLayer(Composite):
    """Base of the blocks and stacks, with the options that they share.

    The arguments are those of `TransformerEncoder`.
    """

    def __init__(
        self,
        num_heads: int = 8,
        intermediate_dim: int | None = None,
        norm_first: bool = True,
        activation: Activation = "relu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        num_key_value_heads: int | None = None,
        rotary: bool | RotaryPositions = False,
        relative_bias: keras.layers.Layer | None = None,
        epsilon: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = positive_integer("num_heads", num_heads)
        self.intermediate_dim = optional_positive_integer(
            "intermediate_dim", intermediate_dim
        )
        self.norm_first = bool(norm_first)
        self.activation = keras.activations.get(activation)
        self.dropout = rate("dropout", dropout)
        self.attention_dropout = rate("attention_dropout", attention_dropout)
        self.num_key_value_heads = optional_positive_integer(
            "num_key_value_heads", num_key_value_heads
        )
        make_rotary(rotary, self.dtype_policy)  # raises unless it is valid
        self.rotary = rotary
        self.relative_bias = relative_bias
        self.epsilon = positive_number("epsilon", epsilon)
        self.dropout_layer = Dropout(dropout, dtype=self.dtype_policy)
        self.supports_masking = True

    def options(self) -> dict[str, Any]:
        """Return the arguments as they were given, for the blocks of a stack."""
        return {
            "num_heads": self.num_heads,
            "intermediate_dim": self.intermediate_dim,
            "norm_first": self.norm_first,
            "activation": self.activation,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "num_key_value_heads": self.num_key_value_heads,
            "rotary": self.rotary,
            "relative_bias": self.relative_bias,
            "epsilon": self.epsilon,
        }

    def get_config(self) -> Config:
        bias = self.relative_bias
        return {
            **super().get_config(),
            **self.options(),
            "activation": keras.activations.serialize(self.activation),
            "rotary": serialize_positions(self.rotary),
            "relative_bias": bias and keras.saving.serialize_keras_object(bias),
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        restore = keras.saving.deserialize_keras_object
        layers = {name: restore(config[name]) for name in ("rotary", "relative_bias")}
        return cls(**{**config, **layers})

    def make_attention(
        self, name: str, reads_itself: bool = True
    ) -> MultiHeadAttention:
        """Return multi-head attention with the options that apply to it.

        Rotary positions and relative bias apply only to self-attention, that is, with
        `reads_itself`.
        """
        own: dict[str, Any] = {
            "rotary": self.rotary,
            "relative_bias": self.relative_bias,
        }
        return MultiHeadAttention(
            self.num_heads,
            num_key_value_heads=self.num_key_value_heads,
            dropout=self.attention_dropout,
            dtype=self.dtype_policy,
            name=name,
            **(own if reads_itself else {}),
        )

    def make_norm(self, name: str) -> keras.layers.LayerNormalization:
        return keras.layers.LayerNormalization(
            epsilon=self.epsilon, dtype=self.dtype_policy, name=name
        )

    def make_feed_forward(self, width: int | None) -> FeedForward:
        return FeedForward(
            self.intermediate_dim or 4 * width,  # type: ignore[operator]
            self.activation,
            self.dropout,
            dtype=self.dtype_policy,
            name="feed_forward",
        )

    def residual(
        self,
        norm: keras.layers.Layer,
        x: Tensor,
        part: Callable[[Tensor], tuple[Any, ...]],
        training: bool = False,
    ) -> tuple[Any, ...]:
        """Return `x + part(norm(x))` or `norm(x + part(x))`, a residual connection.

        `part` returns a tuple, of which the rest is returned as well.
        """
        y, *more = part(norm(x) if self.norm_first else x)
        x = x + self.dropout_layer(y, training=training)
        return (x if self.norm_first else norm(x)), *more


class TransformerStack(TransformerLayer):
    """Base of encoder and decoder: width, blocks, and the final norm."""

    def __init__(
        self,
        num_layers: int,
        width: int | None,
        final_norm: bool | None,
        *options: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(*options, **kwargs)
        self.num_layers = positive_integer("num_layers", num_layers)
        self.width = optional_positive_integer("width", width)
        self.final_norm = final_norm

    def build_stack(
        self,
        inputs_shape: Shape,
        make_block: Callable[[str], keras.layers.Layer],
        *other_shapes: Shape | None,
    ) -> None:
        """Build the projection to the width, if it is needed, the blocks and the norm.

        Args:
            inputs_shape: `(B, S, D)`.
            make_block: Function that returns a block of the given name.
            *other_shapes: The other shapes that a block is built with.
        """
        sequence_shape("inputs", inputs_shape)
        width = self.width or inputs_shape[-1]
        self.projection = None
        if width != inputs_shape[-1]:
            self.projection = keras.layers.Dense(
                width, dtype=self.dtype_policy, name="projection"
            )
            self.projection.build(inputs_shape)
        shape = (*inputs_shape[:-1], width)
        self.blocks = [make_block(f"block_{i}") for i in range(self.num_layers)]
        for block in self.blocks:
            block.build(shape, *other_shapes)
        self.norm = None
        if self.norm_first if self.final_norm is None else self.final_norm:
            self.norm = self.make_norm("final_norm")
            self.norm.build(shape)

    def enter(
        self, inputs: Tensor, mask: Tensor | None = None, training: bool = False
    ) -> Tensor:
        """Return the input of the first block: masked, projected, with dropout."""
        inputs = apply_mask(inputs, mask)
        if self.projection is not None:
            inputs = self.projection(inputs)
        return self.dropout_layer(inputs, training=training)

    def leave(self, x: Tensor) -> Tensor:
        """Return the output of the last block, normalized if there is a final norm."""
        return x if self.norm is None else self.norm(x)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "width": self.width,
            "final_norm": self.final_norm,
        }
