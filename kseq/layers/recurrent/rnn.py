"""RNN: any recurrent cell over a sequence, in a fast loop where possible.

Axes in shape comments: B batch, T steps, D features, P projected features, U units,
G gates.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from kseq.layers import backends
from kseq.layers.backends import matmul
from kseq.layers.recurrent import formulas
from kseq.layers.recurrent.fast_loop import FastLoop, is_plain
from kseq.layers.recurrent.step_loop import run_steps
from kseq.layers.recurrent.steps import rows
from kseq.typing import Tensor

PLAIN: dict[type, formulas.Formula] = {
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
    """A recurrent layer for any cell: `keras.layers.RNN` with a faster loop.

    On a CPU, in `fit` and other graphs, TensorFlow trains the cells of Keras and kseq
    faster than in Keras' loop (`benchmarks/recurrent.py`): the inputs are multiplied
    before the loop, XLA compiles the loop even if it does not compile the model, and
    the gradient of each matrix is a single product. A custom cell benefits too if it
    has a `recurrent_kernel` and these methods:

    - `project(inputs (N, D))` returns the part that depends on the inputs alone,
      `(N, P)`. It is called once for all steps.
    - `advance(projected (B, P), product (B, GU), states)` returns the list of new
      states, the first of which is the output. `product` is the first state times the
      kernel. The list may also end with gates, `(B, size)` each, if the cell lists
      their `gate_sizes`. Returning the gates of a GRU avoids one slow kernel in XLA.

    The cell's `call` must compute the same: the fast loop does not call it, but Keras'
    loop does.

    Keras' loop runs all other cells, eager calls, other devices and backends, layers
    with `unroll=True`, and on TensorFlow layers below 32 units. On PyTorch the three
    cells of Keras use torch's kernels. `LSTM`, `GRU` and `SimpleRNN` do so as well, and
    are also faster in the other cases.

    Args:
        cell: A Keras cell. Its output is its first state.
        **kwargs: `return_sequences`, `return_state`, `go_backwards`, `stateful` and the
            other arguments of `keras.layers.RNN`.

    Call arguments:
        sequences: `(B, T, D)`.
        initial_state: A list of states `(B, U)`; for stacked cells, the states of each
            cell. Defaults to zeros.
        mask: Boolean `(B, T)`; a masked step leaves the states, and so the output,
            unchanged. Before the first real step the output is the initial state.
            Defaults to the Keras mask of `sequences`.
        training: Whether to apply the cell's dropout.

    Returns:
        The last output `(B, U)`, or all `(B, T, U)` with `return_sequences=True`; with
        `return_state=True` also the final states `(B, U)`.

    Raises:
        ValueError: `cell` is a recurrent layer, or the initial states or the mask do
            not fit.
        NotImplementedError: A second gradient of a compiled loop is requested.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import RNN, PeepholeLSTMCell
    >>> layer = RNN(PeepholeLSTMCell(64), return_sequences=True)
    >>> tuple(layer(np.ones((2, 7, 5))).shape)
    (2, 7, 64)
    """

    def __init__(
        self,
        cell: keras.layers.Layer | Sequence[keras.layers.Layer],
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if isinstance(cell, keras.layers.RNN):
            raise ValueError(
                "`cell` must be one step of a recurrent layer, such as "
                f"`keras.layers.LSTMCell(64)`. Received: cell={cell}, which runs over "
                "sequences itself. Use it in place of `RNN`."
            )
        super().__init__(cell, *args, **kwargs)

    @property
    def kernel_name(self) -> str | None:
        return KERNELS.get(type(self.cell))

    def _is_covered(self, sequences: Tensor) -> bool:
        return (
            backends.is_traced(sequences)  # else each call would compile again
            and not backends.multiplies_as_fast_in_loops()  # then Keras is as fast
            and not self.unroll
            and halves(self.cell) is not None
            and backends.is_worth_compiling(self.cell.recurrent_kernel.shape[0])
        )

    def _run(
        self,
        sequences: Tensor,
        states: list[Tensor],
        mask: Tensor | None,
        length: Tensor,
        training: bool,
    ) -> tuple[Tensor, list[Tensor]]:
        cell = self.cell
        parts: Any = halves(cell)  # not None: `_is_covered` has checked it
        constants = {}
        if training and getattr(cell, "dropout", False):
            kept = cell.get_dropout_mask(sequences[:, 0])
            sequences = sequences * ops.expand_dims(kept, 1)
        if training and getattr(cell, "recurrent_dropout", False):
            constants["kept"] = cell.get_recurrent_dropout_mask(states[0])
        projected, advance = self._with_samples(
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

    def _with_samples(
        self,
        projected: Tensor,
        advance: Callable[..., list[Tensor]],
        training: bool,
    ) -> tuple[Tensor, Callable[..., list[Tensor]]]:
        """Return projected inputs `(B, T, P)` and `advance`; `Zoneout` adds samples."""
        return projected, advance


class Halves(NamedTuple):
    """A cell as two functions, with its recurrent weights and the other variables.

    `advance` returns the new states and then gates of `gate_sizes`, which the loop
    carries along.
    """

    project: Callable[[Tensor], Tensor]
    advance: Callable[..., list[Tensor]]
    recurrent: tuple[Tensor, Tensor]
    variables: list[keras.Variable]
    gate_sizes: list[int]


def halves(cell: keras.layers.Layer) -> Halves | None:
    """Return the two halves of a built cell, or None if it cannot be split."""
    kernel = getattr(cell, "recurrent_kernel", None)
    if type(cell) in PLAIN:
        if not is_plain(cell) or getattr(cell, "implementation", 2) != 2:
            return None  # other implementations have a dropout mask for each gate
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


def for_all_steps(project: Callable[[Tensor], Tensor], sequences: Tensor) -> Tensor:
    """Apply a function of `(N, D)` to all steps of `(B, T, D)` at once."""
    batch, steps, _ = ops.shape(sequences)
    projected = project(rows(sequences))  # BT P
    return ops.reshape(projected, (batch, steps, projected.shape[-1]))
