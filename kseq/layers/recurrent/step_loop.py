"""A loop over time that XLA compiles by itself, with its gradient.

TensorFlow differentiates a loop by keeping every tensor of every step and by adding up
the gradient of each weight step by step, and XLA cannot compile that where lengths are
unknown. Here the gradient is a loop of its own: it takes each step once more from the
states it began with, but for the products with a matrix, which were kept; and what
multiplies a matrix is put aside, so that each gets its gradient in one product after
the loop.

Axes in shape comments: B batch, T steps, U units.
"""

import functools

import keras
from keras import ops

from kseq.layers import backends
from kseq.layers.backends import matmul
from kseq.layers.recurrent.formula_loop import (
    choose,
    detached,
    places,
    read,
    refuse,
    shaped,
    unpacked,
    write,
)
from kseq.layers.sums import precise, total


def run_steps(
    step,
    inputs,
    states,
    constants,
    products,
    variables,
    masks,
    length,
    reverse=False,
    training=False,
    key=None,
    gate_sizes=(),
):
    """Runs a step function over `(B, T, D)`.

    Args:
        step: Function `(inputs (B, D), states, constants, multiply) -> states`, where
            `multiply(name, x)`, once for each name, gives `x` times the matrix of that
            name, plus its bias.
        inputs: `(B, T, D)`.
        states: List of the first states, `(B, U)` each.
        constants: Dictionary of tensors that every step reads.
        products: Dictionary of `(matrix, bias)`.
        variables: Trainable Keras variables that the step reads besides.
        masks: Nothing, or a list of one boolean mask `(B, T)`; a masked step leaves
            the states as they are.
        length: Integer tensor, the number of steps to run, at most T.
        reverse: Whether to begin with step `length - 1`.
        training: Whether to keep the products, which the gradient needs, rather than
            to compute them again if a gradient is asked for.
        key: What is equal where steps do the same to the tensors that they are given,
            so that inside `backends.sharing` they are compiled once. None for a step
            that is like no other.
        gate_sizes: Widths of what `step` returns after the states, each `(B, width)`,
            which the loop carries unread; see `formulas.carried_sizes`.

    Returns:
        List of the states after each step, `(B, T, U)` each, at its place whichever end
        the loop began with.
    """
    if not backends.available():
        return _run_eagerly(step, inputs, states, constants, products, masks, reverse)
    floats = {k: v for k, v in constants.items() if _is_float(v)}
    others = {k: v for k, v in constants.items() if k not in floats}
    # Tensors, which TensorFlow does not take for variables.
    weights = [ops.reshape(v, v.shape) for v in variables]
    arguments = (inputs, states, floats, products, weights, others, masks, length)
    make_loops = functools.partial(Loops, step, variables, reverse, gate_sizes)
    loops = backends.once(key and (key, reverse), make_loops)

    @ops.custom_gradient
    def differentiable(*given):
        tensors = detached(arguments, given)
        histories, saved, _ = loops.forward[training](*tensors)

        def gradient(*upstream):
            upstream = unpacked(upstream)
            kept = saved if training else loops.forward[True](*tensors)[1]
            known = (arguments, histories, kept, upstream)

            @ops.custom_gradient
            def slopes(*flat):
                tensors, *rest = detached(known, flat)
                results = loops.backward(tensors, *rest)
                d_states, d_inputs, d_floats, d_weights, factors, d_products = results
                d_products = {
                    name: (_transposed(factors[name], d), total(d, axis=(0, 1)))
                    for name, d in d_products.items()
                }
                slopes = (d_inputs, d_states, d_floats, d_products, d_weights)
                return tuple(keras.tree.flatten(slopes)), refuse

            flat = keras.tree.flatten((given, histories, kept, upstream))
            rest = len(others) + len(masks) + 1
            return *slopes(*flat), *(None for _ in range(rest))

        after = slice(None, -1) if reverse else slice(1, None)
        return tuple(h[:, after] for h in histories), gradient

    return list(differentiable(*keras.tree.flatten(arguments)))


def _run_eagerly(step, inputs, states, constants, products, masks, reverse):
    """All steps one by one, on PyTorch, which differentiates them."""

    def multiply(name, x):
        matrix, bias = products[name]
        return matmul(x, matrix) + bias

    steps = ops.unstack(inputs, axis=1)  # B D
    histories = [None] * len(steps)
    for place in reversed(range(len(steps))) if reverse else range(len(steps)):
        new = step(steps[place], states, constants, multiply)[: len(states)]
        states = histories[place] = choose(masks, place, new, states)
    return [ops.stack(history, axis=1) for history in zip(*histories, strict=True)]


class Loops:
    """The loops of a step function, compiled: `forward[saving]` and `backward`.

    They know no tensor but those that they are given, as `run_steps` orders them.
    """

    def __init__(self, step, variables, reverse, gate_sizes):
        self.step, self.variables = step, variables
        self.reverse, self.gate_sizes = reverse, gate_sizes
        self.forward = {
            saving: backends.compiled(functools.partial(self._forward, saving))
            for saving in (False, True)
        }
        self.backward = backends.compiled(self._backward)

    def _forward(self, saving, *tensors):
        """All steps: the states between them, the products, and the last gates."""
        inputs, states, floats, products, weights, others, masks, length = tensors
        batch, steps = ops.shape(inputs)[:2]

        def body(t, states, histories, saved, _):
            place, _, after = places(t, length, self.reverse)
            found = {}

            def multiply(name, x):
                matrix, bias = products[name]
                found[name] = matmul(x, matrix) + bias
                return found[name]

            run = self._bound(others, multiply)
            new = run(read(inputs, place), states, floats, weights)
            gates = shaped(new[len(states) :], batch, self.gate_sizes)
            new = choose(masks, place, new[: len(states)], states)
            histories = [write(h, s, after) for h, s in _zip(histories, new)]
            saved = {k: write(v, found[k], place) for k, v in saved.items()}
            return t + 1, new, histories, saved, gates

        histories = [_buffer(s, steps + 1) for s in states]
        first = length if self.reverse else 0
        histories = [write(h, s, first) for h, s in _zip(histories, states)]
        saved = {
            name: ops.zeros((batch, steps, bias.shape[0]), bias.dtype)
            for name, (_, bias) in (products.items() if saving else ())
        }
        gates = [ops.zeros((batch, size), inputs.dtype) for size in self.gate_sizes]
        first = (ops.zeros((), "int32"), states, histories, saved, gates)
        return ops.while_loop(lambda t, *_: t < length, body, first)[2:]

    def _backward(self, tensors, histories, saved, upstream):
        """All steps, the last first: the gradients, and the factors of each product."""
        _, _, floats, products, weights, _, _, length = tensors
        turned = {name: ops.transpose(matrix) for name, (matrix, _) in products.items()}

        def body(t, d_states, d_inputs, d_floats, d_weights, factors, d_products):
            place, begin, _ = places(t, length, self.reverse)
            before = [read(h, begin) for h in histories]
            known = {name: read(v, place) for name, v in saved.items()}
            d_new = [d + read(u, place) for d, u in _zip(d_states, upstream)]
            gradients, multiplied = self._step_back(
                tensors, turned, place, before, known, d_new
            )
            d_read, d_states, d_f, d_w, d_p = gradients
            return (
                t - 1,
                d_states,
                write(d_inputs, d_read, place),
                {k: v + precise(d_f[k]) for k, v in d_floats.items()},
                [a + precise(b) for a, b in _zip(d_weights, d_w)],
                {k: write(v, multiplied[k], place) for k, v in factors.items()},
                {k: write(v, d_p[k], place) for k, v in d_products.items()},
            )

        first = (length - 1, *_no_gradients(tensors))
        results = ops.while_loop(lambda t, *_: t >= 0, body, first)[1:]
        d_states, d_inputs, d_floats, d_weights, *of_products = results
        d_floats = {k: ops.cast(v, floats[k].dtype) for k, v in d_floats.items()}
        d_weights = [ops.cast(d, w.dtype) for d, w in _zip(d_weights, weights)]
        return d_states, d_inputs, d_floats, d_weights, *of_products

    def _step_back(self, tensors, turned, place, before, known, d_new):
        """The gradients of all that one step takes, and what it multiplies.

        Args:
            tensors: As `run_steps` orders them.
            turned: The matrices, transposed.
            place: The number of the step.
            before: The states before it.
            known: Its products by name.
            d_new: The gradients of the states after it.
        """
        inputs, _, floats, _, weights, others, masks, _ = tensors
        nothing = {name: ops.zeros_like(product) for name, product in known.items()}

        def take(inputs, states, floats, weights, added):
            multiplied = {}

            def multiply(name, x):
                multiplied[name] = x
                return _known(known[name], x, turned[name], added[name])

            new = self._bound(others, multiply)(inputs, states, floats, weights)
            return choose(masks, place, new[: len(states)], states), multiplied

        arguments = (read(inputs, place), before, floats, weights, nothing)
        return backends.pull_back(take, arguments, d_new)

    def _bound(self, others, multiply):
        """The step as a function of what it may be differentiated with."""

        def run(inputs, states, floats, weights):
            pairs = list(zip(self.variables, weights, strict=True))
            with keras.StatelessScope(state_mapping=pairs):
                return self.step(inputs, states, {**floats, **others}, multiply)

        return run


def _no_gradients(tensors):
    """Zeros for the gradients that the loop back adds up, or writes step by step."""
    inputs, states, floats, products, weights, *_ = tensors
    batch, steps = ops.shape(inputs)[:2]
    zeros = ops.zeros_like
    factors, d_products = {}, {}
    for name, (matrix, bias) in products.items():
        factors[name] = ops.zeros((batch, steps, matrix.shape[0]), matrix.dtype)
        d_products[name] = ops.zeros((batch, steps, bias.shape[0]), bias.dtype)
    d_floats = {name: zeros(precise(value)) for name, value in floats.items()}
    d_weights = [zeros(precise(weight)) for weight in weights]
    d_states = [zeros(state) for state in states]
    return d_states, zeros(inputs), d_floats, d_weights, factors, d_products


def _known(product, x, turned, added):
    """A product that is known, with the gradient of `x matrix + added`."""

    @ops.custom_gradient
    def multiply(x, added):
        return product, lambda slope: (matmul(slope, turned), slope)

    return multiply(x, added)


def _transposed(factors, gradients):
    """`sum over b, t of factors (B, T, D)^T gradients (B, T, U)`, as one product."""
    factors = ops.reshape(factors, (-1, factors.shape[-1]))  # BT D
    gradients = ops.reshape(gradients, (-1, gradients.shape[-1]))  # BT U
    return matmul(ops.transpose(factors), gradients)


def _buffer(step, steps):
    """Zeros `(B, T, U)` for `T` steps that look like `(B, U)`."""
    batch, width = ops.shape(step)
    return ops.zeros((batch, steps, width), step.dtype)


def _is_float(tensor):
    return "float" in keras.backend.standardize_dtype(tensor.dtype)


def _zip(first, second):
    return zip(first, second, strict=True)
