"""All steps of a recurrent decoder, in a loop of formulas or in Keras' loop.

Axes in shape comments: B batch, T target steps, S source steps, D features, F features
of a state, U units.
"""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from kseq.layers import backends, torch_kernels
from kseq.layers.attention import nameless_config
from kseq.layers.composition import is_quantized
from kseq.layers.masking import step_mask
from kseq.layers.recurrent import formulas
from kseq.layers.recurrent.cells import loop_over_time
from kseq.layers.recurrent.formula_loop import project
from kseq.layers.recurrent.step_loop import run_steps
from kseq.layers.recurrent.steps import fill_up, first_steps
from kseq.layers.sums import precise
from kseq.typing import Tensor, Tree

if TYPE_CHECKING:
    from kseq.layers.recurrent.decoder import RecurrentDecoder

FORMULAS: dict[str, formulas.Formula] = {
    "rnn": formulas.SimpleRNNFormula,
    "lstm": formulas.LSTMFormula,
    "gru": formulas.GRUFormula,
}


def all_steps(
    decoder: "RecurrentDecoder",
    inputs: Tensor,
    state: Tree,
    constants: dict[str, Tensor],
    inputs_mask: Tensor | None,
    training: bool,
    with_alignments: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Run all steps with formulas where that is faster, else in Keras' loop.

    Args:
        decoder: The `RecurrentDecoder`.
        inputs: `(B, T, D)`.
        state: Initial state, a tree of `(B, 1, U)`, from `decoder.start`.
        constants: From `decoder.start`.
        inputs_mask: Boolean `(B, T)`, or None.
        training: Whether a gradient will be requested.
        with_alignments: Whether to return alignments, which the state must have.

    Returns:
        `(features (B, T, F), alignments)`: the decoder's features after each step, and
        the alignments before each step, `(B, T, S)`, or None.
    """
    ones = ops.ones_like(top_hidden_state(state))  # B 1 U
    between = [
        decoder.dropout_layer(ones, training=training) for _ in decoder.cells[1:]
    ]
    run = formula_steps if is_covered(decoder, inputs) else keras_steps
    arguments = inputs, state, constants, inputs_mask, between, training
    features, alignments = run(decoder, *arguments, with_alignments)
    if alignments is not None:  # those after each step
        first = state["alignment"]  # B 1 S
        alignments = ops.concatenate([first, alignments[:, :-1]], axis=1)
    return features, alignments


def is_covered(decoder: "RecurrentDecoder", inputs: Tensor) -> bool:
    """Return True if formulas can run the loop, compiled by XLA or on PyTorch."""
    if not isinstance(decoder.cell, str) or decoder.cell not in FORMULAS:
        return False
    if decoder.feeds_output and is_quantized(decoder.readout):
        return False
    is_compiled = backends.is_worth_compiling(decoder.units)
    return is_compiled and backends.is_traced(inputs) or torch_kernels.available()


def keras_steps(
    decoder: "RecurrentDecoder",
    inputs: Tensor,
    state: Tree,
    constants: dict[str, Tensor],
    inputs_mask: Tensor | None,
    between: list[Tensor],
    training: bool,
    with_alignments: bool,
) -> tuple[Tensor, Tensor | None]:
    """Run the steps in Keras' loop, for any cell and backend."""

    def output_of(state):
        features = decoder.features(state)
        if not with_alignments:
            return ops.squeeze(features, 1)
        # The loop has one output.
        both = [precise(features), precise(state["alignment"])]
        return ops.squeeze(ops.concatenate(both, axis=-1), 1)

    def unpacked(outputs):
        if not with_alignments:
            return outputs, None
        width = decoder.features(state).shape[-1]
        features = ops.cast(outputs[..., :width], decoder.compute_dtype)
        return features, outputs[..., width:]

    # `x[:, None]` and `x[:, 0]` would copy `x` in their gradients on TensorFlow.
    def advance(step_inputs, states):
        states = [ops.expand_dims(s, 1) for s in states]  # B 1 U
        step_inputs = ops.expand_dims(step_inputs, 1)  # B 1 D
        last = keras.tree.pack_sequence_as(state, states)
        new = decoder.advance(step_inputs, last, constants, between, training)
        new_states = [ops.squeeze(s, 1) for s in keras.tree.flatten(new)]
        return output_of(new), new_states

    states = [ops.squeeze(s, 1) for s in keras.tree.flatten(state)]  # B U
    if inputs_mask is None:
        return unpacked(loop_over_time(advance, inputs, states))

    # The first state of the loop is its output at masked steps.
    def advance_and_keep(step_inputs, states):
        features, new_states = advance(step_inputs, states[1:])
        return features, [features, *new_states]

    states = [output_of(state), *states]
    mask = step_mask(inputs_mask, inputs)
    return unpacked(loop_over_time(advance_and_keep, inputs, states, mask))


def formula_steps(
    decoder: "RecurrentDecoder",
    inputs: Tensor,
    state: Tree,
    constants: dict[str, Tensor],
    inputs_mask: Tensor | None,
    between: list[Tensor],
    training: bool,
    with_alignments: bool,
) -> tuple[Tensor, Tensor | None]:
    """Run the steps with the formulas of the cells; multiply the inputs before.

    `between` holds the dropout mask `(B, 1, U)` of each layer's output, except the
    last layer's. The decoder's `cell` must be a name.
    """
    formula = FORMULAS[decoder.cell]
    length = ops.shape(inputs)[1]
    inputs, mask = fill_up(inputs, step_mask(inputs_mask, inputs))
    products = products_of(decoder)
    kernel, bias = products.pop("kernel_0")
    if decoder.attends_before or decoder.feeds_output:
        kernel, fed = ops.split(kernel, [inputs.shape[-1]])
        products["fed"] = (fed, ops.zeros_like(bias))
    projected = project(inputs, kernel, bias)

    def step(inputs, states, constants, multiply):
        last = keras.tree.pack_sequence_as(state, states)
        new, seen = {"cells": []}, []

        def read(hidden):
            alignment = last.get("alignment")
            if alignment is not None:
                alignment = ops.expand_dims(alignment, 1)  # B 1 S
            hidden = ops.expand_dims(hidden, 1)  # B 1 U
            context, _, alignment = decoder.attend(
                hidden, constants, alignment, training
            )
            if alignment is not None:
                new["alignment"] = ops.squeeze(alignment, 1)
            return ops.squeeze(context, 1)  # B D_m

        if decoder.attends_before:
            new["context"] = read(last["cells"][-1][0])
            inputs = inputs + multiply("fed", new["context"])
        elif decoder.feeds_output:
            inputs = inputs + multiply("fed", last["output"])
        for index, cell_state in enumerate(last["cells"]):
            if index > 0:
                below = new["cells"][-1][0] * constants[f"between_{index - 1}"]
                inputs = multiply(f"kernel_{index}", below)
            product = multiply(f"recurrent_{index}", cell_state[0])
            cell_state, gates = formula.advance(inputs, product, cell_state)
            new["cells"].append(cell_state)
            seen += gates[: formula.num_carried]
        if decoder.feeds_output:
            hidden = cell_state[0]  # B U
            both = ops.concatenate([hidden, read(hidden)], axis=-1)
            new["output"] = ops.tanh(multiply("readout", both))
        elif decoder.attends_in_loop and not decoder.attends_before:
            new["context"] = read(cell_state[0])
        return keras.tree.flatten(new) + seen

    fixed = {f"between_{i}": ops.squeeze(b, 1) for i, b in enumerate(between)}
    variables = []
    first = keras.tree.map_structure(lambda s: ops.squeeze(s, 1), state)  # B U
    if decoder.attends_in_loop:
        fixed.update(fill_up_memory(constants))
        variables = decoder.attention.weights
    if decoder.keeps_alignment:
        alignment, _ = fill_up(first["alignment"][..., None])  # B S 1
        first["alignment"] = ops.squeeze(alignment, -1)
    histories = run_steps(
        step,
        projected,
        keras.tree.flatten(first),
        fixed,
        products,
        variables,
        [] if mask is None else [mask],
        ops.cast(length, "int32"),
        training=training,
        key=loop_key(decoder, training),
        gate_sizes=len(decoder.cells) * formulas.carried_sizes(formula, decoder.units),
    )
    histories = [first_steps(h, length) for h in histories]
    after = keras.tree.pack_sequence_as(state, histories)
    alignments = None
    if with_alignments:
        alignments = after["alignment"][..., : ops.shape(constants["memory"])[1]]
    return decoder.features(after), alignments


def loop_key(decoder: "RecurrentDecoder", training: bool) -> str | None:
    """Return a key that is equal for decoders that differ only in weights and names.

    It is None if the attention has no `loop_key`, or a `loop_key` of None.
    """
    key = None
    if decoder.attention is not None:
        key = getattr(decoder.attention, "loop_key", lambda: None)()
        if key is None:
            return None
    config = {**nameless_config(decoder), "attention": key}
    if decoder.keeps_alignment:  # it may compute something else in training
        config["training"] = training
    return repr(config)


def products_of(decoder: "RecurrentDecoder") -> dict[str, tuple[Tensor, Tensor]]:
    """Return the matrices that a step multiplies with, by name, each with its bias."""
    products = {}
    for index, cell in enumerate(decoder.cells):
        bias, recurrent_bias = formulas.split_bias(cell)
        products[f"kernel_{index}"] = (cell.kernel, bias)
        products[f"recurrent_{index}"] = (cell.recurrent_kernel, recurrent_bias)
    if decoder.feeds_output:
        products["readout"] = (decoder.readout.kernel, decoder.readout.bias)
    return {
        name: tuple(ops.cast(x, decoder.compute_dtype) for x in pair)
        for name, pair in products.items()
    }


def fill_up_memory(constants: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pad a memory of unknown length, and its keys and mask, as `fill_up` does."""
    memory, mask = constants["memory"], constants.get("mask")
    if memory.shape[1] is not None:
        return constants
    mask = ops.ones(ops.shape(memory)[:2], "bool") if mask is None else mask
    keys, _ = fill_up(constants["keys"])
    memory, mask = fill_up(memory, mask)
    return {"memory": memory, "keys": keys, "mask": mask}


def top_hidden_state(state: dict[str, Any]) -> Tensor:
    """Return the hidden state of the top cell, `(B, K, U)`."""
    return state["cells"][-1][0]
