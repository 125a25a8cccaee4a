"""LSTM, GRU and SimpleRNN, faster than Keras' layers, and MinGRU.

Axes in shape comments: B batch, T steps, D features, U units.
"""

from typing import Any, Self

import keras
from keras import ops

from kseq.layers import backends, torch_kernels
from kseq.layers.recurrent import formula_loop, formulas
from kseq.layers.recurrent.cell_variants import MinGRUCell
from kseq.layers.recurrent.fast_loop import FastLoop, temporary_attributes
from kseq.layers.sums import precise
from kseq.typing import Config, Tensor


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


@keras.saving.register_keras_serializable(package="kseq")
class MinGRU(FastLoop, keras.layers.RNN):
    """Minimal gated recurrent unit, for long sequences.

    `z = s(W_z x + b_z)`, `h' = (1 - z) h + z (W_h x + b_h)`, with the sigmoid `s`. Gate
    and candidate depend on the input alone, so all products are computed before the
    loop. But a layer cannot compare its state with its input: stack two or more.

    A gate near one half would forget in a few steps. So `b_z` starts evenly spaced from
    `-log(memory - 1)` to 0: the gates start near `1 / memory` to `1 / 2`, and the units
    remember from `memory` steps to two, evenly on a logarithmic scale.

    On a CPU it trains more than twice as fast as `GRU` over 1,000 steps
    (`benchmarks/recurrent.py --case mingru_1x128_length_1000`). Under half precision
    the loop is computed in float32, since the small change of a step would be lost.
    Keras runs the loop with `unroll=True`; on TensorFlow and JAX on other devices; and
    on TensorFlow below 32 units.

    Args:
        units: Size U of the state.
        memory: Number of steps, at least 2, that the slowest unit remembers at first.
        **kwargs: `return_sequences`, `return_state`, `go_backwards`, `stateful` and the
            other arguments of `keras.layers.RNN`.

    Call arguments:
        sequences: `(B, T, D)`.
        initial_state: A state, or a list of one, `(B, U)`. Defaults to zeros.
        mask: Boolean `(B, T)`; a masked step leaves the state, and so the output,
            unchanged. It takes no time if it is masked in every row. Before the first
            real step the output is the initial state. Defaults to the Keras mask of
            `sequences`.

    Returns:
        The last output `(B, U)`, or all `(B, T, U)` with `return_sequences=True`; with
        `return_state=True` also the final state `(B, U)`.

    Raises:
        ValueError: `units` is not a positive integer, `memory` is below 2, or the
            initial state or the mask does not fit.
        NotImplementedError: A second gradient of a compiled loop is requested.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import MinGRU
    >>> tuple(MinGRU(3, return_sequences=True)(np.ones((2, 7, 5))).shape)
    (2, 7, 3)

    References:
        - [Feng et al., 2024](https://arxiv.org/abs/2410.01201), 3.1
        - [Tallec and Ollivier, 2018](https://arxiv.org/abs/1804.11188), 2 (biases of
          gates from the length of the memory)
    """

    formula, kernel_name = formulas.MinGRUFormula, "mingru"

    def __init__(self, units: int, memory: int = 1000, **kwargs: Any) -> None:
        cell = MinGRUCell(units, memory, dtype=kwargs.get("dtype"), name="cell")
        super().__init__(cell, **kwargs)
        self.units, self.memory = cell.units, cell.memory

    def _has_kernel(self) -> bool:
        return torch_kernels.available() and not self.unroll

    def _kernel_weights(self) -> list[Tensor]:
        return [self.cell.kernel, self.cell.bias]

    def _is_covered(self, sequences: Tensor) -> bool:
        return backends.is_worth_compiling(self.units) and not self.unroll

    def _run(
        self,
        sequences: Tensor,
        states: list[Tensor],
        mask: Tensor | None,
        length: Tensor,
        training: bool,
    ) -> tuple[Tensor, list[Tensor]]:
        sequences = precise(sequences)
        return formula_loop.run(
            self.formula,
            sequences,
            [precise(state) for state in states],
            [precise(weight) for weight in (self.cell.kernel, self.cell.bias)],
            [ops.zeros(shape, sequences.dtype) for shape in ((self.units, 0), (0,))],
            mask,
            ops.cast(length, "int32"),
            reverse=self.go_backwards,
            training=training,
        )

    def get_config(self) -> Config:
        config = {**super().get_config(), "units": self.units, "memory": self.memory}
        del config["cell"]
        return config

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**config)
