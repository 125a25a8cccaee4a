"""The loop of a formula over a whole sequence, made to be fast.

On TensorFlow the inputs are multiplied before the loop, all steps at once, and in the
loop stands the product with the state alone. The gradient gives the weights theirs in
one product after a loop of its own.

Axes in shape comments: B batch, T steps, U units, G gates.
"""

import functools
import operator

import keras
from keras import ops

from kseq.layers import backends
from kseq.layers.backends import beginning, compiled, matmul
from kseq.layers.recurrent.formulas import carried_sizes
from kseq.layers.sums import total


def run(
    formula,
    sequences,
    states,
    input_weights,
    state_weights,
    mask,
    length,
    kept=((), ()),
    reverse=False,
    training=False,
):
    """Runs a formula over all steps.

    Args:
        formula: A class of `formulas`.
        sequences: `(B, T, D)`.
        states: The first states, each `(B, U)`; the first is the output.
        input_weights: The kernel `(D, GU)` of the inputs and its bias `(GU,)`.
        state_weights: The kernel `(U, GU)` of the output and its bias `(GU,)`.
        mask: Boolean `(B, T)`, or None; a masked step leaves the states as they are.
        length: Integer tensor, the number of steps to run, at most T.
        kept: What the inputs and the output are multiplied with before their products,
            `(B, D)` and `(B, U)`: for each nothing, one, or one for each gate.
            Dropout's, which has no gradient.
        reverse: Whether to begin with step `length - 1`.
        training: Whether to keep what the gradient needs, rather than to compute it
            again if a gradient is asked for.

    Returns:
        `(outputs (B, T, U), states)`: the state after each step, at its place whichever
        end the loop began with, and the states after the last.
    """
    weights = [*input_weights, *state_weights]
    weights = [ops.reshape(w, w.shape) for w in weights]  # no variables to TensorFlow
    masks = [] if mask is None else [mask]
    kept = [list(each) for each in kept]
    arguments = (sequences, weights, list(states), masks, kept, length)
    num_constants = len(masks) + len(kept[0]) + len(kept[1]) + 1
    after = slice(None, -1) if reverse else slice(1, None)

    @ops.custom_gradient
    def differentiable(*given):
        tensors = detached(arguments, given)
        histories, saved, last = _forward(formula, reverse, training, *tensors)

        def gradient(*upstream):
            traces = histories, saved
            if not training:
                traces = _forward(formula, reverse, True, *tensors)[:2]
            known = (list(given), *traces, unpacked(upstream))

            @ops.custom_gradient
            def backward(*flat):
                given, *rest = detached(known, flat)
                given = keras.tree.pack_sequence_as(arguments, given)
                return _gradients(formula, reverse, given, *rest), refuse

            slopes = backward(*keras.tree.flatten(known))
            return *slopes, *(None for _ in range(num_constants))

        outputs = histories[0][:, after] if training else histories[0]
        return (outputs, *last), gradient

    outputs, *last = differentiable(*keras.tree.flatten(arguments))
    return outputs, last


def _forward(formula, reverse, saving, sequences, weights, states, masks, kept, length):
    """What the loop gives: the states, what the gradient needs, the last states."""
    kernel, bias, *state_weights = weights
    inputs = [sequences, kernel, bias, kept[0]]
    if not backends.multiplies_as_fast_in_loops():
        inputs = [project(*inputs)]
    loop = _forward_loop(formula, reverse, saving)
    return loop(inputs, state_weights, states, masks, kept[1], length)[:3]


def _gradients(formula, reverse, given, histories, saved, upstream):
    """The gradients of the sequences, the four weights and the first states."""
    sequences, (kernel, _, state_kernel, _), _, masks, kept, length = given
    backward = _backward_loop(formula, reverse)
    d_projected, d_product, d_states = backward(
        state_kernel, masks, kept[1], length, histories, saved, *upstream
    )
    before = histories[0][:, 1:] if reverse else histories[0][:, :-1]  # B T U
    return (
        _gradient_of_inputs(kernel, kept[0], d_projected),
        *_gradients_of_weights(sequences, kept[0], d_projected),
        *_gradients_of_weights(before, kept[1], d_product),
        *d_states,
    )


def _gradient_of_inputs(kernel, kept, upstream):
    """That of `(B, T, D)`, times the kernel, from that of the products."""
    batch, steps, _ = ops.shape(upstream)
    turned = [ops.transpose(k) for k in split_gates(kernel, kept)]
    pairs = zip(split_gates(rows(upstream), kept), turned, strict=True)
    slopes = [ops.reshape(matmul(d, k), (batch, steps, -1)) for d, k in pairs]
    kept = [ops.expand_dims(share, 1) for share in kept]
    return sum(map(operator.mul, slopes, kept)) if kept else slopes[0]


def _gradients_of_weights(factors, kept, upstream):
    """Those of the kernel of `(B, T, D)`, and of the bias, each in one go."""
    factors = dropped(factors, [ops.expand_dims(share, 1) for share in kept])
    pairs = zip(factors, split_gates(upstream, kept), strict=True)
    d_kernel = [matmul(ops.transpose(rows(x)), rows(d)) for x, d in pairs]
    return ops.concatenate(d_kernel, axis=1), total(rows(upstream), axis=0)


def shaped(gates, batch, sizes):
    """Gates as `(batch, size)`; TensorFlow may not know the rows of the states."""
    pairs = zip(gates, sizes, strict=True)
    return [ops.reshape(gate, (batch, size)) for gate, size in pairs]


def times(state, kernels, kept):
    """The state times the recurrent kernel, which is whole, or cut into its gates."""
    pairs = zip(dropped(state, kept), kernels, strict=True)
    return ops.concatenate([matmul(h, k) for h, k in pairs], axis=-1)


def times_turned(d_product, turned, kept):
    """The gradient of the state from that of `times`, with the kernels transposed."""
    pairs = zip(split_gates(d_product, kept), turned, strict=True)
    slopes = [matmul(d, k) for d, k in pairs]
    return sum(map(operator.mul, slopes, kept)) if kept else slopes[0]


def split_gates(tensor, kept):
    """What belongs to each mask of dropout, along the last axis: all, without any."""
    return ops.split(tensor, max(len(kept), 1), axis=-1)


def dropped(state, kept):
    """The state, or what dropout leaves of it for each gate."""
    return [state * share for share in kept] or [state]


def rows(tensor):
    """`(B, T, N)` as `(BT, N)`."""
    return ops.reshape(tensor, (-1, tensor.shape[-1]))


def detached(structure, flat):
    """Packs tensors so that TensorFlow does not look for the gradient of the loop."""
    flat = [ops.stop_gradient(x) for x in flat]
    return keras.tree.pack_sequence_as(structure, flat)


def unpacked(upstream):
    """The gradients of several results, which JAX hands over as one tuple."""
    if len(upstream) == 1 and isinstance(upstream[0], (list, tuple)):
        [upstream] = upstream
    return list(upstream)


def refuse(*upstream):
    raise NotImplementedError(
        "The fast recurrent layers have no second gradient. Build the layer with "
        "`unroll=True`, which leaves its loop to Keras, over a length that is known, "
        "or `keras.layers.RNN(keras.layers.GRUCell(64))`; give a `RecurrentEncoder` or "
        "`RecurrentDecoder` such a cell."
    )


@functools.cache
def _forward_loop(formula, reverse, saving):
    """The loop: the states around the steps, `(B, T + 1, U)` each, gates, and the last.

    Without `saving` it gives the output after each step alone, `(B, T, U)`, and nothing
    of the gates.
    """

    def forward(inputs, state_weights, states, masks, kept, length):
        batch, steps = ops.shape(inputs[0])[:2]
        kernel, bias = state_weights
        units, dtype = kernel.shape[0], kernel.dtype
        kernels = split_gates(kernel, kept)

        def buffer(steps, size):
            return ops.zeros((batch, steps, size), dtype)

        histories, sizes = [buffer(steps, units)], carried_sizes(formula, units)
        begin, end = real_numbers(masks, length, steps, reverse)
        if saving:
            first = length - begin if reverse else begin
            histories = [write(buffer(steps + 1, units), s, first) for s in states]
            sizes = [n * units for n in formula.saved]
        saved = [buffer(steps, size) for size in sizes] if saving else []
        gates = [ops.zeros((batch, size), dtype) for size in sizes]

        def body(t, old, gates, histories, saved):
            step, _, after = places(t, length, reverse)
            product = times(old[0], kernels, kept) + bias
            new, gates = formula.advance(read_input(inputs, step), product, old)
            gates = shaped(gates[: len(sizes)], batch, sizes)
            new = choose(masks, step, new, old)
            place = after if saving else step
            histories = [
                write(h, s, place)
                for h, s in zip(histories, new[: len(histories)], strict=True)
            ]
            if saving:
                saved = [write(b, g, step) for b, g in zip(saved, gates, strict=True)]
            return t + 1, new, gates, histories, saved

        _, last, gates, histories, saved = ops.while_loop(
            lambda t, *_: t < end,
            body,
            (begin, list(states), gates, histories, saved),
        )
        if masks:
            numbers = numbers_of_places(histories[0], length, reverse, saving)
            outside = [states[0], last[0]]
            first, after = [ops.expand_dims(state, 1) for state in outside]
            outputs = ops.where(numbers < begin, first, histories[0])
            histories[0] = ops.where(numbers >= end, after, outputs)
        return histories, saved, last, gates

    return compiled(forward)


@functools.cache
def _backward_loop(formula, reverse):
    """The loop back through the steps, for the gradients of all but the kernel."""

    def backward(kernel, masks, kept, length, histories, saved, d_outputs, *d_last):
        batch, steps = ops.shape(d_outputs)[:2]
        turned = [ops.transpose(k) for k in split_gates(kernel, kept)]
        d_projected = ops.zeros((batch, steps, kernel.shape[1]), d_outputs.dtype)
        begin, end = real_numbers(masks, length, steps, reverse)
        d_states = list(d_last)
        if masks:  # before the first real step and after the last the output stays
            numbers = numbers_of_places(d_outputs, length, reverse)
            is_after = (numbers >= end) & (numbers < length)
            d_states[0] += total(ops.where(is_after, d_outputs, 0), axis=1)

        def body(t, d_states, d_projected):
            step, before, after = places(t, length, reverse)
            d_states = [d_states[0] + read(d_outputs, step), *d_states[1:]]
            gates = [read(buffer, step) for buffer in saved]
            moved = choose(masks, step, d_states, [0 * d for d in d_states])
            d_inputs, d_before = formula.backward(
                moved,
                [read(h, before) for h in histories],
                [read(h, after) for h in histories],
                gates,
            )
            d_product = formula.gradient_of_product(d_inputs, gates)
            d_before[0] = d_before[0] + times_turned(d_product, turned, kept)
            if masks:
                stayed = [d - m for d, m in zip(d_states, moved, strict=True)]
                d_before = [d + s for d, s in zip(d_before, stayed, strict=True)]
            return t - 1, d_before, write(d_projected, d_inputs, step)

        _, d_states, d_projected = ops.while_loop(
            lambda t, *_: t >= begin, body, (end - 1, d_states, d_projected)
        )
        if masks:
            is_before = (numbers >= 0) & (numbers < begin)
            d_states[0] += total(ops.where(is_before, d_outputs, 0), axis=1)
        d_product = formula.gradient_of_product(d_projected, saved)
        return d_projected, d_product, d_states

    return compiled(backward)


def places(t, length, reverse):
    """Where step `t` of the loop is, and the states before and after it."""
    if reverse:
        return length - 1 - t, length - t, length - 1 - t
    return t, t, t + 1


def choose(masks, step, new, old):
    """The new tensors where the step is real, and elsewhere the old."""
    if not masks:
        return new
    real = ops.expand_dims(read(masks[0], step), -1)  # B 1
    return [ops.where(real, n, o) for n, o in zip(new, old, strict=True)]


def real_numbers(masks, length, steps, reverse):
    """Which steps the loop takes, `begin <= t < end`: those that are real in some row.

    So a batch that is filled up on either side costs what is real in it.
    """
    if not masks:
        return ops.zeros_like(length), length
    numbers = ops.arange(steps, dtype="int32")
    is_real = ops.any(masks[0], axis=0) & (numbers < length)  # T
    first = ops.min(ops.where(is_real, numbers, steps))
    last = ops.max(ops.where(is_real, numbers, -1))
    return (length - 1 - last, length - first) if reverse else (first, last + 1)


def numbers_of_places(sequence, length, reverse, is_after=False):
    """Which step of the loop is at each place of `(B, T, U)`: `(T, 1)`.

    With `is_after`, which one has left there what comes after it.
    """
    places = ops.arange(ops.shape(sequence)[1], dtype="int32")[:, None]
    if reverse:
        return length - 1 - places
    return places - 1 if is_after else places


def read(sequence, step):
    """Step `step` of `(B, T, ...)`."""
    batch, _, *rest = ops.shape(sequence)
    start = beginning(len(rest) + 2, 1, step)
    return ops.squeeze(ops.slice(sequence, start, (batch, 1, *rest)), 1)


def read_input(inputs, step):
    """The product of a step's input: it is known, or made of `project`'s arguments."""
    if len(inputs) == 1:
        return read(inputs[0], step)
    sequences, kernel, bias, kept = inputs
    return times(read(sequences, step), split_gates(kernel, kept), kept) + bias


def first_steps(sequence, length):
    """The first steps of `(B, T, U)`; the gradient of `[:, :length]` would be slow."""
    batch, _, width = ops.shape(sequence)
    return ops.slice(sequence, (0, 0, 0), (batch, length, width))


def write(sequence, value, step):
    """`(B, T, ...)` with `value (B, ...)` at step `step`."""
    start = beginning(len(value.shape) + 1, 1, step)
    return ops.slice_update(sequence, start, ops.expand_dims(value, 1))


def project(inputs, kernel, bias, kept=()):
    """The inputs of all steps times a matrix: `(B, T, D)` gives `(B, T, GU)`.

    `kept` is as in `run`, `(B, D)` each.
    """
    batch, steps, _ = ops.shape(inputs)
    kept = [ops.expand_dims(share, 1) for share in kept]
    # One product of matrices: Keras' of `(B, T, D)` has a slow gradient.
    inputs = [rows(each) for each in dropped(inputs, kept)]
    projected = [
        matmul(x, k) for x, k in zip(inputs, split_gates(kernel, kept), strict=True)
    ]
    projected = ops.concatenate(projected, axis=-1) + bias
    return ops.reshape(projected, (batch, steps, kernel.shape[1]))
