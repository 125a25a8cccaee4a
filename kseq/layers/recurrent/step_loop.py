"""Loop of any step function, compiled by XLA, with its own gradient.

To differentiate a loop, TensorFlow saves every tensor of every step and sums up the
gradient of each weight step by step. XLA cannot compile that if lengths are unknown.
Here the gradient is a second loop. It computes each step again from the states before
it, except for the products with matrices, which were saved. It also stores the factors
of these products, so that after the loop the gradient of each matrix is a single
product.

Axes in shape comments: B batch, T steps, D features, U units.
"""

import functools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from kseq.layers import backends
from kseq.layers.backends import matmul
from kseq.layers.recurrent.formula_loop import (
    detached,
    no_second_gradient,
    shaped,
    unpacked,
)
from kseq.layers.recurrent.steps import choose, places, read, write
from kseq.layers.sums import precise, total
from kseq.typing import Tensor

# `(inputs, states, constants, multiply) -> states and gates`, see `run_steps`.
Step: TypeAlias = Callable[
    [Tensor, list[Tensor], dict[str, Tensor], Callable[[str, Tensor], Tensor]],
    list[Tensor],
]
# By name: a matrix `(D, U)` and its bias `(U,)`.
Products: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]


def run_steps(
    step: Step,
    inputs: Tensor,
    states: list[Tensor],
    constants: dict[str, Tensor],
    products: Products,
    variables: Sequence[keras.Variable],
    masks: list[Tensor],
    length: Tensor,
    reverse: bool = False,
    training: bool = False,
    key: Hashable | None = None,
    gate_sizes: Sequence[int] = (),
) -> list[Tensor]:
    """Run a step function over `(B, T, D)`.

    Args:
        step: Function `(inputs (B, D), states, constants, multiply) -> states`. It may
            call `multiply(name, x)` once for each name, which returns `x` times the
            matrix of that name, plus its bias.
        inputs: `(B, T, D)`.
        states: List of initial states, `(B, U)` each.
        constants: Dictionary of tensors that every step reads.
        products: Dictionary of `(matrix, bias)`.
        variables: The other trainable Keras variables that the step reads.
        masks: An empty list, or a list of one boolean mask `(B, T)`; a masked step
            leaves the states unchanged.
        length: Integer tensor, the number of steps to run, at most T.
        reverse: Whether to start at step `length - 1`.
        training: Whether to save the products, which the gradient needs. If False, they
            are computed again when a gradient is requested.
        key: A value that is equal for steps that compute the same function of their
            tensors; inside `backends.sharing` these are compiled once. None for a step
            that shares with no other.
        gate_sizes: Widths of the tensors `(B, width)` that `step` returns after the
            states and that the loop carries without use, see `formulas.carried_sizes`.

    Returns:
        List of the states after each step, `(B, T, U)` each; every step is at its own
        position, in either direction.
    """
    if not backends.available():
        return _run_eagerly(step, inputs, states, constants, products, masks, reverse)
    floats = {k: v for k, v in constants.items() if _is_float(v)}
    others = {k: v for k, v in constants.items() if k not in floats}
    # Tensors, which TensorFlow does not treat as variables.
    weights = [ops.reshape(v, v.shape) for v in variables]
    arguments = (inputs, states, floats, products, weights, others, masks, length)
    make_loops = functools.partial(Loops, step, variables, reverse, gate_sizes)
    loops: Loops = backends.once(key and (key, reverse), make_loops)

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
                    name: (_gradient_of_matrix(factors[name], d), total(d, axis=(0, 1)))
                    for name, d in d_products.items()
                }
                slopes = (d_inputs, d_states, d_floats, d_products, d_weights)
                return tuple(keras.tree.flatten(slopes)), no_second_gradient

            flat = keras.tree.flatten((given, histories, kept, upstream))
            rest = len(others) + len(masks) + 1
            return *slopes(*flat), *(None for _ in range(rest))

        after = slice(None, -1) if reverse else slice(1, None)
        return tuple(h[:, after] for h in histories), gradient

    return list(differentiable(*keras.tree.flatten(arguments)))


def _run_eagerly(
    step: Step,
    inputs: Tensor,
    states: list[Tensor],
    constants: dict[str, Tensor],
    products: Products,
    masks: list[Tensor],
    reverse: bool,
) -> list[Tensor]:
    """Run all steps one by one, on PyTorch, which differentiates them itself."""

    def multiply(name, x):
        matrix, bias = products[name]
        return matmul(x, matrix) + bias

    steps = ops.unstack(inputs, axis=1)  # B D
    histories: list[list[Tensor]] = [[] for _ in steps]
    for place in reversed(range(len(steps))) if reverse else range(len(steps)):
        new = step(steps[place], states, constants, multiply)[: len(states)]
        states = histories[place] = choose(masks, place, new, states)
    return [ops.stack(history, axis=1) for history in zip(*histories, strict=True)]


class Loops:
    """Compiled loops of a step function: `forward[saving]` and `backward`.

    They hold no tensors; all are passed in the order of `run_steps`.
    """

    def __init__(
        self,
        step: Step,
        variables: Sequence[keras.Variable],
        reverse: bool,
        gate_sizes: Sequence[int],
    ) -> None:
        self.step, self.variables = step, variables
        self.reverse, self.gate_sizes = reverse, gate_sizes
        self.forward = {
            saving: backends.compiled(functools.partial(self._forward, saving))
            for saving in (False, True)
        }
        self.backward = backends.compiled(self._backward)

    def _forward(
        self, saving: bool, *tensors: Any
    ) -> tuple[list[Tensor], dict[str, Tensor], list[Tensor]]:
        """Run all steps: return all states, the products, and the last gates."""
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

    def _backward(
        self,
        tensors: Any,
        histories: list[Tensor],
        saved: dict[str, Tensor],
        upstream: list[Tensor],
    ) -> tuple[Any, ...]:
        """Run all steps in reverse: return gradients, and the factors of products."""
        _, _, floats, products, weights, _, _, length = tensors
        transposed = {k: ops.transpose(matrix) for k, (matrix, _) in products.items()}

        def body(t, d_states, d_inputs, d_floats, d_weights, factors, d_products):
            place, begin, _ = places(t, length, self.reverse)
            before = [read(h, begin) for h in histories]
            known = {name: read(v, place) for name, v in saved.items()}
            d_new = [d + read(u, place) for d, u in _zip(d_states, upstream)]
            gradients, multiplied = self._step_back(
                tensors, transposed, place, before, known, d_new
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

        first = (length - 1, *_zero_gradients(tensors))
        results = ops.while_loop(lambda t, *_: t >= 0, body, first)[1:]
        d_states, d_inputs, d_floats, d_weights, *of_products = results
        d_floats = {k: ops.cast(v, floats[k].dtype) for k, v in d_floats.items()}
        d_weights = [ops.cast(d, w.dtype) for d, w in _zip(d_weights, weights)]
        return d_states, d_inputs, d_floats, d_weights, *of_products

    def _step_back(
        self,
        tensors: Any,
        transposed: dict[str, Tensor],
        place: Tensor,
        before: list[Tensor],
        known: dict[str, Tensor],
        d_new: list[Tensor],
    ) -> tuple[Any, dict[str, Tensor]]:
        """Return the gradients of all arguments of a step, and what it multiplies.

        Args:
            tensors: All tensors, in the order of `run_steps`.
            transposed: The transposed matrices, by name.
            place: The position of the step.
            before: The states before the step.
            known: The products of the step, by name.
            d_new: The gradients of the states after the step.
        """
        inputs, _, floats, _, weights, others, masks, _ = tensors
        nothing = {name: ops.zeros_like(product) for name, product in known.items()}

        def take(inputs, states, floats, weights, added):
            multiplied = {}

            def multiply(name, x):
                multiplied[name] = x
                return _known(known[name], x, transposed[name], added[name])

            new = self._bound(others, multiply)(inputs, states, floats, weights)
            return choose(masks, place, new[: len(states)], states), multiplied

        arguments = (read(inputs, place), before, floats, weights, nothing)
        return backends.pull_back(take, arguments, d_new)

    def _bound(
        self,
        others: dict[str, Tensor],
        multiply: Callable[[str, Tensor], Tensor],
    ) -> Callable[..., list[Tensor]]:
        """Return the step as a function of the tensors that have gradients."""

        def run(inputs, states, floats, weights):
            pairs = list(zip(self.variables, weights, strict=True))
            with keras.StatelessScope(state_mapping=pairs):
                return self.step(inputs, states, {**floats, **others}, multiply)

        return run


def _zero_gradients(tensors: Any) -> tuple[Any, ...]:
    """Return zeros, to which the backward loop adds or writes the gradients."""
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


def _known(product: Tensor, x: Tensor, transposed: Tensor, added: Tensor) -> Tensor:
    """Return a known product, with the gradient of `x matrix + added`."""

    @ops.custom_gradient
    def multiply(x, added):
        return product, lambda slope: (matmul(slope, transposed), slope)

    return multiply(x, added)


def _gradient_of_matrix(factors: Tensor, gradients: Tensor) -> Tensor:
    """Return the sum over b and t of `factors (B, T, D)^T gradients (B, T, U)`."""
    factors = ops.reshape(factors, (-1, factors.shape[-1]))  # BT D
    gradients = ops.reshape(gradients, (-1, gradients.shape[-1]))  # BT U
    return matmul(ops.transpose(factors), gradients)


def _buffer(step: Tensor, steps: Any) -> Tensor:
    """Return zeros `(B, T, U)` for `T` steps like `(B, U)`."""
    batch, width = ops.shape(step)
    return ops.zeros((batch, steps, width), step.dtype)


def _is_float(tensor: Tensor) -> bool:
    return "float" in keras.backend.standardize_dtype(tensor.dtype)


def _zip(first: Iterable[Any], second: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(first, second, strict=True)
