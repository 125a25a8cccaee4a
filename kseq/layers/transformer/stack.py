"""What the blocks and stacks of a Transformer have in common.

Axes in shape comments: B batch, S steps, H heads, D features.
"""

import keras

from kseq.layers.composition import Composite
from kseq.layers.dropout import Dropout
from kseq.layers.masking import apply_mask
from kseq.layers.positions import serialize_positions
from kseq.layers.rotary_positions import make_rotary
from kseq.layers.transformer.feed_forward import FeedForward
from kseq.layers.transformer.multi_head_attention import MultiHeadAttention
from kseq.layers.validation import (
    optional_positive_integer,
    positive_integer,
    positive_number,
    rate,
    sequence_shape,
)


class TransformerLayer(Composite):
    """What the blocks and stacks of the Transformer have in common: their options.

    The arguments are those of `TransformerEncoder`.
    """

    def __init__(
        self,
        num_heads=8,
        intermediate_dim=None,
        norm_first=True,
        activation="relu",
        dropout=0.0,
        attention_dropout=0.0,
        num_key_value_heads=None,
        rotary=False,
        relative_bias=None,
        epsilon=1e-5,
        **kwargs,
    ):
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
        make_rotary(rotary, self.dtype_policy)  # refuses what is none
        self.rotary = rotary
        self.relative_bias = relative_bias
        self.epsilon = positive_number("epsilon", epsilon)
        self.dropout_layer = Dropout(dropout, dtype=self.dtype_policy)
        self.supports_masking = True

    def options(self):
        """The arguments, for the blocks of a stack, as they were given."""
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

    def get_config(self):
        bias = self.relative_bias
        return {
            **super().get_config(),
            **self.options(),
            "activation": keras.activations.serialize(self.activation),
            "rotary": serialize_positions(self.rotary),
            "relative_bias": bias and keras.saving.serialize_keras_object(bias),
        }

    @classmethod
    def from_config(cls, config):
        restore = keras.saving.deserialize_keras_object
        layers = {name: restore(config[name]) for name in ("rotary", "relative_bias")}
        return cls(**{**config, **layers})

    def make_attention(self, name, reads_itself=True):
        """Multi-head attention with the options that concern it."""
        own = {"rotary": self.rotary, "relative_bias": self.relative_bias}
        return MultiHeadAttention(
            self.num_heads,
            num_key_value_heads=self.num_key_value_heads,
            dropout=self.attention_dropout,
            dtype=self.dtype_policy,
            name=name,
            **(own if reads_itself else {}),
        )

    def make_norm(self, name):
        return keras.layers.LayerNormalization(
            epsilon=self.epsilon, dtype=self.dtype_policy, name=name
        )

    def make_feed_forward(self, width):
        return FeedForward(
            self.intermediate_dim or 4 * width,
            self.activation,
            self.dropout,
            dtype=self.dtype_policy,
            name="feed_forward",
        )

    def residual(self, norm, x, part, training=False):
        """`x + part(norm(x))`, or `norm(x + part(x))`, and what else `part` returns."""
        y, *more = part(norm(x) if self.norm_first else x)
        x = x + self.dropout_layer(y, training=training)
        return (x if self.norm_first else norm(x)), *more


class TransformerStack(TransformerLayer):
    """What encoder and decoder have in common: width, blocks, and the last norm."""

    def __init__(self, num_layers, width, final_norm, *options, **kwargs):
        super().__init__(*options, **kwargs)
        self.num_layers = positive_integer("num_layers", num_layers)
        self.width = optional_positive_integer("width", width)
        self.final_norm = final_norm

    def build_stack(self, inputs_shape, make_block, *other_shapes):
        """Builds the projection to the width, where it is needed, blocks and norm."""
        sequence_shape("inputs", inputs_shape)
        width = self.width or inputs_shape[-1]
        self.projection = None
        if width != inputs_shape[-1]:
            self.projection = keras.layers.Dense(
                width, dtype=self.dtype_policy, name="projection"
            )
            self.projection.build(inputs_shape)
        shape = (*inputs_shape[:-1], width)
        self.blocks = [make_block(name=f"block_{i}") for i in range(self.num_layers)]
        for block in self.blocks:
            block.build(shape, *other_shapes)
        self.norm = None
        if self.norm_first if self.final_norm is None else self.final_norm:
            self.norm = self.make_norm("final_norm")
            self.norm.build(shape)

    def enter(self, inputs, mask=None, training=False):
        """What the first block reads."""
        inputs = apply_mask(inputs, mask)
        if self.projection is not None:
            inputs = self.projection(inputs)
        return self.dropout_layer(inputs, training=training)

    def leave(self, x):
        """What the stack returns, from what the last block says."""
        return x if self.norm is None else self.norm(x)

    def get_config(self):
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "width": self.width,
            "final_norm": self.final_norm,
        }
