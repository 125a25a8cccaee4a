"""Transformer decoder: a stack of blocks that generates a sequence step by step.

Axes in shape comments: B batch, T target steps, S source steps, K beams, L cached
steps, H heads, N key heads, C size of a head, D features, U width.
"""

from typing import Any

import keras
from keras import ops

from kseq.layers.composition import freeze_parts
from kseq.layers.decoder import Decoder
from kseq.layers.masking import apply_mask, step_mask
from kseq.layers.rotary_positions import RotaryPositions
from kseq.layers.transformer.decoder_block import TransformerDecoderBlock
from kseq.layers.transformer.stack import TransformerStack
from kseq.layers.validation import (
    check_hypotheses,
    positive_integer,
    same_rows,
    sequence_shape,
)
from kseq.typing import Activation, Config, Shape, Tensor, TensorLike, Tree


@keras.saving.register_keras_serializable(package="kseq")
class TransformerDecoder(TransformerStack, Decoder):
    """A stack of Transformer blocks that generates a sequence step by step.

    Each step sees itself, the previous steps and the memory. With `cross_attention` the
    blocks read the memory by a separate attention, as in the paper. Without it the
    decoder is a language model, and a memory becomes a prefix of its inputs. Each step
    of the prefix sees the whole prefix; with `causal_prefix` it sees only itself and
    what comes before it, as if prefix and inputs were one text.

    Args:
        num_layers: Number of stacked blocks.
        num_heads: Number of attention heads H.
        width: Size U of the vectors. Defaults to that of the input; an input of another
            size is projected.
        intermediate_dim: Width inside the feed-forward networks. Defaults to four times
            the width.
        cross_attention: Whether the blocks read the memory by cross-attention.
        norm_first: Whether to normalize the input of each sublayer (pre-norm, which
            trains without warm-up), or else the sum of its input and output (post-norm,
            as in the paper).
        final_norm: Whether to normalize the last output. Defaults to `norm_first`.
        activation: Activation of the feed-forward networks.
        dropout: Fraction of the features to drop in training: of the input, of the
            output of each sublayer and inside the feed-forward networks.
        attention_dropout: Fraction of the attention weights to drop in training.
        num_key_value_heads: Number of heads of keys and values, see
            `MultiHeadAttention`. A small number makes the cache of a search small.
        rotary: Whether self-attention rotates queries and keys by position, or a
            `RotaryPositions` layer that does it, for example on a grid.
        relative_bias: Layer that returns a bias of self-attention for each distance,
            shared by the blocks, see `MultiHeadAttention`.
        epsilon: Number that the norms add to the variance.
        causal_prefix: Whether a step of a prefix sees no later steps.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, T, D)`, the embedded target, shifted right (teacher forcing).
        memory: `(B, S, D_m)`, the encoder's outputs; optional without
            `cross_attention`.
        memory_mask: Boolean `(B, S)`, True where the memory may be read. Defaults to
            the Keras mask of `memory`.
        initial_state: The final states of a recurrent encoder. Not used.
        inputs_mask: Boolean `(B, T)`, True where an input may be read. Defaults to the
            Keras mask of `inputs`.
        return_attention_scores: Whether to return the weights as well.
        return_prefix: Whether to return the outputs of the prefix as well, last.

    Returns:
        `(B, T, U)`, or `(outputs, weights)` with the weights of the memory
        `(B, num_layers, H, T, S)`. Without cross-attention the weights are those of
        memory and inputs, `(B, num_layers, H, T, S + T)`, of which a model's `generate`
        returns the first S. The outputs of the prefix are `(B, S, U)`.

    Raises:
        ValueError: The width is not divisible by `num_heads`, a size is not positive, a
            rate is not in [0, 1), cross-attention has no memory, or a prefix is
            requested with cross-attention or without a memory.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.layers import TransformerDecoder
    >>> decoder = TransformerDecoder(num_layers=2, num_heads=2)
    >>> inputs, memory = np.ones((2, 4, 6)), np.ones((2, 7, 8))
    >>> outputs = decoder(inputs, memory)
    >>> tuple(outputs.shape)
    (2, 4, 6)

    The same, one step at a time, as in a search:

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
        num_layers: int = 2,
        num_heads: int = 8,
        width: int | None = None,
        intermediate_dim: int | None = None,
        cross_attention: bool = True,
        norm_first: bool = True,
        final_norm: bool | None = None,
        activation: Activation = "relu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        num_key_value_heads: int | None = None,
        rotary: bool | RotaryPositions = False,
        relative_bias: keras.layers.Layer | None = None,
        epsilon: float = 1e-5,
        causal_prefix: bool = False,
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
        self.cross_attention = bool(cross_attention)
        self.causal_prefix = bool(causal_prefix)
        if self.causal_prefix and self.cross_attention:
            raise ValueError(
                "`causal_prefix` needs a decoder without cross-attention, which reads "
                "the memory as a prefix. Received: causal_prefix=True with "
                "cross_attention=True. Add `cross_attention=False`."
            )

    @property
    def attends(self) -> bool:  # type: ignore[override]
        return self.cross_attention

    def build(self, inputs_shape: Shape, memory_shape: Shape | None = None) -> None:
        if self.cross_attention and memory_shape is None:
            raise ValueError(
                "A decoder with cross-attention needs a memory, shape (B, S, D). "
                "Received: memory=None. Use `cross_attention=False` for a language "
                "model."
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
        self,
        inputs_shape: Shape,
        memory_shape: Shape | None = None,
        initial_state_shape: Tree = None,
    ) -> Shape:
        width = self.width or sequence_shape("inputs", inputs_shape)[-1]
        return (*inputs_shape[:-1], width)

    def call(
        self,
        inputs: Tensor,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        initial_state: Tree = None,
        inputs_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        return_prefix: bool = False,
        training: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        if memory is not None:
            same_rows("memory", memory.shape, "inputs", inputs.shape)
        constants, prefix = self._constants(memory, memory_mask, training)
        if return_prefix and prefix is None:
            raise ValueError(
                "`return_prefix` needs a memory and a decoder without cross-attention. "
                "Received: return_prefix=True with cross_attention="
                f"{self.cross_attention}, memory={memory}. Omit `return_prefix`, or "
                "pass a memory to a decoder with `cross_attention=False`."
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
        memory: TensorLike,
        memory_mask: TensorLike | None = None,
        initial_state: Tree = None,
        num_beams: int = 1,
        max_length: int | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Prepare the caches and the constants of all steps.

        Args:
            memory: `(B, S, D_m)`, the encoder's outputs. S may be 0 without
                cross-attention.
            memory_mask: Boolean `(B, S)`, True where the memory may be read.
            initial_state: Not used.
            num_beams: Number of hypotheses K for each source.
            max_length: Maximum number of steps L.

        Returns:
            `(state, constants)`: trees of tensors `(B, K, ...)` and `(B, ...)`. The
            caches are under the key `"shared"` of the state. Their shape is `(B, ...)`,
            and they are not reordered with the hypotheses: the `lineage` of a
            hypothesis tells which entries it reads.

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

    def step(
        self,
        inputs: TensorLike,
        state: dict[str, Any],
        constants: dict[str, Any],
        return_attention_scores: bool = False,
    ) -> tuple[Any, ...]:
        """Compute one step of every hypothesis.

        Args:
            inputs: `(B, K, D)`, the embedded last token of each hypothesis.
            state: Tree of tensors, from `start` or the previous step.
            constants: Tree of tensors `(B, ...)`, from `start`.
            return_attention_scores: Whether to return the attention weights of the
                memory as well, which needs cross-attention.

        Returns:
            `(outputs (B, K, U), state)`, or `(outputs, state, weights)` with weights
            `(B, num_layers, H, K, S)`.

        Raises:
            ValueError: The inputs are not one vector for each hypothesis of the state,
                or attention scores are requested from a decoder without
                cross-attention.
        """
        if return_attention_scores and not self.cross_attention:
            raise ValueError(
                "The attention scores of a step need cross-attention. Received: "
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

    def _constants(
        self,
        memory: Tensor | None,
        memory_mask: Tensor | None,
        training: bool = False,
    ) -> tuple[dict[str, Any], Tensor | None]:
        """Return the memory's mask and each block's keys and values `(B, N, S, C)`.

        The second result is the last block's output for a prefix, `(B, S, U)`, or None.
        """
        if memory is None or (memory.shape[1] == 0 and not self.cross_attention):
            return {"layers": [{} for _ in self.blocks]}, None
        constants: dict[str, Any] = {"layers": []}
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

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "cross_attention": self.cross_attention,
            "causal_prefix": self.causal_prefix,
        }
