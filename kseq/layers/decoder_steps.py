"""The steps of a recurrent decoder, all of them, for XLA: the products before the loop.

Axes in shape comments: B batch, T target steps, S source steps, D features, U units,
G gates.
"""

import keras
from keras import ops

from kseq.layers import recurrences
from kseq.layers.attention import BahdanauAttention, LuongAttention
from kseq.layers.compiled_loop import run_steps
from kseq.layers.masking import step_mask
from kseq.layers.recurrence_loop import first_steps, project
from kseq.layers.recurrent_layers import fill_up

RECURRENCES = {
    "rnn": recurrences.SimpleRNN,
    "lstm": recurrences.LSTM,
    "gru": recurrences.GRU,
}


def all_steps(decoder, inputs, state, constants, inputs_mask, between, training):
    """The tree of states after each step, `(B, T, U)` each.

    Args:
        decoder: A `RecurrentDecoder` whose cell is known by its name.
        inputs: `(B, T, D)`.
        state: The first state, a tree of `(B, 1, U)`, from `decoder.start`.
        constants: From `decoder.start`.
        inputs_mask: Boolean `(B, T)`, or None.
        between: What each layer's output is multiplied with, `(B, 1, U)`, but the
            last one's.
        training: Whether a gradient will be asked for.
    """
    recurrence = RECURRENCES[decoder.cell]
    length = ops.shape(inputs)[1]
    inputs, mask = fill_up(inputs, step_mask(inputs_mask, inputs))
    products = products_of(decoder)
    kernel, bias = products.pop("kernel_0")
    if decoder._attends_before or decoder._feeds_output:
        kernel, fed = ops.split(kernel, [inputs.shape[-1]])
        products["fed"] = (fed, ops.zeros_like(bias))
    projected = project(inputs, kernel, bias)

    def step(inputs, states, constants, multiply):
        last = keras.tree.pack_sequence_as(state, states)
        hidden = ops.expand_dims(last["cells"][-1][0], 1)  # B 1 U
        new, seen = {"cells": []}, []
        if decoder._attends_before:
            context, _ = decoder._attend(hidden, constants)
            new["context"] = ops.squeeze(context, 1)  # B D_m
            inputs = inputs + multiply("fed", new["context"])
        elif decoder._feeds_output:
            inputs = inputs + multiply("fed", last["output"])
        for index, cell_state in enumerate(last["cells"]):
            if index > 0:
                below = new["cells"][-1][0] * constants[f"between_{index - 1}"]
                inputs = multiply(f"kernel_{index}", below)
            product = multiply(f"recurrent_{index}", cell_state[0])
            cell_state, gates = recurrence.advance(inputs, product, cell_state)
            new["cells"].append(cell_state)
            seen += gates[: recurrence.num_carried]
        if decoder._feeds_output:
            hidden = cell_state[0]  # B U
            context, _ = decoder._attend(ops.expand_dims(hidden, 1), constants)
            read = ops.concatenate([hidden, ops.squeeze(context, 1)], axis=-1)
            new["output"] = ops.tanh(multiply("readout", read))
        return keras.tree.flatten(new) + seen

    fixed = {f"between_{i}": ops.squeeze(b, 1) for i, b in enumerate(between)}
    variables = []
    if decoder._attends_before or decoder._feeds_output:
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
        gate_sizes=len(decoder.cells)
        * recurrences.carried_sizes(recurrence, decoder.units),
    )
    return keras.tree.pack_sequence_as(
        state, [first_steps(h, length) for h in histories]
    )


def work_of(decoder):
    """What is equal where decoders do the same, whatever their weights and names.

    None where the attention is not of kseq: its config may not say all.
    """
    if type(decoder.attention) not in (type(None), BahdanauAttention, LuongAttention):
        return None
    config = decoder.get_config()
    del config["name"]
    if config["attention"] is not None:
        del config["attention"]["config"]["name"]
    return repr(config)


def products_of(decoder):
    """What multiplies a matrix: the matrices by name, each with its bias."""
    products = {}
    for index, cell in enumerate(decoder.cells):
        bias, recurrent_bias = recurrences.split_bias(cell)
        products[f"kernel_{index}"] = (cell.kernel, bias)
        products[f"recurrent_{index}"] = (cell.recurrent_kernel, recurrent_bias)
    if decoder._feeds_output:
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
