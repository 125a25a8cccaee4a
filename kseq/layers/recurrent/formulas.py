"""The formulas of SimpleRNN, LSTM and GRU: a step, and the way back over it.

The inputs and the state have been multiplied with their kernels already: what is left
is what stands between the products, and its gradient in closed form.

Axes in shape comments: B batch, T steps, U units, G gates.
"""

from keras import ops


class SimpleRNNFormula:
    """`h' = tanh(x + h R)`."""

    num_states, saved, num_carried = 1, (), 0

    @staticmethod
    def advance(inputs, product, states):
        return [ops.tanh(inputs + product)], []

    @staticmethod
    def backward(gradients, before, after, saved):
        [gradient], [output] = gradients, after
        return gradient * (1 - output * output), [0.0]

    @staticmethod
    def gradient_of_product(gradient, saved):
        return gradient


class LSTMFormula:
    """`i, f, g, o = x + h R; c' = f c + i g; h' = o tanh(c')`, the gates activated."""

    num_states, saved, num_carried = 2, (4,), 0
    are_sigmoid = (True, True, False, True)

    @staticmethod
    def advance(inputs, product, states):
        _, c = states
        gates = activated(inputs + product, LSTMFormula.are_sigmoid)  # B 4U
        i, f, g, o = ops.split(gates, 4, axis=-1)
        c = f * c + i * g
        return [o * ops.tanh(c), c], [gates]

    @staticmethod
    def backward(gradients, before, after, saved):
        (dh, dc), (_, c_before), (_, c), [gates] = gradients, before, after, saved
        i, f, g, o = ops.split(gates, 4, axis=-1)
        bent = ops.tanh(c)
        dc = dc + dh * o * (1 - bent * bent)
        upstream = ops.concatenate([dc * g, dc * c_before, dc * i, dh * bent], axis=-1)
        return upstream * slope_of_activated(gates, LSTMFormula.are_sigmoid), [
            0.0,
            dc * f,
        ]

    @staticmethod
    def gradient_of_product(gradient, saved):
        return gradient


class GRUFormula:
    """`h' = z h + (1 - z) tanh(x_h + r (h R)_h)`, `z` and `r` the sigmoid of `x + h R`.

    This is the form of cuDNN, and Keras' default (`reset_after=True`).
    """

    num_states, saved, num_carried = 1, (2, 1, 1), 1
    are_sigmoid = (True, True)

    @staticmethod
    def advance(inputs, product, states):
        [h] = states
        units = h.shape[-1]
        x_zr, x_h = ops.split(inputs, [2 * units], axis=-1)
        p_zr, p_h = ops.split(product, [2 * units], axis=-1)
        zr = activated(x_zr + p_zr, GRUFormula.are_sigmoid)  # B 2U
        z, r = ops.split(zr, 2, axis=-1)
        new = ops.tanh(x_h + r * p_h)
        return [new + z * (h - new)], [zr, new, p_h]

    @staticmethod
    def backward(gradients, before, after, saved):
        [gradient], [h], (zr, new, p_h) = gradients, before, saved
        z, _ = ops.split(zr, 2, axis=-1)
        bent = gradient * (1 - z) * (1 - new * new)
        upstream = ops.concatenate([gradient * (h - new), bent * p_h], axis=-1)
        d_zr = upstream * slope_of_activated(zr, GRUFormula.are_sigmoid)
        return ops.concatenate([d_zr, bent], axis=-1), [gradient * z]

    @staticmethod
    def gradient_of_product(gradient, saved):
        zr, _, _ = saved
        units = zr.shape[-1] // 2
        d_zr, d_new = ops.split(gradient, [2 * units], axis=-1)
        return ops.concatenate([d_zr, d_new * zr[..., units:]], axis=-1)


def activated(gates, are_sigmoid):
    """Gates `(B, GU)`, each through the sigmoid or through tanh.

    As one tanh, since the sigmoid is `(1 + tanh(x / 2)) / 2`: XLA makes one loop of it,
    which takes half the time of one for each gate.
    """
    half = per_gate([0.5 if each else 1.0 for each in are_sigmoid], gates)
    return half * ops.tanh(half * gates) + (1 - half)


def slope_of_activated(gates, are_sigmoid):
    """The derivative of `activated`, by what came out: `y - y y`, or `1 - y y`."""
    ones = per_gate([float(each) for each in are_sigmoid], gates)
    return ones * gates + (1 - ones) - gates * gates


def per_gate(numbers, gates):
    """A number for each gate, `(GU,)`."""
    units = gates.shape[-1] // len(numbers)
    return ops.repeat(ops.convert_to_tensor(numbers, gates.dtype), units)


def carried_sizes(formula, units):
    """Widths of the gates that a loop carries along, and out, unread.

    Of a GRU whose gates nobody sees XLA makes one slow kernel, and its loop may take
    twice as long.
    """
    return [count * units for count in formula.saved[: formula.num_carried]]


def split_bias(cell):
    """The biases of a cell's inputs and of its state."""
    if cell.bias is None:
        zeros = ops.zeros((cell.kernel.shape[1],), cell.compute_dtype)
        return zeros, zeros
    if len(cell.bias.shape) == 2:  # of a GRU
        return tuple(ops.unstack(ops.convert_to_tensor(cell.bias)))
    return cell.bias, ops.zeros(cell.bias.shape, cell.compute_dtype)
