"""The Transformer's encoder: a stack of blocks that read a sequence.

Axes in shape comments: B batch, S steps, H heads, D features, U width.
"""

import keras
from keras import ops

from kseq.layers.composition import freeze_parts
from kseq.layers.masking import step_mask
from kseq.layers.transformer.encoder_block import TransformerEncoderBlock
from kseq.layers.transformer.stack import TransformerStack
from kseq.layers.validation import sequence_shape


@keras.saving.register_keras_serializable(package="kseq")
class TransformerEncoder(TransformerStack):
    """A stack of Transformer blocks that read a sequence, every step all others.

    It knows no order by itself: give the embedding `positions`, or set `rotary`.

    Args:
        num_layers: Number of blocks on top of each other.
        num_heads: Number of attention heads H.
        width: Size U of the vectors. Defaults to that of the input, which is projected
            where it has another.
        intermediate_dim: Width inside the feed-forward networks. Defaults to four times
            the width.
        norm_first: Whether to normalise the input of each part (pre-norm, which trains
            without warm-up), or its sum with the output (post-norm, as in the paper).
        final_norm: Whether to normalise the last output. Defaults to `norm_first`.
        activation: Activation of the feed-forward networks.
        dropout: Share of the features to drop in training: of the input, of the output
            of each part and inside the feed-forward networks.
        attention_dropout: Share of the attention weights to drop in training.
        num_key_value_heads: Number of heads of keys and values, see
            `MultiHeadAttention`.
        rotary: Whether attention rotates queries and keys by position, or the
            layer `RotaryPositions` that does it, as on a grid.
        relative_bias: Layer that gives a bias of the scores by distance, shared by the
            blocks, see `MultiHeadAttention`.
        epsilon: Added to the variance by the norms.
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
        - [Xiong et al., 2020](https://arxiv.org/abs/2002.04745), 3 (where to normalise)
    """

    def __init__(
        self,
        num_layers=2,
        num_heads=8,
        width=None,
        intermediate_dim=None,
        norm_first=True,
        final_norm=None,
        activation="relu",
        dropout=0.0,
        attention_dropout=0.0,
        num_key_value_heads=None,
        rotary=False,
        relative_bias=None,
        epsilon=1e-5,
        **kwargs,
    ):
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

    def build(self, sequences_shape):
        def make_block(name):
            return TransformerEncoderBlock(
                **self.options(), dtype=self.dtype_policy, name=name
            )

        self.build_stack(sequences_shape, make_block)
        freeze_parts(self)

    def compute_output_shape(self, sequences_shape):
        width = self.width or sequence_shape("sequences", sequences_shape)[-1]
        return (*sequences_shape[:-1], width)

    def call(self, sequences, mask=None, return_attention_scores=False, training=False):
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
