"""Recurrent decoder: generates a sequence step by step while it reads a memory.

Axes in shape comments: B batch, T target steps, S source steps, K beams, D features,
U units.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import keras
from keras import ops

from kseq.layers.composition import freeze_parts
from kseq.layers.dropout import sequence_dropout
from kseq.layers.masking import apply_mask, step_mask
from kseq.layers.named_attention import AttentionName, resolve_attention
from kseq.layers.recurrent.bridge import BridgeKind, StateBridge
from kseq.layers.recurrent.cells import (
    CELLS,
    check_steps,
    copy_cell,
    deserialize_cell,
    resolve_cell,
    serialize_cell,
    state_sizes,
)
from kseq.layers.recurrent.decoder_loop import all_steps, top_hidden_state
from kseq.layers.recurrent.decoder_step import RecurrentDecoderStep
from kseq.layers.validation import (
    check_hypotheses,
    one_of,
    positive_integer,
    rate,
    same_rows,
    sequence_shape,
)
from kseq.typing import Config, Shape, Tensor, TensorLike, Tree


@keras.saving.register_keras_serializable(package="kseq")
class RecurrentDecoder(RecurrentDecoderStep):
    """A recurrent decoder, with or without attention to an encoded source.

    With attention, one step is, in Bahdanau's order (from the previous state),

        c_t = attention(h_{t-1});  h_t = cell([y_t; c_t], h_{t-1});
        output = tanh(W [h_t; c_t; y_t])

    and in Luong's order (from the new state), with input feeding,

        h_t = cell([y_t; a_{t-1}], h_{t-1});  c_t = attention(h_t);
        output = a_t = tanh(W [h_t; c_t])

    Without attention the decoder sees the source only through its initial state, the
    context vector of the first sequence-to-sequence networks, and the output is `h_t`.
    Then the memory is optional, as in a language model.

    Args:
        cell: `"rnn"`, `"lstm"`, `"gru"`, `"mingru"`, or a Keras cell. The first layer
            uses the cell itself, the others use copies. A `"mingru"` is no faster than
            a GRU here, since the input of a step depends on the step before.
        units: Size U of the state and of the outputs. With a cell object, omit it or
            pass the same size.
        num_layers: Number of stacked cells; the attention belongs to the top one.
        attention: An attention layer; a name, which gives it `units` units; or None.
            `"bahdanau"` and `"luong"` look at the whole source. `"location"`,
            `"coverage"` and `"monotonic"` depend on what earlier steps have read, and
            `"local"` reads around a predicted position: see `LocationAwareAttention`,
            `CoverageAttention`, `MonotonicAttention`, and `LuongAttention(window=10)`.
        attention_order: `"bahdanau"` or `"luong"`. Defaults to Luong's order for
            `LuongAttention` and custom layers, and to Bahdanau's for the others.
        input_feeding: Whether, in Luong's order, a step also reads the previous output.
            Without it, attention is computed for all steps at once, unless it depends
            on earlier alignments.
        bridge: Way to make the initial states from the encoder's final states:
            `"copy"`, `"dense"` or `"zero"`, see `StateBridge`.
        dropout: Fraction of the features to drop in training, the same ones at every
            step: of the inputs, between the cells and of the outputs.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, T, D)`, the embedded target, shifted right (teacher forcing).
        memory: `(B, S, D_m)`, the encoder's outputs; optional without attention.
        memory_mask: Boolean `(B, S)`, True where the memory may be read. Defaults to
            the Keras mask of `memory`.
        initial_state: The encoder's final states, a list for each layer, or None.
        inputs_mask: Boolean `(B, T)`; masked steps leave the state unchanged, and their
            outputs are undefined. Defaults to the Keras mask of `inputs`.
        return_attention_scores: Whether to return the weights as well.

    Returns:
        Outputs `(B, T, U)`, or `(outputs, weights)` with weights `(B, T, S)`.

    Raises:
        ValueError: A name is unknown, a size does not fit, attention scores are
            requested from a decoder without attention, or a decoder has neither
            attention nor an initial state to see the source.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.layers import RecurrentDecoder
    >>> decoder = RecurrentDecoder("gru", units=3, attention="luong")
    >>> inputs, memory = np.ones((2, 4, 5)), np.ones((2, 7, 6))
    >>> outputs, weights = decoder(inputs, memory, return_attention_scores=True)
    >>> tuple(outputs.shape), tuple(weights.shape)
    ((2, 4, 3), (2, 4, 7))

    The same, one step at a time, as in a search:

    >>> state, constants = decoder.start(memory)
    >>> output, state = decoder.step(inputs[:, :1], state, constants)
    >>> difference = keras.ops.abs(output[:, 0] - outputs[:, 0])
    >>> bool(keras.ops.max(difference) < 1e-6)
    True

    References:
        - [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215), 2 (no attention)
        - [Bahdanau et al., 2015](https://arxiv.org/abs/1409.0473), 3.1, A.2.2
        - [Luong et al., 2015](https://arxiv.org/abs/1508.04025), 3.1, 3.3
    """

    def __init__(
        self,
        cell: keras.layers.Layer | Literal["rnn", "lstm", "gru", "mingru"] = "gru",
        units: int | None = None,
        num_layers: int = 1,
        attention: keras.layers.Layer | AttentionName | None = None,
        attention_order: Literal["bahdanau", "luong"] | None = None,
        input_feeding: bool = True,
        bridge: BridgeKind = "dense",
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cell, self.units = resolve_cell(cell, units)
        self.num_layers = positive_integer("num_layers", num_layers)
        self.attention = resolve_attention(attention, self.units, self.dtype_policy)
        default_order = getattr(self.attention, "default_order", "luong")
        self.attention_order = one_of(
            "attention_order",
            default_order if attention_order is None else attention_order,
            ("bahdanau", "luong"),
        )
        self.input_feeding = bool(input_feeding)
        self.bridge: BridgeKind = one_of("bridge", bridge, ("copy", "dense", "zero"))
        if self.attention is None and bridge == "zero":
            raise ValueError(
                "A decoder needs attention or an initial state to see the source. "
                'Received: attention=None with bridge="zero". Use bridge="dense" or '
                'attention="bahdanau".'
            )
        self.dropout = rate("dropout", dropout)

        if getattr(cell, "dropout", 0) or getattr(cell, "recurrent_dropout", 0):
            name = cell.name  # type: ignore[union-attr]
            raise ValueError(
                "The cell of a decoder must have no dropout. Received: "
                f"cell={name} with dropout. Use the decoder's own `dropout`."
            )

        self.cells = [self._make_cell(i) for i in range(self.num_layers)]
        self.state_bridge = StateBridge(
            [state_sizes(cell) for cell in self.cells],
            self.bridge,
            dtype=self.dtype_policy,
            name="state_bridge",
        )
        self.readout = None
        if self.attention is not None:
            self.readout = keras.layers.Dense(
                self.units, activation="tanh", dtype=self.dtype_policy, name="readout"
            )
        self.dropout_layer = sequence_dropout(self.dropout, self.dtype_policy)

    def _make_cell(self, index: int) -> keras.layers.Layer:
        if isinstance(self.cell, str):
            return CELLS[self.cell](
                self.units, dtype=self.dtype_policy, name=f"cell_{index}"
            )
        return self.cell if index == 0 else copy_cell(self.cell, index)

    def build(
        self,
        inputs_shape: Shape,
        memory_shape: Shape | None = None,
        initial_state_shape: Tree = None,
    ) -> None:
        width: Any  # known, like all sizes of features
        memory_width: Any
        batch, _, width = sequence_shape("inputs", inputs_shape)
        if memory_shape is None:
            if self.attention is not None:
                raise ValueError(
                    "A decoder with attention needs a memory, shape (B, S, D). "
                    "Received: memory=None. Use `attention=None` for a language model."
                )
            memory_shape = (batch, 0, width)
        self.state_bridge.build(memory_shape, initial_state_shape)
        memory_width = sequence_shape("memory", memory_shape)[-1]
        if self.attends_before:
            fed = memory_width
            readout_width = self.units + memory_width + width
        else:
            fed = self.units if self.feeds_output else 0
            readout_width = self.units + memory_width
        if self.attention is not None:
            if not self.attention.built:  # a loaded one is built
                self.attention.build((batch, None, self.units), memory_shape)
            self.readout.build((batch, None, readout_width))
        for index, cell in enumerate(self.cells):
            if not cell.built:
                cell.build((batch, width + fed if index == 0 else self.units))
        freeze_parts(self)

    def compute_output_shape(
        self,
        inputs_shape: Shape,
        memory_shape: Shape | None = None,
        initial_state_shape: Tree = None,
    ) -> Shape:
        sequence_shape("inputs", inputs_shape)
        return (*inputs_shape[:-1], self.units)

    def call(
        self,
        inputs: Tensor,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        initial_state: Sequence[Sequence[Tensor]] | None = None,
        inputs_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        training: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        self._check_attends(return_attention_scores)
        memory = inputs[:, :0] if memory is None else memory
        same_rows("memory", memory.shape, "inputs", inputs.shape)
        check_steps("inputs", inputs)
        state, constants = self.start(memory, memory_mask, initial_state)
        inputs = apply_mask(inputs, inputs_mask)
        inputs = self.dropout_layer(inputs, training=training)
        if training and self.keeps_alignment:
            constants["keys"] = self.attention.training_keys(constants["keys"])
        features, alignments = all_steps(
            self,
            inputs,
            state,
            constants,
            inputs_mask,
            training,
            with_alignments=return_attention_scores and self.keeps_alignment,
        )
        outputs = self._outputs(inputs, features, constants)
        outputs = self.dropout_layer(outputs, training=training)  # B T U
        if not return_attention_scores:
            return outputs
        queries = features[..., : self.units]  # B T U
        if self.attends_before:
            first = top_hidden_state(state)  # B 1 U
            queries = ops.concatenate([first, queries[:, :-1]], axis=1)
        return outputs, self.attend(queries, constants, alignments, training)[1]

    def start(
        self,
        memory: TensorLike,
        memory_mask: TensorLike | None = None,
        initial_state: Tree = None,
        num_beams: int = 1,
        max_length: int | None = None,
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Prepare the initial state and the constants of all steps.

        Args:
            memory: `(B, S, D_m)`, the encoder's outputs.
            memory_mask: Boolean `(B, S)`, True where the memory may be read.
            initial_state: The encoder's final states, a list for each layer, or None.
            num_beams: Number of hypotheses K for each source.
            max_length: Maximum number of steps. Not used, since the size of a recurrent
                state does not depend on it.

        Returns:
            `(state, constants)`: trees of tensors `(B, K, ...)` and `(B, ...)`.
        """
        memory = ops.convert_to_tensor(memory, self.compute_dtype)
        memory_mask = step_mask(memory_mask, memory)
        memory = apply_mask(memory, memory_mask)
        bridged = self.state_bridge(memory, initial_state, memory_mask=memory_mask)
        state = {"cells": [[s[:, None] for s in layer] for layer in bridged]}  # B 1 U
        if self.keeps_context:
            shape = (ops.shape(memory)[0], 1, memory.shape[-1])
            state["context"] = ops.zeros(shape, self.compute_dtype)  # B 1 D_m
        if self.feeds_output:
            state["output"] = ops.zeros_like(top_hidden_state(state))  # B 1 U
        constants: dict[str, Tensor] = {}
        if self.attention is not None:
            constants["memory"] = memory
            constants["keys"] = self.attention.project_keys(memory)
            if memory_mask is not None:
                constants["mask"] = memory_mask
        if self.keeps_alignment:
            keys = constants["keys"]
            state["alignment"] = self.attention.start_alignment(keys)  # B 1 S
        if num_beams > 1:
            state = keras.tree.map_structure(
                lambda s: ops.repeat(s, num_beams, axis=1), state
            )
        return state, constants

    def step(
        self,
        inputs: TensorLike,
        state: dict[str, Any],
        constants: dict[str, Tensor],
        return_attention_scores: bool = False,
    ) -> tuple[Any, ...]:
        """Compute one step of every hypothesis.

        Args:
            inputs: `(B, K, D)`, the embedded last token of each hypothesis.
            state: Tree of tensors `(B, K, ...)`, from `start` or the previous step.
            constants: Tree of tensors `(B, ...)`, from `start`.
            return_attention_scores: Whether to return the weights as well.

        Returns:
            `(outputs (B, K, U), state)`, or `(outputs, state, weights (B, K, S))`.

        Raises:
            ValueError: The inputs are not one vector for each hypothesis of the state,
                or attention scores are requested from a decoder without attention.
        """
        self._check_attends(return_attention_scores)
        inputs = ops.convert_to_tensor(inputs, self.compute_dtype)
        check_hypotheses(inputs.shape, top_hidden_state(state).shape)
        before, state = state, self.advance(inputs, state, constants)
        outputs = self._outputs(inputs, self.features(state), constants)
        if not return_attention_scores:
            return outputs, state
        query = top_hidden_state(before if self.attends_before else state)  # B K U
        weights = self.attend(query, constants, before.get("alignment"))[1]
        return outputs, state, weights

    def get_config(self) -> Config:
        attention = keras.saving.serialize_keras_object(self.attention)
        return {
            **super().get_config(),
            "cell": serialize_cell(self.cell),
            "units": self.units,
            "num_layers": self.num_layers,
            "attention": attention,
            "attention_order": self.attention_order,
            "input_feeding": self.input_feeding,
            "bridge": self.bridge,
            "dropout": self.dropout,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        attention = keras.saving.deserialize_keras_object(config["attention"])
        cell = deserialize_cell(config["cell"])
        return cls(**{**config, "cell": cell, "attention": attention})
