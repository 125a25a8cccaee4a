"""LSTM, GRU and SimpleRNN: faster versions of Keras' layers.

Axes in shape comments: B batch, T steps, D features, U units.
"""

from typing import Any

import keras

from kseq.layers import backends
from kseq.layers.recurrent import formulas
from kseq.layers.recurrent.fast_loop import FastLoop, temporary_attributes


@keras.saving.register_keras_serializable(package="kseq")
class LSTM(FastLoop, keras.layers.LSTM):
    """Long short-term memory: `keras.layers.LSTM` with a faster loop.

    `i, f, g, o = W x + R h + b`, `c' = s(f) c + s(i) tanh(g)`, `h' = s(o) tanh(c')`,
    with the sigmoid `s`.

    On a CPU with TensorFlow or JAX a wide layer trains faster than Keras'
    (`benchmarks/recurrent.py`): twice as fast if most steps are padding in every row,
    but at the same speed at 64 units. XLA compiles the loop even if it does not compile
    the model. The gradient has a closed form, so that of each weight is one product. On
    TensorFlow the inputs are multiplied before the loop. On PyTorch the loop is one
    call of torch's own kernel (oneDNN; cuDNN on a GPU), with any mask. Arguments,
    weights and files are those of Keras.

    Keras runs the loop with `unroll=True` or other activations; on TensorFlow and JAX
    on other devices (a GPU has cuDNN); on TensorFlow below 32 units; and on PyTorch
    with recurrent dropout or `use_cudnn=False`.

    Args:
        units: Size U of the state.
        *args, **kwargs: As for `keras.layers.LSTM`.

    Call arguments:
        sequences: `(B, T, D)`.
        initial_state: A list of two states `(B, U)`. Defaults to zeros.
        mask: Boolean `(B, T)`; a masked step leaves the states, and so the output,
            unchanged. It takes no time if it is masked in every row. Before the first
            real step the output is the initial state. Defaults to the Keras mask of
            `sequences`.
        training: Whether to apply dropout.

    Returns:
        The last output `(B, U)`, or all `(B, T, U)` with `return_sequences=True`; with
        `return_state=True` also the final states `(B, U)`.

    Raises:
        ValueError: The initial states or the mask do not fit.
        NotImplementedError: A second gradient of a compiled loop is requested.

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

    def _keras_loop(self, *arguments: Any) -> Any:
        use_cudnn = self.use_cudnn
        if use_cudnn == "auto" and not backends.has_cudnn(self.compute_dtype):
            use_cudnn = False
        with temporary_attributes(self, use_cudnn=use_cudnn):
            return super()._keras_loop(*arguments)


@keras.saving.register_keras_serializable(package="kseq")
class GRU(FastLoop, keras.layers.GRU):
    """Gated recurrent unit: `keras.layers.GRU` with a faster loop.

    `z, r = s(W x + R h + b)`, `h' = z h + (1 - z) tanh(W_h x + r (R_h h + b_h))`, with
    the sigmoid `s`.

    On a CPU with TensorFlow or JAX a wide layer trains faster than Keras'
    (`benchmarks/recurrent.py`): twice as fast if most steps are padding in every row,
    but at the same speed at 64 units. XLA compiles the loop even if it does not compile
    the model. The gradient has a closed form, so that of each weight is one product. On
    TensorFlow the inputs are multiplied before the loop. On PyTorch the loop is one
    call of torch's own kernel (cuDNN on a GPU), with any mask. Arguments, weights and
    files are those of Keras.

    Keras runs the loop with `unroll=True`, other activations or `reset_after=False`; on
    TensorFlow and JAX on other devices (a GPU has cuDNN); on TensorFlow below 32 units;
    and on PyTorch with recurrent dropout or `use_cudnn=False`.

    Args:
        units: Size U of the state.
        *args, **kwargs: As for `keras.layers.GRU`.

    Call arguments:
        sequences: `(B, T, D)`.
        initial_state: A state, or a list of one, `(B, U)`. Defaults to zeros.
        mask: Boolean `(B, T)`; a masked step leaves the states, and so the output,
            unchanged. It takes no time if it is masked in every row. Before the first
            real step the output is the initial state. Defaults to the Keras mask of
            `sequences`.
        training: Whether to apply dropout.

    Returns:
        The last output `(B, U)`, or all `(B, T, U)` with `return_sequences=True`; with
        `return_state=True` also the final state `(B, U)`.

    Raises:
        ValueError: The initial states or the mask do not fit.
        NotImplementedError: A second gradient of a compiled loop is requested.

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
    """Simple recurrent network: `keras.layers.SimpleRNN` with a faster loop.

    `h' = tanh(W x + R h + b)`.

    On a CPU with TensorFlow or JAX a wide layer trains faster than Keras'
    (`benchmarks/recurrent.py`): twice as fast if most steps are padding in every row,
    but at the same speed at 64 units. XLA compiles the loop even if it does not compile
    the model. The gradient has a closed form, so that of each weight is one product. On
    TensorFlow the inputs are multiplied before the loop. On PyTorch the loop is one
    call of torch's own kernel (cuDNN on a GPU), with any mask. Arguments, weights and
    files are those of Keras.

    Keras runs the loop with `unroll=True` or other activations; on TensorFlow and JAX
    on other devices; on TensorFlow below 32 units; and on PyTorch with recurrent
    dropout.

    Args:
        units: Size U of the state.
        *args, **kwargs: As for `keras.layers.SimpleRNN`.

    Call arguments:
        sequences: `(B, T, D)`.
        initial_state: A state, or a list of one, `(B, U)`. Defaults to zeros.
        mask: Boolean `(B, T)`; a masked step leaves the states, and so the output,
            unchanged. It takes no time if it is masked in every row. Before the first
            real step the output is the initial state. Defaults to the Keras mask of
            `sequences`.
        training: Whether to apply dropout.

    Returns:
        The last output `(B, U)`, or all `(B, T, U)` with `return_sequences=True`; with
        `return_state=True` also the final state `(B, U)`.

    Raises:
        ValueError: The initial states or the mask do not fit.
        NotImplementedError: A second gradient of a compiled loop is requested.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import SimpleRNN
    >>> tuple(SimpleRNN(3, return_sequences=True)(np.ones((2, 7, 5))).shape)
    (2, 7, 3)

    References:
        - [Elman, 1990](https://doi.org/10.1207/s15516709cog1402_1)
    """

    formula, kernel_name = formulas.SimpleRNNFormula, "rnn"
