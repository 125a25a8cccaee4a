"""Transformer encoder: a stack of blocks.

Axes in shape comments: B batch, S steps, H heads, D features, U width.
"""

from typing import Any

import keras
from keras import ops

from kseq.layers.composition import freeze_parts
from kseq.layers.masking import step_mask
from kseq.layers.rotary_positions import RotaryPositions
from kseq.layers.transformer.encoder_block import TransformerEncoderBlock
from kseq.layers.transformer.stack import TransformerStack
from kseq.layers.validation import sequence_shape
from kseq.typing import Activation, Shape, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class TransformerEncoder(TransformerStack):
    """A stack of Transformer blocks, in which every step reads all others.

    The encoder does not know the order of the steps: use an embedding with `positions`,
    or set `rotary`.

    Args:
        num_layers: Number of stacked blocks.
        num_heads: Number of attention heads H.
        width: Size U of the vectors. Defaults to that of the input; an input of another
            size is projected.
        intermediate_dim: Width inside the feed-forward networks. Defaults to four times
            the width.
        norm_first: Whether to normalize the input of each sublayer (pre-norm, which
            trains without warm-up), or else the sum of its input and output (post-norm,
            as in the paper).
        final_norm: Whether to normalize the last output. Defaults to `norm_first`.
        activation: Activation of the feed-forward networks.
        dropout: Fraction of the features to drop in training: of the input, of the
            output of each sublayer and inside the feed-forward networks.
        attention_dropout: Fraction of the attention weights to drop in training.
        num_key_value_heads: Number of heads of keys and values, see
            `MultiHeadAttention`.
        rotary: Whether attention rotates queries and keys by position, or a
            `RotaryPositions` layer that does it, for example on a grid.
        relative_bias: Layer that returns a bias of the scores for each distance, shared
            by the blocks, see `MultiHeadAttention`.
        epsilon: Number that the norms add to the variance.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        mask: Boolean `(B, S)`, True where a step may be read. Defaults to the Keras
            mask of `sequences`, which the outputs keep.
        return_attention_scores: Whether to return the weights as well.

    Returns:
        `(B, S, U)`, or `(outputs, weights)` with weights `(B, num_layers, H, S, S)`.

    Raises:
        ValueError: The width does not divide by `num_heads`, a size is not positive, or
            a rate is not in [0, 1).

    Example:

    >>> import numpy as np
    >>> from kseq.layers import TransformerEncoder
    >>> encoder = TransformerEncoder(num_layers=2, num_heads=2, width=8)
    >>> tuple(encoder(np.ones((2, 7, 5))).shape)
    (2, 7, 8)

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), 3
        - [Xiong et al., 2020](https://arxiv.org/abs/2002.04745), 3 (where to normalize)
    """

    def __init__(
        self,
        num_layers: int = 2,
        num_heads: int = 8,
        width: int | None = None,
        intermediate_dim: int | None = None,
        norm_first: bool = True,
        final_norm: bool | None = None,
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
            num_layers,
            width,
            final_norm,
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

    def build(self, sequences_shape: Shape) -> None:
        def make_block(name):
            return TransformerEncoderBlock(
                **self.options(), dtype=self.dtype_policy, name=name
            )

        self.build_stack(sequences_shape, make_block)
        freeze_parts(self)

    def compute_output_shape(self, sequences_shape: Shape) -> Shape:
        width = self.width or sequence_shape("sequences", sequences_shape)[-1]
        return (*sequences_shape[:-1], width)

    def call(
        self,
        sequences: Tensor,
        mask: Tensor | None = None,
        return_attention_scores: bool = False,
        training: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        mask = step_mask(mask, sequences)
        x = self.enter(sequences, mask, training)  # B S U
        weights = []
        for block in self.blocks:
            x = block(
                x,
                mask=mask,
                return_attention_scores=return_attention_scores,
                training=training,
            )
            if return_attention_scores:
                x, scores = x
                weights.append(scores)
        x = self.leave(x)
        return (x, ops.stack(weights, axis=1)) if return_attention_scores else x
