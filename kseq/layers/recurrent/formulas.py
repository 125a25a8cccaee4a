"""Formulas of the recurrent layers: one step, and its gradient in closed form.

A formula starts from the products of the inputs and of the state with their kernels, so
it covers only the element-wise operations. Each class has the same members:

- `advance` takes the products of a step and the states before it, and returns the new
  states and the tensors to save for the gradient.
- `backward` takes the gradients of the new states, the states before and after the step
  and the saved tensors. It returns the gradient of the inputs' product and the
  gradients of the states before the step, without the part through the state's product.
- `gradient_of_product` returns the gradient of the state's product, from that of the
  inputs' product.
- `num_gates` is the width of the inputs' product, in units.
- `saved` lists the widths of the saved tensors, in units. The loop carries the first
  `num_carried` of them even if it saves none, see `carried_sizes`.

Axes in shape comments: B batch, T steps, U units, G gates.
"""

from collections.abc import Sequence
from typing import TypeAlias

import keras
from keras import ops

from kseq.typing import Tensor

Tensors: TypeAlias = Sequence[Tensor]


class SimpleRNNFormula:
    """`h' = tanh(x + h R)`."""

    num_states: int = 1
    num_gates: int = 1
    saved: tuple[int, ...] = ()
    num_carried: int = 0

    @staticmethod
    def advance(
        inputs: Tensor, product: Tensor, states: Tensors
    ) -> tuple[list[Tensor], list[Tensor]]:
        return [ops.tanh(inputs + product)], []

    @staticmethod
    def backward(
        gradients: Tensors, before: Tensors, after: Tensors, saved: Tensors
    ) -> tuple[Tensor, list[Tensor]]:
        [gradient], [output] = gradients, after
        return gradient * (1 - output * output), [0.0]

    @staticmethod
    def gradient_of_product(gradient: Tensor, saved: Tensors) -> Tensor:
        return gradient


class LSTMFormula:
    """`i, f, g, o = x + h R; c' = f c + i g; h' = o tanh(c')`, the gates activated."""

    num_states: int = 2
    num_gates: int = 4
    saved: tuple[int, ...] = (4,)
    num_carried: int = 0
    are_sigmoid = (True, True, False, True)

    @staticmethod
    def advance(
        inputs: Tensor, product: Tensor, states: Tensors
    ) -> tuple[list[Tensor], list[Tensor]]:
        _, c = states
        gates = activated(inputs + product, LSTMFormula.are_sigmoid)  # B 4U
        i, f, g, o = ops.split(gates, 4, axis=-1)
        c = f * c + i * g
        return [o * ops.tanh(c), c], [gates]

    @staticmethod
    def backward(
        gradients: Tensors, before: Tensors, after: Tensors, saved: Tensors
    ) -> tuple[Tensor, list[Tensor]]:
        (dh, dc), (_, c_before), (_, c), [gates] = gradients, before, after, saved
        i, f, g, o = ops.split(gates, 4, axis=-1)
        tanh_c = ops.tanh(c)
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        upstream = ops.concatenate(
            [dc * g, dc * c_before, dc * i, dh * tanh_c], axis=-1
        )
        slope = slope_of_activated(gates, LSTMFormula.are_sigmoid)
        return upstream * slope, [0.0, dc * f]

    @staticmethod
    def gradient_of_product(gradient: Tensor, saved: Tensors) -> Tensor:
        return gradient


class GRUFormula:
    """`h' = z h + (1 - z) tanh(x_h + r (h R)_h)`, `z` and `r` the sigmoid of `x + h R`.

    This is the form of cuDNN, and Keras' default (`reset_after=True`).
    """

    num_states: int = 1
    num_gates: int = 3
    saved: tuple[int, ...] = (2, 1, 1)
    num_carried: int = 1
    are_sigmoid = (True, True)

    @staticmethod
    def advance(
        inputs: Tensor, product: Tensor, states: Tensors
    ) -> tuple[list[Tensor], list[Tensor]]:
        [h] = states
        units = h.shape[-1]
        x_zr, x_h = ops.split(inputs, [2 * units], axis=-1)
        p_zr, p_h = ops.split(product, [2 * units], axis=-1)
        zr = activated(x_zr + p_zr, GRUFormula.are_sigmoid)  # B 2U
        z, r = ops.split(zr, 2, axis=-1)
        new = ops.tanh(x_h + r * p_h)
        return [new + z * (h - new)], [zr, new, p_h]

    @staticmethod
    def backward(
        gradients: Tensors, before: Tensors, after: Tensors, saved: Tensors
    ) -> tuple[Tensor, list[Tensor]]:
        [gradient], [h], (zr, new, p_h) = gradients, before, saved
        z, _ = ops.split(zr, 2, axis=-1)
        d_new = gradient * (1 - z) * (1 - new * new)
        upstream = ops.concatenate([gradient * (h - new), d_new * p_h], axis=-1)
        d_zr = upstream * slope_of_activated(zr, GRUFormula.are_sigmoid)
        return ops.concatenate([d_zr, d_new], axis=-1), [gradient * z]

    @staticmethod
    def gradient_of_product(gradient: Tensor, saved: Tensors) -> Tensor:
        zr, _, _ = saved
        units = zr.shape[-1] // 2
        d_zr, d_new = ops.split(gradient, [2 * units], axis=-1)
        return ops.concatenate([d_zr, d_new * zr[..., units:]], axis=-1)


class MinGRUFormula:
    """`h' = h + z (x_h - h)`, `z` the sigmoid of `x_z`.

    The product with the state is `(B, 0)`, from a kernel `(U, 0)`. For the gradient of
    `z`, `z (x_h - h)` is read off as `h' - h`, so `x_h` is not saved.
    """

    num_states: int = 1
    num_gates: int = 2
    saved: tuple[int, ...] = (1,)
    num_carried: int = 0
    are_sigmoid = (True,)

    @staticmethod
    def advance(
        inputs: Tensor, product: Tensor, states: Tensors
    ) -> tuple[list[Tensor], list[Tensor]]:
        [h] = states
        x_z, new = ops.split(inputs, 2, axis=-1)
        z = activated(x_z, MinGRUFormula.are_sigmoid)
        return [h + z * (new - h)], [z]

    @staticmethod
    def backward(
        gradients: Tensors, before: Tensors, after: Tensors, saved: Tensors
    ) -> tuple[Tensor, list[Tensor]]:
        [gradient], [h], [h_new], [z] = gradients, before, after, saved
        d_new = gradient * z
        d_z = (gradient - d_new) * (h_new - h)
        return ops.concatenate([d_z, d_new], axis=-1), [gradient - d_new]

    @staticmethod
    def gradient_of_product(gradient: Tensor, saved: Tensors) -> Tensor:
        return gradient[..., :0]


Formula: TypeAlias = (
    type[SimpleRNNFormula] | type[LSTMFormula] | type[GRUFormula] | type[MinGRUFormula]
)


def activated(gates: Tensor, are_sigmoid: Sequence[bool]) -> Tensor:
    """Apply the sigmoid or tanh to each of the gates `(B, GU)`.

    The sigmoid is computed as `(1 + tanh(x / 2)) / 2`, so all gates share one tanh. XLA
    makes a single loop of it, which takes half the time of one loop for each gate.
    """
    half = per_gate([0.5 if each else 1.0 for each in are_sigmoid], gates)
    return half * ops.tanh(half * gates) + (1 - half)


def slope_of_activated(gates: Tensor, are_sigmoid: Sequence[bool]) -> Tensor:
    """Return the slope of `activated` from its output: `y - y y` or `1 - y y`."""
    ones = per_gate([float(each) for each in are_sigmoid], gates)
    return ones * gates + (1 - ones) - gates * gates


def per_gate(numbers: list[float], gates: Tensor) -> Tensor:
    """Repeat the number of each gate for its units, `(GU,)`."""
    units = gates.shape[-1] // len(numbers)
    return ops.repeat(ops.convert_to_tensor(numbers, gates.dtype), units)


def carried_sizes(formula: Formula, units: int) -> list[int]:
    """Return the widths of the gates that a loop carries and returns without use.

    If the loop does not return the gates of a GRU, XLA compiles the step into one slow
    kernel, and the loop may take twice as long.
    """
    return [count * units for count in formula.saved[: formula.num_carried]]


def split_bias(cell: keras.layers.Layer) -> tuple[Tensor, Tensor]:
    """Return the bias of a cell's inputs and the bias of its state."""
    if cell.bias is None:
        zeros = ops.zeros((cell.kernel.shape[1],), cell.compute_dtype)
        return zeros, zeros
    if len(cell.bias.shape) == 2:  # a GRU
        return tuple(ops.unstack(ops.convert_to_tensor(cell.bias)))
    return cell.bias, ops.zeros(cell.bias.shape, cell.compute_dtype)
