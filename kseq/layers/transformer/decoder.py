"""The Transformer's decoder: a stack of blocks that write a sequence.

Axes in shape comments: B batch, T target steps, S source steps, K beams, L cached
steps, H heads, N key heads, C size of a head, D features, U width.
"""

import keras
from keras import ops

from kseq.layers.composition import freeze_parts
from kseq.layers.decoder import Decoder
from kseq.layers.masking import apply_mask, step_mask
from kseq.layers.transformer.decoder_block import TransformerDecoderBlock
from kseq.layers.transformer.stack import TransformerStack
from kseq.layers.validation import (
    check_hypotheses,
    positive_integer,
    same_rows,
    sequence_shape,
)


@keras.saving.register_keras_serializable(package="kseq")
class TransformerDecoder(TransformerStack, Decoder):
    """A stack of Transformer blocks that write a sequence step by step.

    A step sees itself, the steps before it and the memory. With `cross_attention` the
    blocks read the memory by an attention of its own, as in the paper. Without, the
    decoder is a language model; a memory then stands before its inputs as a prefix,
    every step of which sees the whole prefix, or with `causal_prefix` what comes before
    it, as if prefix and inputs were one text.

    Args:
        num_layers: Number of blocks on top of each other.
        num_heads: Number of attention heads H.
        width: Size U of the vectors. Defaults to that of the input, which is projected
            where it has another.
        intermediate_dim: Width inside the feed-forward networks. Defaults to four times
            the width.
        cross_attention: Whether the blocks read the memory by cross-attention.
        norm_first: Whether to normalise the input of each part (pre-norm, which trains
            without warm-up), or its sum with the output (post-norm, as in the paper).
        final_norm: Whether to normalise the last output. Defaults to `norm_first`.
        activation: Activation of the feed-forward networks.
        dropout: Share of the features to drop in training: of the input, of the output
            of each part and inside the feed-forward networks.
        attention_dropout: Share of the attention weights to drop in training.
        num_key_value_heads: Number of heads of keys and values, see
            `MultiHeadAttention`. Few make the cache of a search small.
        rotary: Whether self-attention rotates queries and keys by position, or the
            layer `RotaryPositions` that does it, as on a grid.
        relative_bias: Layer that gives a bias of self-attention by distance, shared by
            the blocks, see `MultiHeadAttention`.
        epsilon: Added to the variance by the norms.
        causal_prefix: Whether a step of a prefix sees no later one.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, T, D)`, the embedded target, shifted right (teacher forcing).
        memory: `(B, S, D_m)`, the encoder's outputs; optional without
            `cross_attention`.
        memory_mask: Boolean `(B, S)`, True where the memory may be read. Defaults to
            the Keras mask of `memory`.
        initial_state: The final states of a recurrent encoder, of which a Transformer
            makes no use.
        inputs_mask: Boolean `(B, T)`, True where an input may be read. Defaults to the
            Keras mask of `inputs`.
        return_attention_scores: Whether to return the weights as well.
        return_prefix: Whether to return the outputs at the steps of the prefix as well,
            last.

    Returns:
        `(B, T, U)`, or `(outputs, weights)` with the weights over the memory
        `(B, num_layers, H, T, S)`; without cross-attention over memory and inputs
        `(B, num_layers, H, T, S + T)`, of which a model's `generate` returns the first
        S. Of the prefix `(B, S, U)`.

    Raises:
        ValueError: The width does not divide by `num_heads`, a size is not positive, a
            rate is not in [0, 1), cross-attention lacks a memory, or there is
            cross-attention, or no memory, where a prefix is needed.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.layers import TransformerDecoder
    >>> decoder = TransformerDecoder(num_layers=2, num_heads=2)
    >>> inputs, memory = np.ones((2, 4, 6)), np.ones((2, 7, 8))
    >>> outputs = decoder(inputs, memory)
    >>> tuple(outputs.shape)
    (2, 4, 6)

    The same, one step at a time, as a search does:

    >>> state, constants = decoder.start(memory, max_length=4)
    >>> output, state = decoder.step(inputs[:, :1], state, constants)
    >>> difference = keras.ops.abs(output[:, 0] - outputs[:, 0])
    >>> bool(keras.ops.max(difference) < 1e-5)
    True

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), 3
        - [Liu et al., 2018](https://arxiv.org/abs/1801.10198), 4.2.3 (decoder only)
        - [Raffel et al., 2020](https://arxiv.org/abs/1910.10683), 3.2.1 (prefix)
    """

    def __init__(
        self,
        num_layers=2,
        num_heads=8,
        width=None,
        intermediate_dim=None,
        cross_attention=True,
        norm_first=True,
        final_norm=None,
        activation="relu",
        dropout=0.0,
        attention_dropout=0.0,
        num_key_value_heads=None,
        rotary=False,
        relative_bias=None,
        epsilon=1e-5,
        causal_prefix=False,
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
        self.cross_attention = bool(cross_attention)
        self.causal_prefix = bool(causal_prefix)
        if self.causal_prefix and self.cross_attention:
            raise ValueError(
                "A memory is a prefix where the decoder has no attention of its own "
                "for it. Received: causal_prefix=True with cross_attention=True. Add "
                "`cross_attention=False`."
            )

    @property
    def attends(self):
        return self.cross_attention

    def build(self, inputs_shape, memory_shape=None):
        if self.cross_attention and memory_shape is None:
            raise ValueError(
                "A decoder with cross-attention needs a memory, shape (B, S, D). "
                "Received: memory=None. Build a language model with "
                "`cross_attention=False`."
            )

        def make_block(name):
            return TransformerDecoderBlock(
                self.cross_attention,
                **self.options(),
                dtype=self.dtype_policy,
                name=name,
            )

        self.build_stack(
            inputs_shape, make_block, *([memory_shape] if self.cross_attention else [])
        )
        self.memory_projection = None
        width = self.width or inputs_shape[-1]
        if memory_shape is not None and not self.cross_attention:
            if memory_shape[-1] != width:
                self.memory_projection = keras.layers.Dense(
                    width, dtype=self.dtype_policy, name="memory_projection"
                )
                self.memory_projection.build(memory_shape)
        freeze_parts(self)

    def compute_output_shape(
        self, inputs_shape, memory_shape=None, initial_state_shape=None
    ):
        width = self.width or sequence_shape("inputs", inputs_shape)[-1]
        return (*inputs_shape[:-1], width)

    def call(
        self,
        inputs,
        memory=None,
        memory_mask=None,
        initial_state=None,
        inputs_mask=None,
        return_attention_scores=False,
        return_prefix=False,
        training=False,
    ):
        if memory is not None:
            same_rows("memory", memory.shape, "inputs", inputs.shape)
        constants, prefix = self._constants(memory, memory_mask, training)
        if return_prefix and prefix is None:
            raise ValueError(
                "A prefix is a memory that a decoder reads without cross-attention. "
                "Received: return_prefix=True with cross_attention="
                f"{self.cross_attention}, memory={memory}. Leave `return_prefix` out, "
                "or give a memory to a decoder with `cross_attention=False`."
            )
        mask = step_mask(inputs_mask, inputs)
        x = self.enter(inputs, mask, training)  # B T U
        weights = []
        for block, own in zip(self.blocks, constants["layers"], strict=True):
            x, scores = block.run(
                x, own, constants.get("mask"), mask, training, return_attention_scores
            )
            weights.append(scores)
        outputs = [self.leave(x)]
        if return_attention_scores:
            outputs.append(ops.stack(weights, axis=1))
        if return_prefix:
            outputs.append(self.leave(prefix))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def start(
        self,
        memory,
        memory_mask=None,
        initial_state=None,
        num_beams=1,
        max_length=None,
    ):
        """Prepares the caches and what stays the same at every step.

        Args:
            memory: `(B, S, D_m)`, the encoder's outputs. S may be 0 without
                cross-attention.
            memory_mask: Boolean `(B, S)`, True where the memory may be read.
            initial_state: Not used.
            num_beams: Number of hypotheses K that ride on each row.
            max_length: Most steps L that will be taken.

        Returns:
            `(state, constants)`: trees of tensors `(B, K, ...)` and `(B, ...)`. The
            caches stand under the key `"shared"` of the state: their shape is
            `(B, ...)`, and they are not reordered with the hypotheses, whose `lineage`
            says where in them to read.

        Raises:
            ValueError: `max_length` is not a positive integer.
        """
        length = positive_integer("max_length", max_length)
        memory = ops.convert_to_tensor(memory, self.compute_dtype)
        rows = ops.shape(memory)[0]
        state = {
            "positions": ops.zeros((rows, num_beams), "int32"),
            "lineage": ops.full((rows, num_beams, length), -1, "int32"),
            "shared": [
                block.attention.start_cache(rows, num_beams, length)
                for block in self.blocks
            ],
        }
        constants, _ = self._constants(memory, memory_mask)
        return state, constants

    def step(self, inputs, state, constants, return_attention_scores=False):
        """Writes one step for every hypothesis.

        Args:
            inputs: `(B, K, D)`, the embedded last token of each hypothesis.
            state: Tree of tensors, from `start` or the last step.
            constants: Tree of tensors `(B, ...)`, from `start`.
            return_attention_scores: Whether to return what each beam has read of the
                memory as well, which needs cross-attention.

        Returns:
            `(outputs (B, K, U), state)`, or `(outputs, state, weights)` with weights
            `(B, num_layers, H, K, S)`.

        Raises:
            ValueError: The inputs are not one vector for each hypothesis of the state,
                or attention scores are asked of a decoder without cross-attention.
        """
        if return_attention_scores and not self.cross_attention:
            raise ValueError(
                "The attention of a step needs cross-attention. Received: "
                "return_attention_scores=True on a decoder with cross_attention=False."
            )
        inputs = ops.convert_to_tensor(inputs, self.compute_dtype)
        check_hypotheses(inputs.shape, state["positions"].shape)
        positions, mask = state["positions"], constants.get("mask")
        _, beams, length = state["lineage"].shape
        is_newest = ops.arange(length, dtype="int32") == ops.expand_dims(
            positions, -1
        )  # B K L
        itself = ops.expand_dims(ops.arange(beams, dtype="int32"), -1)  # K 1
        lineage = ops.where(is_newest, itself, state["lineage"])  # B K L
        x = self.enter(inputs)  # B K U
        caches, weights = [], []
        for block, cache, own in zip(
            self.blocks, state["shared"], constants["layers"], strict=True
        ):
            x, read, cache = block.step(
                x, cache, lineage, positions, own, mask, return_attention_scores
            )
            caches.append(cache)
            weights.append(read)
        state = {"positions": positions + 1, "lineage": lineage, "shared": caches}
        if not return_attention_scores:
            return self.leave(x), state
        return self.leave(x), state, ops.stack(weights, axis=1)

    def _constants(self, memory, memory_mask, training=False):
        """The memory's keys and values `(B, N, S, C)` of each block, and its mask.

        What the last block makes of a prefix, `(B, S, U)`, comes second, or None.
        """
        if memory is None or (memory.shape[1] == 0 and not self.cross_attention):
            return {"layers": [{} for _ in self.blocks]}, None
        constants = {"layers": []}
        if memory_mask is not None:
            constants["mask"] = step_mask(memory_mask, memory)
            memory = apply_mask(memory, memory_mask)
        if self.cross_attention:
            constants["layers"] = [b.project_memory(memory) for b in self.blocks]
            return constants, None
        if self.memory_projection is not None:
            memory = self.memory_projection(memory)
        for block in self.blocks:
            memory, own = block.run_prefix(
                memory, constants.get("mask"), training, self.causal_prefix
            )
            constants["layers"].append(own)
        return constants, memory

    def get_config(self):
        return {
            **super().get_config(),
            "cross_attention": self.cross_attention,
            "causal_prefix": self.causal_prefix,
        }
