"""The recurrent decoder: writes a sequence step by step, reading a memory.

Axes in shape comments: B batch, T target steps, S source steps, K beams, D features,
U units.
"""

import keras
from keras import ops

from kseq.layers.attention import BahdanauAttention, resolve_attention
from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.decoder import Decoder
from kseq.layers.dropout import sequence_dropout
from kseq.layers.masking import apply_mask, step_mask
from kseq.layers.recurrent.bridge import StateBridge
from kseq.layers.recurrent.cells import (
    CELLS,
    check_steps,
    copy_cell,
    deserialize_cell,
    resolve_cell,
    serialize_cell,
    state_sizes,
    step_cell,
)
from kseq.layers.recurrent.decoder_loop import all_steps, top_hidden_state
from kseq.layers.validation import (
    check_hypotheses,
    one_of,
    positive_integer,
    rate,
    same_rows,
    sequence_shape,
)


@keras.saving.register_keras_serializable(package="kseq")
class RecurrentDecoder(Composite, Decoder):
    """A recurrent network that reads an encoded source while it writes.

    With attention, one step is, in Bahdanau's order (from the previous state),

        c_t = attention(h_{t-1});  h_t = cell([y_t; c_t], h_{t-1});
        output = tanh(W [h_t; c_t; y_t])

    and in Luong's order (from the new state), with input feeding,

        h_t = cell([y_t; a_{t-1}], h_{t-1});  c_t = attention(h_t);
        output = a_t = tanh(W [h_t; c_t])

    Without attention the source is seen through the first state alone, the context
    vector of the first sequence-to-sequence networks, and the output is `h_t`. Then the
    memory may be left out too, as in a language model.

    Args:
        cell: `"rnn"`, `"lstm"`, `"gru"`, or a Keras cell, which becomes the first
            layer's and is copied for the others.
        units: Size U of the state and of the outputs. Must be left out, or agree, with
            a cell object.
        num_layers: Number of cells on top of each other; the attention belongs to the
            top one.
        attention: `"bahdanau"`, `"luong"`, an attention layer, or None.
        attention_order: `"bahdanau"` or `"luong"`. Defaults to Bahdanau's order for
            `BahdanauAttention` and to Luong's for every other attention.
        input_feeding: Whether, in Luong's order, a step also reads the last output.
            Without it the attention is computed for all steps at once.
        bridge: How the encoder's final states become the first ones: `"copy"`,
            `"dense"` or `"zero"`, see `StateBridge`.
        dropout: Share of the features to drop in training, the same ones at every
            step: of the inputs, of what one cell hands to the next and of the outputs.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, T, D)`, the embedded target, shifted right (teacher forcing).
        memory: `(B, S, D_m)`, the encoder's outputs; optional without attention.
        memory_mask: Boolean `(B, S)`, True where the memory may be read. Defaults to
            the Keras mask of `memory`.
        initial_state: The encoder's final states, a list for each layer, or None.
        inputs_mask: Boolean `(B, T)`; masked steps leave the state as it was, and what
            they put out is nothing to rely on. Defaults to the Keras mask of `inputs`.
        return_attention_scores: Whether to return the weights as well.

    Returns:
        Outputs `(B, T, U)`, or `(outputs, weights)` with weights `(B, T, S)`.

    Raises:
        ValueError: A name is unknown, a size does not fit, attention scores are asked
            of a decoder without attention, or a decoder has neither attention nor a
            state to see the source through.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.layers import RecurrentDecoder
    >>> decoder = RecurrentDecoder("gru", units=3, attention="luong")
    >>> inputs, memory = np.ones((2, 4, 5)), np.ones((2, 7, 6))
    >>> outputs, weights = decoder(inputs, memory, return_attention_scores=True)
    >>> tuple(outputs.shape), tuple(weights.shape)
    ((2, 4, 3), (2, 4, 7))

    The same, one step at a time, as a search does:

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
        cell="gru",
        units=None,
        num_layers=1,
        attention=None,
        attention_order=None,
        input_feeding=True,
        bridge="dense",
        dropout=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.cell, self.units = resolve_cell(cell, units)
        self.num_layers = positive_integer("num_layers", num_layers)
        self.attention = resolve_attention(attention, self.units, self.dtype_policy)
        if attention_order is None:
            is_bahdanau = isinstance(self.attention, BahdanauAttention)
            attention_order = "bahdanau" if is_bahdanau else "luong"
        self.attention_order = one_of(
            "attention_order", attention_order, ("bahdanau", "luong")
        )
        self.input_feeding = bool(input_feeding)
        self.bridge = one_of("bridge", bridge, ("copy", "dense", "zero"))
        if self.attention is None and bridge == "zero":
            raise ValueError(
                "A decoder needs attention or a first state to see the source. "
                'Received: attention=None with bridge="zero". Use bridge="dense" or '
                'attention="bahdanau".'
            )
        self.dropout = rate("dropout", dropout)

        if getattr(cell, "dropout", 0) or getattr(cell, "recurrent_dropout", 0):
            raise ValueError(
                "The cell of a decoder cannot drop by itself. Received: "
                f"cell={cell.name} with dropout. Use the decoder's own `dropout`."
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

    def _make_cell(self, index):
        if isinstance(self.cell, str):
            return CELLS[self.cell](
                self.units, dtype=self.dtype_policy, name=f"cell_{index}"
            )
        return self.cell if index == 0 else copy_cell(self.cell, index)

    @property
    def attends(self):
        return self.attention is not None

    @property
    def attends_before(self):
        """True if a step begins with the attention, from the state before it."""
        return self.attends and self.attention_order == "bahdanau"

    @property
    def attends_after(self):
        """True if a step ends with the attention, from its new state."""
        return self.attends and self.attention_order == "luong"

    @property
    def feeds_output(self):
        """True if a step also reads what the last one has put out."""
        return self.attends_after and self.input_feeding

    def build(self, inputs_shape, memory_shape=None, initial_state_shape=None):
        batch, _, width = sequence_shape("inputs", inputs_shape)
        if memory_shape is None:
            if self.attention is not None:
                raise ValueError(
                    "A decoder with attention needs a memory, shape (B, S, D). "
                    "Received: memory=None. Build a language model with "
                    "`attention=None`."
                )
            memory_shape = (batch, 0, width)
        self.state_bridge.build(memory_shape, initial_state_shape)
        if self.attends_before:
            fed = memory_shape[-1]
            readout_width = self.units + memory_shape[-1] + width
        else:
            fed = self.units if self.feeds_output else 0
            readout_width = self.units + memory_shape[-1]
        if self.attention is not None:
            if not self.attention.built:  # a loaded one is
                self.attention.build((batch, None, self.units), memory_shape)
            self.readout.build((batch, None, readout_width))
        for index, cell in enumerate(self.cells):
            if not cell.built:
                cell.build((batch, width + fed if index == 0 else self.units))
        freeze_parts(self)

    def compute_output_shape(
        self, inputs_shape, memory_shape=None, initial_state_shape=None
    ):
        sequence_shape("inputs", inputs_shape)
        return (*inputs_shape[:-1], self.units)

    def call(
        self,
        inputs,
        memory=None,
        memory_mask=None,
        initial_state=None,
        inputs_mask=None,
        return_attention_scores=False,
        training=False,
    ):
        self._check_attends(return_attention_scores)
        memory = inputs[:, :0] if memory is None else memory
        same_rows("memory", memory.shape, "inputs", inputs.shape)
        check_steps("inputs", inputs)
        state, constants = self.start(memory, memory_mask, initial_state)
        inputs = apply_mask(inputs, inputs_mask)
        inputs = self.dropout_layer(inputs, training=training)
        features = all_steps(self, inputs, state, constants, inputs_mask, training)
        outputs = self._outputs(inputs, features, constants)
        outputs = self.dropout_layer(outputs, training=training)  # B T U
        if not return_attention_scores:
            return outputs
        queries = features[..., : self.units]  # B T U
        if self.attends_before:
            first = top_hidden_state(state)  # B 1 U
            queries = ops.concatenate([first, queries[:, :-1]], axis=1)
        return outputs, self.attend(queries, constants)[1]

    def start(
        self,
        memory,
        memory_mask=None,
        initial_state=None,
        num_beams=1,
        max_length=None,
    ):
        """Prepares the first state and what stays the same at every step.

        Args:
            memory: `(B, S, D_m)`, the encoder's outputs.
            memory_mask: Boolean `(B, S)`, True where the memory may be read.
            initial_state: The encoder's final states, a list for each layer, or None.
            num_beams: Number of hypotheses K that ride on each row.
            max_length: Most steps that will be taken. A recurrent state has one size,
                so this decoder does not need it.

        Returns:
            `(state, constants)`: trees of tensors `(B, K, ...)` and `(B, ...)`.
        """
        memory = ops.convert_to_tensor(memory, self.compute_dtype)
        memory_mask = step_mask(memory_mask, memory)
        memory = apply_mask(memory, memory_mask)
        bridged = self.state_bridge(memory, initial_state, memory_mask=memory_mask)
        state = {"cells": [[s[:, None] for s in layer] for layer in bridged]}  # B 1 U
        if self.attends_before:
            shape = (ops.shape(memory)[0], 1, memory.shape[-1])
            state["context"] = ops.zeros(shape, self.compute_dtype)  # B 1 D_m
        if self.feeds_output:
            state["output"] = ops.zeros_like(top_hidden_state(state))  # B 1 U
        if num_beams > 1:
            state = keras.tree.map_structure(
                lambda s: ops.repeat(s, num_beams, axis=1), state
            )
        constants = {}
        if self.attention is not None:
            constants["memory"] = memory
            constants["keys"] = self.attention.project_keys(memory)
            if memory_mask is not None:
                constants["mask"] = memory_mask
        return state, constants

    def step(self, inputs, state, constants, return_attention_scores=False):
        """Writes one step for every hypothesis.

        Args:
            inputs: `(B, K, D)`, the embedded last token of each hypothesis.
            state: Tree of tensors `(B, K, ...)`, from `start` or the last step.
            constants: Tree of tensors `(B, ...)`, from `start`.
            return_attention_scores: Whether to return the weights as well.

        Returns:
            `(outputs (B, K, U), state)`, or `(outputs, state, weights (B, K, S))`.

        Raises:
            ValueError: The inputs are not one vector for each hypothesis of the state,
                or attention scores are asked of a decoder without attention.
        """
        self._check_attends(return_attention_scores)
        inputs = ops.convert_to_tensor(inputs, self.compute_dtype)
        before = top_hidden_state(state)
        check_hypotheses(inputs.shape, before.shape)
        state = self.advance(inputs, state, constants)
        outputs = self._outputs(inputs, self.features(state), constants)
        if not return_attention_scores:
            return outputs, state
        query = before if self.attends_before else top_hidden_state(state)  # B K U
        return outputs, state, self.attend(query, constants)[1]

    def _check_attends(self, return_attention_scores):
        if return_attention_scores and self.attention is None:
            raise ValueError(
                "Attention scores need attention. Received: "
                "return_attention_scores=True on a decoder with attention=None."
            )

    def features(self, state):
        """The state of the top cell, and what the last step has read or said."""
        others = [state[k] for k in ("context", "output") if k in state]
        hidden = top_hidden_state(state)
        return ops.concatenate([hidden, *others], axis=-1) if others else hidden

    def advance(self, inputs, state, constants, between=None):
        """One step of the cells: `(B, K, D)` and the last state give the next state."""
        if self.attends_before:
            context, _ = self.attend(top_hidden_state(state), constants)  # B K D_m
            inputs = ops.concatenate([inputs, context], axis=-1)
        elif self.feeds_output:
            inputs = ops.concatenate([inputs, state["output"]], axis=-1)
        cells = []
        for index, (cell, cell_state) in enumerate(
            zip(self.cells, state["cells"], strict=True)
        ):
            if index > 0:
                inputs = cells[-1][0]
                if between is not None:
                    inputs = inputs * between[index - 1]
            cells.append(step_cell(cell, inputs, cell_state))
        new_state = {"cells": cells}
        if self.attends_before:
            new_state["context"] = context
        if self.feeds_output:
            new_state["output"] = self._attentional_vector(cells[-1][0], constants)
        return new_state

    def _outputs(self, inputs, features, constants):
        """What the decoder says; axis 1 may be the beams or all T steps."""
        if self.attends_before:
            return self.readout(ops.concatenate([features, inputs], axis=-1))
        if self.feeds_output:
            return ops.split(features, [self.units], axis=-1)[1]
        if self.attends_after:
            return self._attentional_vector(features, constants)
        return features

    def _attentional_vector(self, hidden, constants):
        context, _ = self.attend(hidden, constants)
        return self.readout(ops.concatenate([hidden, context], axis=-1))  # B K U

    def attend(self, query, constants):
        """What the queries `(B, T, U)` read in the memory, and by which weights."""
        return self.attention.attend(
            query, constants["keys"], constants["memory"], constants.get("mask")
        )

    def get_config(self):
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
    def from_config(cls, config):
        attention = keras.saving.deserialize_keras_object(config["attention"])
        cell = deserialize_cell(config["cell"])
        return cls(**{**config, "cell": cell, "attention": attention})
