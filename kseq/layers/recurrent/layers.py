"""LSTM, GRU and SimpleRNN: Keras' layers, at the speed of the machine.

Axes in shape comments: B batch, T steps, D features, U units, G gates.
"""

import contextlib

import keras
from keras import ops

from kseq.layers import backends, torch_kernels
from kseq.layers.composition import freeze_parts
from kseq.layers.masking import apply_mask, step_mask
from kseq.layers.recurrent import formula_loop, formulas
from kseq.layers.recurrent.cells import (
    begin_with,
    check_states,
    check_steps,
    first_output,
)

# Steps are filled up to a multiple of this, so that XLA compiles for few lengths.
LENGTH_MULTIPLE = 8


class FastLoop:
    """What the fast layers share: the loop of `keras.layers.RNN`, done faster.

    The loop is compiled by XLA even where the model is not, and on torch it is one call
    of a kernel. What neither covers is left to Keras. A layer says what is covered, and
    runs it.
    """

    def build(self, sequences_shape, initial_state_shape=None):
        super().build(sequences_shape, initial_state_shape)
        for state in keras.tree.flatten(self.states or []):
            state._autocast = False  # on torch a cast one would not be assigned to
        freeze_parts(self)

    def call(self, sequences, initial_state=None, mask=None, training=False):
        # What is wrong is refused here: in `inner_loop` dropout has been drawn already.
        check_steps("sequences", sequences)
        mask = step_mask(only_mask(mask), sequences)
        if initial_state is not None:
            check_states(self.cell, initial_state, sequences.shape[0])
        return super().call(
            sequences, initial_state=initial_state, mask=mask, training=training
        )

    def inner_loop(self, sequences, initial_state, mask, training=False):
        sequences = apply_mask(sequences, mask)
        if self._has_kernel():
            return self._run_by_kernel(sequences, initial_state, mask, training)
        if not self._is_covered(sequences):
            return self._run_by_keras(sequences, initial_state, mask, training)
        sequences = ops.cast(sequences, self.compute_dtype)
        length = ops.shape(sequences)[1]
        sequences, mask = fill_up(sequences, mask)
        pairs = zip(keras.tree.flatten(initial_state), self.state_size, strict=True)
        states = [ops.reshape(state, (-1, size)) for state, size in pairs]
        outputs, states = self._run(sequences, states, mask, length, training)
        if self.zero_output_for_mask and mask is not None:
            outputs = ops.where(ops.expand_dims(mask, -1), outputs, 0)
        outputs = formula_loop.first_steps(outputs, length)
        if self.go_backwards:
            outputs = ops.flip(outputs, axis=1)
        last = outputs[:, -1]
        return last, outputs if self.return_sequences else last[:, None], states

    def _has_kernel(self):
        cell = self.cell
        return (
            torch_kernels.available()
            and self.kernel_name is not None
            and not self.unroll
            and is_plain(cell)
            and getattr(self, "use_cudnn", "auto") is not False
            and not cell.recurrent_dropout
            and not (cell.dropout and hasattr(cell, "dropout_mask_count"))
        )

    def _run_by_kernel(self, sequences, initial_state, mask, training):
        cell = self.cell
        sequences = ops.cast(sequences, self.compute_dtype)
        if training and cell.dropout:
            kept = ops.expand_dims(cell.get_dropout_mask(sequences[:, 0]), 1)
            sequences = sequences * ops.cast(kept, sequences.dtype)
        weights = [cell.kernel, cell.recurrent_kernel]
        if cell.bias is not None:
            weights += formulas.split_bias(cell)
        outputs, states = torch_kernels.run(
            self.kernel_name,
            sequences,
            [ops.cast(state, self.compute_dtype) for state in initial_state],
            [ops.cast(weight, self.compute_dtype) for weight in weights],
            mask,
            self.go_backwards,
        )
        if self.zero_output_for_mask and mask is not None:
            mask = ops.flip(mask, axis=1) if self.go_backwards else mask
            outputs = ops.where(ops.expand_dims(mask, -1), outputs, 0)
        last = outputs[:, -1]
        return last, outputs if self.return_sequences else last[:, None], states

    def _run_by_keras(self, sequences, initial_state, mask, training):
        """Keras' loop, with the order, the zeros and the first outputs of the fast."""
        if self.go_backwards and (mask is None or self.unroll):
            # Keras' order is another with cuDNN on JAX, its mask's where it unrolls.
            sequences = ops.flip(sequences, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
            with changed(self, go_backwards=False):
                return self._run_by_keras(sequences, initial_state, mask, training)
        last, outputs, states = self._keras_loop(
            sequences, initial_state, mask, training
        )
        if mask is None:
            return last, outputs, states
        mask = ops.flip(mask, axis=1) if self.go_backwards else mask
        if self.zero_output_for_mask:
            last = ops.where(mask[:, -1:], last, 0)
            outputs = ops.where(mask[..., None], outputs, 0)
        else:
            last, outputs = self._with_first_state(last, outputs, initial_state, mask)
        return last, outputs if self.return_sequences else last[:, None], states

    def _keras_loop(self, sequences, initial_state, mask, training):
        return super().inner_loop(sequences, initial_state, mask, training)

    def _with_first_state(self, last, outputs, initial_state, mask):
        """What Keras' loop puts out, but the first state until a step is real."""
        first = ops.cast(first_output(self.cell, initial_state), last.dtype)  # B U
        if first.shape[-1] != last.shape[-1]:  # of a cell of one's own
            return last, outputs
        last = ops.where(ops.any(mask, axis=1, keepdims=True), last, first)
        return last, begin_with(first, outputs, mask) if self.return_sequences else last

    def _is_covered(self, sequences):
        is_worth_it = backends.is_worth_compiling(self.cell.units)
        return is_worth_it and not self.unroll and is_plain(self.cell)

    def _run(self, sequences, states, mask, length, training):
        cell, dtype = self.cell, sequences.dtype
        states = [ops.cast(state, dtype) for state in states]
        biases = formulas.split_bias(cell)
        kept = kept_recurrent = []
        if training:
            kept = as_list(cell.get_dropout_mask(sequences[:, 0]))
            kept_recurrent = as_list(cell.get_recurrent_dropout_mask(states[0]))
        return formula_loop.run(
            self.formula,
            sequences,
            states,
            [ops.cast(x, dtype) for x in (cell.kernel, biases[0])],
            [ops.cast(x, dtype) for x in (cell.recurrent_kernel, biases[1])],
            mask,
            ops.cast(length, "int32"),
            (kept, kept_recurrent),
            reverse=self.go_backwards,
            training=training,
        )


@contextlib.contextmanager
def changed(layer, **attributes):
    """Inside, a layer has other attributes."""
    before = {name: getattr(layer, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(layer, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(layer, name, value)


def only_mask(mask):
    """The mask, or the first of several, as Keras hands them over."""
    first = next(iter(keras.tree.flatten(mask)), None)
    is_nested_list = isinstance(first, (bool, int, float))
    return ops.convert_to_tensor(mask) if is_nested_list else first


def is_plain(cell):
    """Whether one of Keras' cells has its formula in `formulas.py`."""
    return (
        cell.activation is keras.activations.tanh
        and getattr(cell, "recurrent_activation", keras.activations.sigmoid)
        is keras.activations.sigmoid
        and getattr(cell, "reset_after", True)
    )


def as_list(masks):
    """A cell's masks of dropout: it has none, one, or one for each gate."""
    if masks is None:
        return []
    return list(masks) if isinstance(masks, (list, tuple)) else [masks]


def fill_up(sequences, mask=None):
    """Adds steps where the length is not known, so that XLA compiles for few lengths.

    Returns:
        `(sequences (B, T, D), mask (B, T) or None)`, with a multiple of steps.
    """
    if sequences.shape[1] is not None:
        return sequences, mask
    missing = -ops.shape(sequences)[1] % LENGTH_MULTIPLE
    sequences = ops.pad(sequences, ((0, 0), (0, missing), (0, 0)))
    return sequences, mask if mask is None else ops.pad(mask, ((0, 0), (0, missing)))


@keras.saving.register_keras_serializable(package="kseq")
class LSTM(FastLoop, keras.layers.LSTM):
    """Long short-term memory: `keras.layers.LSTM` at the speed of the machine.

    `i, f, g, o = W x + R h + b`, `c' = s(f) c + s(i) tanh(g)`, `h' = s(o) tanh(c')`,
    with the sigmoid `s`.

    On a CPU a wide layer trains faster than Keras' (`benchmarks/recurrent.py`; twice as
    fast where most steps are padding in every row; of 64 units there is no difference),
    on TensorFlow and JAX: the loop is compiled by XLA whether or not the model is, and
    the gradient has a closed form, so that each weight gets its own in one product; on
    TensorFlow the inputs are multiplied before the loop. On PyTorch it is a call of
    torch's own kernel (oneDNN, on a GPU cuDNN), whatever the mask. Arguments, weights
    and files are those of Keras. The loop is left to Keras with `unroll=True` or other
    activations, on TensorFlow and JAX on other devices (a GPU has cuDNN), on TensorFlow
    below 32 units, and on PyTorch with recurrent dropout or `use_cudnn=False`.

    Args:
        units: Size U of the state.
        *args, **kwargs: As for `keras.layers.LSTM`.

    Call arguments:
        sequences: `(B, T, D)`.
        initial_state: A list of two states `(B, U)`. Defaults to zeros.
        mask: Boolean `(B, T)`; a masked step leaves the states, and with them the
            output, as they were, and takes no time where it is masked in every row.
            Before the first real step the output is the first state. Defaults to the
            Keras mask of `sequences`.
        training: Whether to apply dropout.

    Returns:
        The last output `(B, U)`, or all `(B, T, U)` with `return_sequences=True`; with
        `return_state=True` also the last states `(B, U)`.

    Raises:
        ValueError: The first states or the mask do not fit.
        NotImplementedError: A gradient of the gradient is asked of a compiled loop.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import LSTM
    >>> tuple(LSTM(3, return_sequences=True)(np.ones((2, 7, 5))).shape)
    (2, 7, 3)

    References:
        - [Hochreiter and Schmidhuber, 1997](https://doi.org/10.1162/neco.1997.9.8.1735)
        - [Gers et al., 2000](https://doi.org/10.1162/089976600300015015) (forget gate)
    """

    formula, kernel_name = formulas.LSTMFormula, "lstm"

    def _keras_loop(self, *arguments):
        use_cudnn = self.use_cudnn
        if use_cudnn == "auto" and not backends.has_cudnn(self.compute_dtype):
            use_cudnn = False
        with changed(self, use_cudnn=use_cudnn):
            return super()._keras_loop(*arguments)


@keras.saving.register_keras_serializable(package="kseq")
class GRU(FastLoop, keras.layers.GRU):
    """The gated recurrent unit: `keras.layers.GRU` at the speed of the machine.

    `z, r = s(W x + R h + b)`, `h' = z h + (1 - z) tanh(W_h x + r (R_h h + b_h))`, with
    the sigmoid `s`.

    On a CPU a wide layer trains faster than Keras' (`benchmarks/recurrent.py`; twice as
    fast where most steps are padding in every row; of 64 units there is no difference),
    on TensorFlow and JAX: the loop is compiled by XLA whether or not the model is, and
    the gradient has a closed form, so that each weight gets its own in one product; on
    TensorFlow the inputs are multiplied before the loop. On PyTorch it is a call of
    torch's own kernel (on a GPU cuDNN), whatever the mask. Arguments, weights and files
    are those of Keras. The loop is left to Keras with `unroll=True`, other activations
    or `reset_after=False`, on TensorFlow and JAX on other devices (a GPU has cuDNN), on
    TensorFlow below 32 units, and on PyTorch with recurrent dropout or
    `use_cudnn=False`.

    Args:
        units: Size U of the state.
        *args, **kwargs: As for `keras.layers.GRU`.

    Call arguments:
        sequences: `(B, T, D)`.
        initial_state: A state, or a list of one, `(B, U)`. Defaults to zeros.
        mask: Boolean `(B, T)`; a masked step leaves the states, and with them the
            output, as they were, and takes no time where it is masked in every row.
            Before the first real step the output is the first state. Defaults to the
            Keras mask of `sequences`.
        training: Whether to apply dropout.

    Returns:
        The last output `(B, U)`, or all `(B, T, U)` with `return_sequences=True`; with
        `return_state=True` also the last state `(B, U)`.

    Raises:
        ValueError: The first states or the mask do not fit.
        NotImplementedError: A gradient of the gradient is asked of a compiled loop.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import GRU
    >>> tuple(GRU(3, return_sequences=True)(np.ones((2, 7, 5))).shape)
    (2, 7, 3)

    References:
        - [Cho et al., 2014](https://arxiv.org/abs/1406.1078), 2.3
    """

    formula, kernel_name = formulas.GRUFormula, "gru"


@keras.saving.register_keras_serializable(package="kseq")
class SimpleRNN(FastLoop, keras.layers.SimpleRNN):
    """A plain recurrent network: `keras.layers.SimpleRNN` at the speed of the machine.

    `h' = tanh(W x + R h + b)`.

    On a CPU a wide layer trains faster than Keras' (`benchmarks/recurrent.py`; twice as
    fast where most steps are padding in every row; of 64 units there is no difference),
    on TensorFlow and JAX: the loop is compiled by XLA whether or not the model is, and
    the gradient has a closed form, so that each weight gets its own in one product; on
    TensorFlow the inputs are multiplied before the loop. On PyTorch it is a call of
    torch's own kernel (on a GPU cuDNN), whatever the mask. Arguments, weights and files
    are those of Keras. The loop is left to Keras with `unroll=True` or other
    activations, on TensorFlow and JAX on other devices, on TensorFlow below 32 units,
    and on PyTorch with recurrent dropout.

    Args:
        units: Size U of the state.
        *args, **kwargs: As for `keras.layers.SimpleRNN`.

    Call arguments:
        sequences: `(B, T, D)`.
        initial_state: A state, or a list of one, `(B, U)`. Defaults to zeros.
        mask: Boolean `(B, T)`; a masked step leaves the states, and with them the
            output, as they were, and takes no time where it is masked in every row.
            Before the first real step the output is the first state. Defaults to the
            Keras mask of `sequences`.
        training: Whether to apply dropout.

    Returns:
        The last output `(B, U)`, or all `(B, T, U)` with `return_sequences=True`; with
        `return_state=True` also the last state `(B, U)`.

    Raises:
        ValueError: The first states or the mask do not fit.
        NotImplementedError: A gradient of the gradient is asked of a compiled loop.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import SimpleRNN
    >>> tuple(SimpleRNN(3, return_sequences=True)(np.ones((2, 7, 5))).shape)
    (2, 7, 3)

    References:
        - [Elman, 1990](https://doi.org/10.1207/s15516709cog1402_1)
    """

    formula, kernel_name = formulas.SimpleRNNFormula, "rnn"
