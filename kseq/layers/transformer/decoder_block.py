"""Block of a Transformer decoder: two attentions and a feed-forward network.

Axes in shape comments: B batch, T target steps, S source steps, K beams, L cached
steps, H heads, N key heads, C size of a head, D features.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kseq.layers.composition import freeze_parts
from kseq.layers.masking import apply_mask, combine_masks, look_ahead_mask
from kseq.layers.positions import prefix_positions, step_positions
from kseq.layers.rotary_positions import RotaryPositions
from kseq.layers.transformer.cache import Cache
from kseq.layers.transformer.stack import TransformerLayer
from kseq.layers.validation import same_rows, sequence_shape
from kseq.typing import Activation, Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class TransformerDecoderBlock(TransformerLayer):
    """One Transformer decoder layer.

    It has causal self-attention, attention to a memory, and a feed-forward network,
    each with a residual connection and a norm, as in `TransformerEncoderBlock`. Without
    `cross_attention` there is no memory, as in a language model.

    Args:
        cross_attention: Whether the block reads a memory.
        num_heads: Number of attention heads H.
        intermediate_dim: Width inside the feed-forward network. Defaults to four times
            the width D.
        norm_first: Whether to normalize the input of each sublayer, or else the sum of
            its input and output.
        activation: Activation of the feed-forward network.
        dropout: Fraction of the features to drop in training: of the output of each
            sublayer and inside the feed-forward network.
        attention_dropout: Fraction of the attention weights to drop in training.
        num_key_value_heads: Number of key heads, see `MultiHeadAttention`.
        rotary: Whether self-attention rotates queries and keys by position, or a
            `RotaryPositions` layer that does it, for example on a grid.
        relative_bias: Layer that returns the bias of self-attention for each distance,
            see `MultiHeadAttention`.
        epsilon: Number that the norms add to the variance.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, T, D)`.
        memory: `(B, S, D_m)`, or None without cross-attention.
        memory_mask: Boolean `(B, S)`, True where the memory may be read. Defaults to
            the Keras mask of `memory`.
        inputs_mask: Boolean `(B, T)`, True where an input may be read. Defaults to the
            Keras mask of `inputs`.
        return_attention_scores: Whether to return the weights as well.

    Returns:
        `(B, T, D)`, or `(outputs, weights)` with the weights of the memory
        `(B, H, T, S)`, or without a memory those of the inputs `(B, H, T, T)`.

    Raises:
        ValueError: There is cross-attention but no memory, or the reverse.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import TransformerDecoderBlock
    >>> block = TransformerDecoderBlock(num_heads=2)
    >>> tuple(block(np.ones((2, 5, 6)), np.ones((2, 7, 4))).shape)
    (2, 5, 6)

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), 3.1
    """

    def __init__(
        self,
        cross_attention: bool = True,
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
        super().__init__(
            num_heads,
            intermediate_dim,
            norm_first,
            activation,
            dropout,
            attention_dropout,
            num_key_value_heads,
            rotary,
            relative_bias,
            epsilon,
            **kwargs,
        )
        self.cross_attention = bool(cross_attention)

    def build(self, inputs_shape: Shape, memory_shape: Shape | None = None) -> None:
        if self.cross_attention != (memory_shape is not None):
            raise ValueError(
                "A block needs a memory if, and only if, it has cross-attention. "
                f"Received: cross_attention={self.cross_attention} with "
                f"memory_shape={memory_shape}."
            )
        self.attention = self.make_attention("attention")
        self.attention_norm = self.make_norm("attention_norm")
        self.feed_forward = self.make_feed_forward(inputs_shape[-1])
        self.feed_forward_norm = self.make_norm("feed_forward_norm")
        for part in (self.attention, self.attention_norm, self.feed_forward):
            part.build(inputs_shape)
        self.feed_forward_norm.build(inputs_shape)
        if self.cross_attention:
            self.memory_attention = self.make_attention("memory_attention", False)
            self.memory_attention.build(inputs_shape, memory_shape)
            self.memory_norm = self.make_norm("memory_norm")
            self.memory_norm.build(inputs_shape)
        freeze_parts(self)

    def compute_output_shape(
        self, inputs_shape: Shape, memory_shape: Shape | None = None
    ) -> Shape:
        return sequence_shape("inputs", inputs_shape)

    def call(
        self,
        inputs: Tensor,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        inputs_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        training: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        inputs = apply_mask(inputs, inputs_mask)
        constants: dict[str, Tensor] = {}
        if memory is not None:
            same_rows("memory", memory.shape, "inputs", inputs.shape)
            constants = self.project_memory(apply_mask(memory, memory_mask))
        x, weights = self.run(
            inputs,
            constants,
            memory_mask,
            inputs_mask,
            training,
            return_attention_scores,
        )
        return (x, weights) if return_attention_scores else x

    def project_memory(self, memory: Tensor) -> dict[str, Tensor]:
        """Return the memory's keys and values, each `(B, N, S, C)`, for all steps."""
        keys, values = self.memory_attention.project_memory(memory)
        return {"keys": keys, "values": values}

    def run(
        self,
        inputs: Tensor,
        memory: dict[str, Tensor],
        memory_mask: Tensor | None = None,
        inputs_mask: Tensor | None = None,
        training: bool = False,
        return_attention_scores: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Run all steps at once.

        Args:
            inputs: `(B, T, D)`.
            memory: Keys and values `(B, N, S, C)`: with cross-attention those of the
                memory, else those of a prefix before the inputs, or empty.
            memory_mask: Boolean `(B, S)`.
            inputs_mask: Boolean `(B, T)`.
            training: Whether to apply dropout.
            return_attention_scores: Whether to return the weights, else None.

        Returns:
            `(outputs (B, T, D), weights)`. The weights are those of the memory
            `(B, H, T, S)`, or without cross-attention those of prefix and inputs
            `(B, H, T, S + T)`.
        """
        prefix = {} if self.cross_attention else memory or {}
        length = ops.shape(inputs)[1]
        positions = read_positions = step_positions(inputs_mask, length)  # B T
        mask: Any = combine_masks(
            look_ahead_mask(length),
            None if inputs_mask is None else ops.expand_dims(inputs_mask, 1),
        )  # B T T
        if prefix:
            earlier = prefix_positions(memory_mask, prefix["keys"])  # B S
            read_positions = _join(earlier, positions)  # B S+T
            real = (
                ops.ones_like(earlier, "bool") if memory_mask is None else memory_mask
            )
            before = ops.repeat(ops.expand_dims(real, 1), length, axis=1)  # B T S
            mask = mask if len(mask.shape) > 2 else ops.expand_dims(mask, 0)
            mask = _join(before, mask)  # B T S+T
        bias = self.attention.bias_between(positions, read_positions)

        def read_inputs(y):
            queries, keys, values = self.attention.project(y, positions)
            if prefix:
                keys = ops.concatenate([prefix["keys"], keys], axis=2)
                values = ops.concatenate([prefix["values"], values], axis=2)
            return self.attention.attend(
                queries,
                keys,
                values,
                mask,
                bias,
                training,
                return_attention_scores and not self.cross_attention,
            )

        return self._run(
            inputs, read_inputs, memory, memory_mask, training, return_attention_scores
        )

    def run_prefix(
        self,
        prefix: Tensor,
        mask: Tensor | None = None,
        training: bool = False,
        is_causal: bool = False,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the prefix, which comes before the inputs.

        Args:
            prefix: `(B, S, D)`, the output of the block below for the prefix.
            mask: Boolean `(B, S)`.
            training: Whether to apply dropout.
            is_causal: Whether a step sees no later steps, or else all steps.

        Returns:
            `(outputs (B, S, D), {"keys", "values"})`, the latter `(B, N, S, C)`.
        """
        positions = prefix_positions(mask, prefix)
        bias = self.attention.bias_between(positions, positions)
        readable = combine_masks(
            None if mask is None else ops.expand_dims(mask, 1),
            look_ahead_mask(ops.shape(prefix)[1]) if is_causal else None,
        )  # B S S

        def read_prefix(y):
            queries, keys, values = self.attention.project(y, positions)
            outputs, _ = self.attention.attend(
                queries, keys, values, readable, bias, training, False
            )
            return outputs, {"keys": keys, "values": values}

        return self._run(prefix, read_prefix, {}, None, training)

    def step(
        self,
        inputs: Tensor,
        cache: Cache,
        lineage: Tensor,
        positions: Tensor,
        memory: dict[str, Tensor],
        memory_mask: Tensor | None = None,
        return_attention_scores: bool = False,
    ) -> tuple[Tensor, Tensor | None, Cache]:
        """Compute one step of every beam.

        Args:
            inputs: `(B, K, D)`.
            cache: Keys and values of the previous steps, from
                `MultiHeadAttention.start_cache`.
            lineage: Integers `(B, K, L)`, as for `MultiHeadAttention.step`.
            positions: Integers `(B, K)`, the number of previous steps.
            memory: As for `run`.
            memory_mask: Boolean `(B, S)`.
            return_attention_scores: Whether to return the weights.

        Returns:
            `(outputs (B, K, D), weights, cache)`, with the cross-attention weights of
            the memory `(B, H, K, S)`, or None.
        """
        prefix = {} if self.cross_attention else memory

        def read_cache(y):
            outputs, new = self.attention.step(
                y, cache, lineage, positions, prefix, memory_mask
            )
            return outputs, None, new

        return self._run(
            inputs,
            read_cache,
            memory,
            memory_mask,
            return_attention_scores=return_attention_scores,
        )

    def _run(
        self,
        x: Tensor,
        read_itself: Callable[[Tensor], tuple[Any, ...]],
        memory: dict[str, Tensor],
        memory_mask: Tensor | None,
        training: bool = False,
        return_attention_scores: bool = False,
    ) -> tuple[Any, ...]:
        """Run the sublayers of the block; axis 1 is the steps or the beams."""
        readable = None if memory_mask is None else ops.expand_dims(memory_mask, 1)

        def read_memory(y):
            queries = self.memory_attention.project_query(y)
            return self.memory_attention.attend(
                queries,
                memory["keys"],
                memory["values"],
                readable,
                training=training,
                return_attention_scores=return_attention_scores,
            )

        x, *read = self.residual(self.attention_norm, x, read_itself, training)
        if self.cross_attention:
            x, read[0] = self.residual(self.memory_norm, x, read_memory, training)
        (x,) = self.residual(
            self.feed_forward_norm,
            x,
            lambda y: (self.feed_forward(y, training=training),),
            training,
        )
        return x, *read

    def get_config(self) -> Config:
        return {**super().get_config(), "cross_attention": self.cross_attention}


def _join(first: Tensor, second: Tensor) -> Tensor:
    """Concatenate on the last axis, with the second broadcast to the first's rows."""
    rows = (ops.shape(first)[0], *ops.shape(second)[1:])
    return ops.concatenate([first, ops.broadcast_to(second, rows)], axis=-1)
