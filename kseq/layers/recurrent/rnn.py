"""RNN: a cell of any kind over a sequence, at the speed of the machine where it can be.

Axes in shape comments: B batch, T steps, D features, P projected features, U units,
G gates.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
from keras import ops

from kseq.layers import backends
from kseq.layers.backends import matmul
from kseq.layers.recurrent import formula_loop, formulas
from kseq.layers.recurrent.layers import FastLoop, is_plain
from kseq.layers.recurrent.step_loop import run_steps

PLAIN = {
    keras.layers.SimpleRNNCell: formulas.SimpleRNNFormula,
    keras.layers.LSTMCell: formulas.LSTMFormula,
    keras.layers.GRUCell: formulas.GRUFormula,
}
KERNELS = {
    keras.layers.SimpleRNNCell: "rnn",
    keras.layers.LSTMCell: "lstm",
    keras.layers.GRUCell: "gru",
}


@keras.saving.register_keras_serializable(package="kseq")
class RNN(FastLoop, keras.layers.RNN):
    """Runs a cell over a sequence: `keras.layers.RNN` at the speed of the machine.

    On a CPU, in `fit` and other graphs, TensorFlow trains Keras' own cells and those of
    kseq faster than in Keras' loop (`benchmarks/recurrent.py`): the inputs are
    multiplied before the loop, the loop is compiled by XLA whether or not the model is,
    and each matrix gets its gradient in one product. A cell of your own takes part if
    it has a `recurrent_kernel` and

    - `project(inputs (N, D))`, what the inputs alone give, `(N, P)`, for all steps at
      once;
    - `advance(projected (B, P), product (B, GU), states)`, the list of new states, the
      first of which is the output; `product` is the first state times the kernel.
      Gates may follow, `(B, size)` each, if it lists their `gate_sizes`: of a GRU whose
      gates nobody sees XLA makes one slow kernel.

    Its `call` must do the same: it is not asked in that loop, and is in Keras'.

    Every other cell, eager calls, other devices and backends, layers with
    `unroll=True`, and on TensorFlow those below 32 units have Keras' loop; on PyTorch
    Keras' own three cells have torch's kernels, as `LSTM`, `GRU` and `SimpleRNN` have,
    which are faster elsewhere too.

    Args:
        cell: A Keras cell. Its output is its first state.
        **kwargs: `return_sequences`, `return_state`, `go_backwards`, `stateful` and the
            other arguments of `keras.layers.RNN`.

    Call arguments:
        sequences: `(B, T, D)`.
        initial_state: A list of states `(B, U)`, for stacked cells one of each cell's.
            Defaults to zeros.
        mask: Boolean `(B, T)`; a masked step leaves the states, and with them the
            output, as they were. Before the first real step the output is the first
            state. Defaults to the Keras mask of `sequences`.
        training: Whether to apply the cell's dropout.

    Returns:
        The last output `(B, U)`, or all `(B, T, U)` with `return_sequences=True`; with
        `return_state=True` also the last states `(B, U)`.

    Raises:
        ValueError: `cell` runs over sequences by itself, or the first states or the
            mask do not fit.
        NotImplementedError: A gradient of the gradient is asked of a compiled loop.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import RNN, PeepholeLSTMCell
    >>> layer = RNN(PeepholeLSTMCell(64), return_sequences=True)
    >>> tuple(layer(np.ones((2, 7, 5))).shape)
    (2, 7, 64)
    """

    def __init__(self, cell, *args, **kwargs):
        if isinstance(cell, keras.layers.RNN):
            raise ValueError(
                "`cell` must be one step of a recurrent layer, such as "
                f"`keras.layers.LSTMCell(64)`. Received: cell={cell}, which runs over "
                "sequences by itself. Take it in place of `RNN`."
            )
        super().__init__(cell, *args, **kwargs)

    @property
    def kernel_name(self):
        return KERNELS.get(type(self.cell))

    def _is_covered(self, sequences):
        return (
            backends.is_traced(sequences)  # else each call would compile anew
            and not backends.multiplies_as_fast_in_loops()  # in which Keras' is as fast
            and not self.unroll
            and halves(self.cell) is not None
            and backends.is_worth_compiling(self.cell.recurrent_kernel.shape[0])
        )

    def _run(self, sequences, states, mask, length, training):
        cell, parts = self.cell, halves(self.cell)
        constants = {}
        if training and getattr(cell, "dropout", 0):
            kept = cell.get_dropout_mask(sequences[:, 0])
            sequences = sequences * ops.expand_dims(kept, 1)
        if training and getattr(cell, "recurrent_dropout", 0):
            constants["kept"] = cell.get_recurrent_dropout_mask(states[0])
        projected, advance = self._with_draws(
            for_all_steps(parts.project, sequences), parts.advance, training
        )

        def step(inputs, states, constants, multiply):
            h = states[0] * constants["kept"] if constants else states[0]
            return advance(inputs, multiply("recurrent", h), states)

        histories = run_steps(
            step,
            projected,
            states,
            constants,
            {"recurrent": tuple(ops.cast(x, sequences.dtype) for x in parts.recurrent)},
            parts.variables,
            [] if mask is None else [mask],
            ops.cast(length, "int32"),
            reverse=self.go_backwards,
            training=training,
            gate_sizes=parts.gate_sizes,
        )
        last = 0 if self.go_backwards else length - 1
        return histories[0], [history[:, last] for history in histories]

    def _with_draws(self, projected, advance, training):
        """What `advance` takes of all steps, `(B, T, P)`, and `advance`."""
        return projected, advance


class Halves(NamedTuple):
    """A cell as two functions, its recurrent weights, and what else it reads.

    After the states `advance` returns gates of `gate_sizes`, for the loop to carry.
    """

    project: Callable
    advance: Callable
    recurrent: tuple
    variables: list
    gate_sizes: list


def halves(cell):
    """The two halves of a built cell, or None where it has none."""
    kernel = getattr(cell, "recurrent_kernel", None)
    if type(cell) in PLAIN:
        if not is_plain(cell) or getattr(cell, "implementation", 2) != 2:
            return None  # the other implementation has dropout for each gate
        formula = PLAIN[type(cell)]
        bias, recurrent_bias = formulas.split_bias(cell)
        sizes = formulas.carried_sizes(formula, cell.units)

        def project(inputs):
            of_inputs = matmul(inputs, ops.cast(cell.kernel, inputs.dtype))
            return of_inputs + ops.cast(bias, inputs.dtype)

        def advance(projected, product, states):
            states, gates = formula.advance(projected, product, states)
            return states + gates[: formula.num_carried]

        return Halves(project, advance, (kernel, recurrent_bias), [], sizes)
    if kernel is None or not (hasattr(cell, "project") and hasattr(cell, "advance")):
        return None
    outside = {id(kernel), id(getattr(cell, "kernel", None))}
    variables = [weight for weight in cell.weights if id(weight) not in outside]
    nothing = ops.zeros((kernel.shape[1],), cell.compute_dtype)
    sizes = getattr(cell, "gate_sizes", [])
    return Halves(cell.project, cell.advance, (kernel, nothing), variables, sizes)


def for_all_steps(project, sequences):
    """A function of rows `(N, D)`, of `(B, T, D)`."""
    batch, steps, _ = ops.shape(sequences)
    projected = project(formula_loop.rows(sequences))  # BT P
    return ops.reshape(projected, (batch, steps, projected.shape[-1]))
