"""Block of a Transformer encoder: self-attention and a feed-forward network.

Axes in shape comments: B batch, S source steps, H heads, D features.
"""

import keras
from keras import ops

from kseq.layers.composition import freeze_parts
from kseq.layers.masking import apply_mask, check_attention_mask, combine_masks
from kseq.layers.positions import step_positions
from kseq.layers.transformer.stack import TransformerLayer
from kseq.layers.validation import sequence_shape
from kseq.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class TransformerEncoderBlock(TransformerLayer):
    """One Transformer encoder layer: self-attention, then a feed-forward network.

    With `norm_first`, `x + attention(norm(x))` and then `x + feed_forward(norm(x))`;
    without, `norm(x + attention(x))` and then `norm(x + feed_forward(x))`.

    Args:
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
        sequences: `(B, S, D)`.
        mask: Boolean `(B, S)`, True where a step may be read. Defaults to the Keras
            mask of `sequences`, which the outputs keep.
        attention_mask: Boolean `(B, S, S)` or `(S, S)`, True where a step (the second
            axis from the right) may read another (the last axis).
        return_attention_scores: Whether to return the weights as well.

    Returns:
        `(B, S, D)`, or `(outputs, weights)` with weights `(B, H, S, S)`.

    Raises:
        ValueError: The width does not divide by `num_heads`, a size is not positive, or
            a rate is not in [0, 1).

    Example:

    >>> import numpy as np
    >>> from kseq.layers import TransformerEncoderBlock
    >>> tuple(TransformerEncoderBlock(num_heads=2)(np.ones((2, 7, 6))).shape)
    (2, 7, 6)

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), 3.1
        - [Xiong et al., 2020](https://arxiv.org/abs/2002.04745), 3 (where to normalize)
    """

    def build(self, sequences_shape: Shape) -> None:
        self.attention = self.make_attention("attention")
        self.attention_norm = self.make_norm("attention_norm")
        self.feed_forward = self.make_feed_forward(sequences_shape[-1])
        self.feed_forward_norm = self.make_norm("feed_forward_norm")
        for part in (self.attention, self.attention_norm, self.feed_forward):
            part.build(sequences_shape)
        self.feed_forward_norm.build(sequences_shape)
        freeze_parts(self)

    def compute_output_shape(self, sequences_shape: Shape) -> Shape:
        return sequence_shape("sequences", sequences_shape)

    def call(
        self,
        sequences: Tensor,
        mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        training: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        positions = step_positions(mask, ops.shape(sequences)[1])
        sequences = apply_mask(sequences, mask)
        check_attention_mask(attention_mask, sequences, sequences)
        bias = self.attention.bias_between(positions, positions)
        mask = combine_masks(
            attention_mask, None if mask is None else ops.expand_dims(mask, 1)
        )  # B S S

        def read(y):
            queries, keys, values = self.attention.project(y, positions)
            return self.attention.attend(
                queries, keys, values, mask, bias, training, return_attention_scores
            )

        x, weights = self.residual(self.attention_norm, sequences, read, training)
        (x,) = self.residual(
            self.feed_forward_norm,
            x,
            lambda y: (self.feed_forward(y, training=training),),
            training,
        )
        return (x, weights) if return_attention_scores else x
