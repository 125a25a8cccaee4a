"""Fast loop of a formula over a whole sequence, with its own gradient.

On TensorFlow the inputs of all steps are multiplied before the loop, so the loop holds
only the product with the state. The gradient is a second loop; after it, the gradient
of each weight is a single product.

Axes in shape comments: B batch, T steps, D features, U units, G gates.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import keras
from keras import ops

from kseq.layers import backends
from kseq.layers.backends import compiled, matmul
from kseq.layers.recurrent.formulas import Formula, carried_sizes
from kseq.layers.recurrent.steps import (
    choose,
    loop_step_of_each,
    places,
    read,
    real_range,
    rows,
    write,
)
from kseq.layers.sums import total
from kseq.typing import Tensor, Tree

# The dropout masks of a tensor that is multiplied: none, one, or one for each gate.
DropoutMasks: TypeAlias = Sequence[Tensor]


def run(
    formula: Formula,
    sequences: Tensor,
    states: Sequence[Tensor],
    input_weights: Sequence[Tensor],
    state_weights: Sequence[Tensor],
    mask: Tensor | None,
    length: Tensor,
    kept: tuple[DropoutMasks, DropoutMasks] = ((), ()),
    reverse: bool = False,
    training: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """Run a formula over all steps.

    Args:
        formula: A class of `formulas`.
        sequences: `(B, T, D)`.
        states: Initial states, each `(B, U)`; the first is the output.
        input_weights: Kernel `(D, GU)` and bias `(GU,)` of the inputs.
        state_weights: Kernel `(U, GU)` and bias `(GU,)` of the output; `(U, 0)` and
            `(0,)` for a formula without that product.
        mask: Boolean `(B, T)`, or None; a masked step leaves the states unchanged.
        length: Integer tensor, the number of steps to run, at most T.
        kept: Dropout masks of the inputs `(B, D)` and of the output `(B, U)`, which
            multiply them before their products: none, one, or one for each gate. They
            get no gradient.
        reverse: Whether to start at step `length - 1`.
        training: Whether to save what the gradient needs. If False, it is computed
            again when a gradient is requested.

    Returns:
        `(outputs (B, T, U), states)`: the output of each step at its own position, in
        either direction, and the states after the last step.
    """
    weights = [*input_weights, *state_weights]
    # Tensors, which TensorFlow does not treat as variables.
    weights = [ops.reshape(w, w.shape) for w in weights]
    masks = [] if mask is None else [mask]
    kept_lists = [list(each) for each in kept]
    arguments = (sequences, weights, list(states), masks, kept_lists, length)
    num_constants = len(masks) + len(kept_lists[0]) + len(kept_lists[1]) + 1
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
                return _gradients(formula, reverse, given, *rest), no_second_gradient

            slopes = backward(*keras.tree.flatten(known))
            return *slopes, *(None for _ in range(num_constants))

        outputs = histories[0][:, after] if training else histories[0]
        return (outputs, *last), gradient

    outputs, *last = differentiable(*keras.tree.flatten(arguments))
    return outputs, last


def _forward(
    formula: Formula,
    reverse: bool,
    saving: bool,
    sequences: Tensor,
    weights: list[Tensor],
    states: list[Tensor],
    masks: list[Tensor],
    kept: list[list[Tensor]],
    length: Tensor,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Run the loop: return all states, the tensors to save, and the final states."""
    kernel, bias, *state_weights = weights
    inputs = [sequences, kernel, bias, kept[0]]
    if not backends.multiplies_as_fast_in_loops():
        inputs = [project(*inputs)]
    loop = _forward_loop(formula, reverse, saving)  # type: ignore[arg-type]
    return loop(inputs, state_weights, states, masks, kept[1], length)[:3]


def _gradients(
    formula: Formula,
    reverse: bool,
    given: Tree,
    histories: list[Tensor],
    saved: list[Tensor],
    upstream: list[Tensor],
) -> tuple[Tensor, ...]:
    """Return the gradients of the sequences, four weights and initial states."""
    sequences, (kernel, _, state_kernel, _), _, masks, kept, length = given
    backward = _backward_loop(formula, reverse)  # type: ignore[arg-type]
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


def _gradient_of_inputs(kernel: Tensor, kept: DropoutMasks, upstream: Tensor) -> Tensor:
    """Return the gradient of the inputs `(B, T, D)` from that of their products."""
    batch, steps, _ = ops.shape(upstream)
    transposed = [ops.transpose(k) for k in split_gates(kernel, kept)]
    pairs = zip(split_gates(rows(upstream), kept), transposed, strict=True)
    slopes = [ops.reshape(matmul(d, k), (batch, steps, -1)) for d, k in pairs]
    kept = [ops.expand_dims(share, 1) for share in kept]
    return sum(map(operator.mul, slopes, kept)) if kept else slopes[0]


def _gradients_of_weights(
    factors: Tensor, kept: DropoutMasks, upstream: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of the kernel that multiplies `(B, T, D)`, and its bias."""
    if upstream.shape[-1] == 0:  # JAX cannot reshape it
        return ops.zeros((factors.shape[-1], 0), upstream.dtype), upstream[0, 0]
    each = dropped(factors, [ops.expand_dims(share, 1) for share in kept])
    pairs = zip(each, split_gates(upstream, kept), strict=True)
    d_kernel = [matmul(ops.transpose(rows(x)), rows(d)) for x, d in pairs]
    return ops.concatenate(d_kernel, axis=1), total(rows(upstream), axis=0)


def shaped(gates: Sequence[Tensor], batch: Any, sizes: Sequence[int]) -> list[Tensor]:
    """Reshape gates to `(batch, size)`; TensorFlow may not know the states' batch."""
    pairs = zip(gates, sizes, strict=True)
    return [ops.reshape(gate, (batch, size)) for gate, size in pairs]


def times(state: Tensor, kernels: Sequence[Tensor], kept: DropoutMasks) -> Tensor:
    """Return the product of a tensor and its kernel, given whole or split by gate."""
    pairs = zip(dropped(state, kept), kernels, strict=True)
    return ops.concatenate([matmul(h, k) for h, k in pairs], axis=-1)


def times_transposed(
    d_product: Tensor, transposed: Sequence[Tensor], kept: DropoutMasks
) -> Tensor:
    """Return the gradient of the state from that of `times` and transposed kernels."""
    pairs = zip(split_gates(d_product, kept), transposed, strict=True)
    slopes = [matmul(d, k) for d, k in pairs]
    return sum(map(operator.mul, slopes, kept)) if kept else slopes[0]


def split_gates(tensor: Tensor, kept: DropoutMasks) -> list[Tensor]:
    """Split the last axis by dropout mask; without masks, or with one, not at all."""
    return ops.split(tensor, max(len(kept), 1), axis=-1)


def dropped(state: Tensor, kept: DropoutMasks) -> list[Tensor]:
    """Return the state times each dropout mask, or without masks the state itself."""
    return [state * share for share in kept] or [state]


def detached(structure: Tree, flat: Sequence[Tensor]) -> Tree:
    """Pack tensors without gradients, so that TensorFlow does not differentiate."""
    flat = [ops.stop_gradient(x) for x in flat]
    return keras.tree.pack_sequence_as(structure, flat)


def unpacked(upstream: Sequence[Any]) -> list[Tensor]:
    """Return the gradients of several results, which JAX passes as one tuple."""
    if len(upstream) == 1 and isinstance(upstream[0], (list, tuple)):
        [upstream] = upstream
    return list(upstream)


def no_second_gradient(*upstream: Any) -> NoReturn:
    raise NotImplementedError(
        "The fast recurrent layers have no second gradient. Build the layer with "
        "`unroll=True` and a known length, so that Keras runs its loop, or use "
        "`keras.layers.RNN(keras.layers.GRUCell(64))`. Pass such a cell to a "
        "`RecurrentEncoder` or `RecurrentDecoder`."
    )


@functools.cache
def _forward_loop(
    formula: Formula, reverse: bool, saving: bool
) -> Callable[..., tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]]:
    """Return the compiled loop, which returns `(histories, saved, last, gates)`.

    With `saving`, the histories are the states before, between and after the steps,
    `(B, T + 1, U)` each. Without, they are only the outputs, `(B, T, U)`, and nothing
    is saved.
    """

    def forward(inputs, state_weights, states, masks, kept, length):
        batch, steps = ops.shape(inputs[0])[:2]
        kernel, bias = state_weights
        units, dtype = kernel.shape[0], kernel.dtype
        kernels = split_gates(kernel, kept)

        def buffer(steps, size):
            return ops.zeros((batch, steps, size), dtype)

        histories, sizes = [buffer(steps, units)], carried_sizes(formula, units)
        begin, end = real_range(masks, length, steps, reverse)
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
            numbers = loop_step_of_each(histories[0], length, reverse, saving)
            outside = [states[0], last[0]]
            first, after = [ops.expand_dims(state, 1) for state in outside]
            outputs = ops.where(numbers < begin, first, histories[0])
            histories[0] = ops.where(numbers >= end, after, outputs)
        return histories, saved, last, gates

    return compiled(forward)


@functools.cache
def _backward_loop(
    formula: Formula, reverse: bool
) -> Callable[..., tuple[Tensor, Tensor, list[Tensor]]]:
    """Return the compiled loop of the gradient, from the last step to the first.

    It returns the gradients of the inputs' products, the states' products and the
    initial states.
    """

    def backward(kernel, masks, kept, length, histories, saved, d_outputs, *d_last):
        batch, steps = ops.shape(d_outputs)[:2]
        transposed = [ops.transpose(k) for k in split_gates(kernel, kept)]
        width = formula.num_gates * kernel.shape[0]
        d_projected = ops.zeros((batch, steps, width), d_outputs.dtype)
        begin, end = real_range(masks, length, steps, reverse)
        d_states = list(d_last)
        if masks:  # outputs are constant before the first real step and after the last
            numbers = loop_step_of_each(d_outputs, length, reverse)
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
            d_before[0] = d_before[0] + times_transposed(d_product, transposed, kept)
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


def read_input(inputs: list[Any], step: Tensor | int) -> Tensor:
    """Return the product of a step's input.

    `inputs` is either the products of all steps, or the arguments of `project`.
    """
    if len(inputs) == 1:
        return read(inputs[0], step)
    sequences, kernel, bias, kept = inputs
    return times(read(sequences, step), split_gates(kernel, kept), kept) + bias


def project(
    inputs: Tensor, kernel: Tensor, bias: Tensor, kept: DropoutMasks = ()
) -> Tensor:
    """Return the products of all inputs `(B, T, D)` with a kernel, `(B, T, GU)`.

    `kept` holds dropout masks `(B, D)`, as in `run`.
    """
    batch, steps, _ = ops.shape(inputs)
    kept = [ops.expand_dims(share, 1) for share in kept]
    # A product of matrices, since that of `(B, T, D)` in Keras has a slow gradient.
    each = [rows(dropped_input) for dropped_input in dropped(inputs, kept)]
    products = [
        matmul(x, k) for x, k in zip(each, split_gates(kernel, kept), strict=True)
    ]
    projected = ops.concatenate(products, axis=-1) + bias
    return ops.reshape(projected, (batch, steps, kernel.shape[1]))
