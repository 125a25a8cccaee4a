"""All steps of a recurrent decoder, in a loop of formulas or of Keras.

Axes in shape comments: B batch, T target steps, S source steps, D features, U units,
G gates.
"""

import keras
from keras import ops

from kseq.layers import backends, torch_kernels
from kseq.layers.attention import nameless_config
from kseq.layers.composition import is_quantized
from kseq.layers.masking import step_mask
from kseq.layers.recurrent import formulas
from kseq.layers.recurrent.cells import loop_over_time
from kseq.layers.recurrent.formula_loop import first_steps, project
from kseq.layers.recurrent.layers import fill_up
from kseq.layers.recurrent.step_loop import run_steps

FORMULAS = {
    "rnn": formulas.SimpleRNNFormula,
    "lstm": formulas.LSTMFormula,
    "gru": formulas.GRUFormula,
}


def all_steps(decoder, inputs, state, constants, inputs_mask, training):
    """Takes all steps, where it pays by formulas, else in a loop of Keras.

    Args:
        decoder: The `RecurrentDecoder`.
        inputs: `(B, T, D)`.
        state: The first state, a tree of `(B, 1, U)`, from `decoder.start`.
        constants: From `decoder.start`.
        inputs_mask: Boolean `(B, T)`, or None.
        training: Whether a gradient will be asked for.

    Returns:
        The decoder's features after each step, `(B, T, F)`.
    """
    ones = ops.ones_like(top_hidden_state(state))  # B 1 U
    between = [
        decoder.dropout_layer(ones, training=training) for _ in decoder.cells[1:]
    ]
    run = formula_steps if is_covered(decoder, inputs) else keras_steps
    return run(decoder, inputs, state, constants, inputs_mask, between, training)


def is_covered(decoder, inputs):
    """Whether the loop may be one of formulas, of XLA or of PyTorch."""
    if not isinstance(decoder.cell, str):
        return False
    if decoder.feeds_output and is_quantized(decoder.readout):
        return False
    is_compiled = backends.is_worth_compiling(decoder.units)
    return is_compiled and backends.is_traced(inputs) or torch_kernels.available()


def keras_steps(decoder, inputs, state, constants, inputs_mask, between, training):
    """The steps in a loop of Keras, for every cell and backend."""

    # Not `x[:, None]` and `x[:, 0]`, whose gradients on TensorFlow copy `x`.
    def advance(step_inputs, states):
        states = [ops.expand_dims(s, 1) for s in states]  # B 1 U
        step_inputs = ops.expand_dims(step_inputs, 1)  # B 1 D
        last = keras.tree.pack_sequence_as(state, states)
        new = decoder.advance(step_inputs, last, constants, between)
        new_states = [ops.squeeze(s, 1) for s in keras.tree.flatten(new)]
        return ops.squeeze(decoder.features(new), 1), new_states

    states = [ops.squeeze(s, 1) for s in keras.tree.flatten(state)]  # B U
    if inputs_mask is None:
        return loop_over_time(advance, inputs, states)

    # What is put out at a masked step is the first state.
    def advance_and_keep(step_inputs, states):
        features, new_states = advance(step_inputs, states[1:])
        return features, [features, *new_states]

    states = [ops.squeeze(decoder.features(state), 1), *states]
    mask = step_mask(inputs_mask, inputs)
    return loop_over_time(advance_and_keep, inputs, states, mask)


def formula_steps(decoder, inputs, state, constants, inputs_mask, between, training):
    """The steps by the formulas of the cells, with the products of the inputs before.

    `between` is what each layer's output is multiplied with, `(B, 1, U)`, but the last
    one's; the cell is known by its name.
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
        hidden = ops.expand_dims(last["cells"][-1][0], 1)  # B 1 U
        new, seen = {"cells": []}, []
        if decoder.attends_before:
            context, _ = decoder.attend(hidden, constants)
            new["context"] = ops.squeeze(context, 1)  # B D_m
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
            context, _ = decoder.attend(ops.expand_dims(hidden, 1), constants)
            read = ops.concatenate([hidden, ops.squeeze(context, 1)], axis=-1)
            new["output"] = ops.tanh(multiply("readout", read))
        return keras.tree.flatten(new) + seen

    fixed = {f"between_{i}": ops.squeeze(b, 1) for i, b in enumerate(between)}
    variables = []
    if decoder.attends_before or decoder.feeds_output:
        fixed.update(fill_up_memory(constants))
        variables = decoder.attention.variables
    histories = run_steps(
        step,
        projected,
        [ops.squeeze(s, 1) for s in keras.tree.flatten(state)],  # B U
        fixed,
        products,
        variables,
        [] if mask is None else [mask],
        ops.cast(length, "int32"),
        training=training,
        key=work_of(decoder),
        gate_sizes=len(decoder.cells) * formulas.carried_sizes(formula, decoder.units),
    )
    histories = [first_steps(h, length) for h in histories]
    return decoder.features(keras.tree.pack_sequence_as(state, histories))


def work_of(decoder):
    """What is equal where decoders do the same, whatever their weights and names.

    None where the attention does not say what it does.
    """
    key = None
    if decoder.attention is not None:
        key = getattr(decoder.attention, "loop_key", lambda: None)()
        if key is None:
            return None
    return repr({**nameless_config(decoder), "attention": key})


def products_of(decoder):
    """What multiplies a matrix: the matrices by name, each with its bias."""
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


def fill_up_memory(constants):
    """The memory and what belongs to it, with masked steps up to few lengths."""
    memory, mask = constants["memory"], constants.get("mask")
    if memory.shape[1] is not None:
        return constants
    mask = ops.ones(ops.shape(memory)[:2], "bool") if mask is None else mask
    keys, _ = fill_up(constants["keys"])
    memory, mask = fill_up(memory, mask)
    return {"memory": memory, "keys": keys, "mask": mask}


def top_hidden_state(state):
    """The hidden state of the top cell, `(B, K, U)`."""
    return state["cells"][-1][0]
