"""Cells missing in Keras: layer normalization, peepholes, and minGRU.

Axes in shape comments: B batch, D features, U units, G gates.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
from keras import ops

from kseq.layers.backends import matmul
from kseq.layers.composition import freeze_parts
from kseq.layers.recurrent.formulas import MinGRUFormula
from kseq.layers.validation import integer, positive_integer
from kseq.typing import Config, Shape, Tensor

if TYPE_CHECKING:  # each cell inherits from `Variant` and then from a cell of Keras
    KerasCell: TypeAlias = keras.layers.Layer
else:
    KerasCell = object


class Variant(KerasCell):
    """Base of the cells below: a step in two halves, with Keras' dropout.

    `project` depends on the inputs alone, so `kseq.layers.RNN` calls it once for all
    steps; `advance` is the rest of the step. Dropout follows Gal and Ghahramani: the
    same features are dropped at every step.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        if kwargs.get("implementation", 2) != 2:
            raise ValueError(
                "`implementation` must be 2, one product for all gates. Received: "
                f"implementation={kwargs['implementation']}. Omit it."
            )
        super().__init__(units, **kwargs)
        # With recurrent dropout Keras would use a product and a mask for each gate.
        self.implementation, self.dropout_mask_count = 2, None
        self._dropout_mask = self._recurrent_dropout_mask = (
            None  # as in Keras between calls
        )

    def call(
        self, inputs: Tensor, states: Sequence[Tensor], training: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        states = list(states) if isinstance(states, (list, tuple)) else [states]
        h, inputs = states[0], ops.cast(inputs, self.compute_dtype)
        if training and self.dropout:
            inputs = inputs * self.get_dropout_mask(inputs)
        if training and self.recurrent_dropout:
            h = h * self.get_recurrent_dropout_mask(h)
        product = matmul(h, self.recurrent_kernel)  # B GU
        advanced = self.advance(self.project(inputs), product, states)
        return advanced[0], advanced[: len(states)]

    def _normalization(self, name: str, center: bool = False) -> "Normalization":
        return Normalization(center=center, dtype=self.dtype_policy, name=name)


class Normalization(keras.layers.LayerNormalization):
    """Normalization of a cell, whose error tells that the cell is not quantized.

    `Model.quantize` calls `quantize` only on layers without sublayers, and would skip
    the cell around them silently.
    """

    def quantize(
        self,
        mode: str | None = None,
        type_check: bool = True,
        config: Any = None,
    ) -> None:
        raise NotImplementedError(
            "A cell with layer normalization cannot be quantized; its kernels stay "
            f"unchanged. Received: {self.path}."
        )


def times(inputs: Tensor, kernel: Tensor) -> Tensor:
    return matmul(inputs, ops.cast(kernel, inputs.dtype))


@keras.saving.register_keras_serializable(package="kseq")
class LayerNormLSTMCell(Variant, keras.layers.LSTMCell):
    """An LSTM cell with layer normalization of the products and the cell state.

    `i, f, g, o = n(W x) + n(R h) + b`, `c' = s(f) c + s(i) tanh(g)`,
    `h' = s(o) tanh(n(c'))`, where `s` is the sigmoid and `n` is layer normalization.
    Each `n` has its own gain; the last also has a shift, and `b` is the shift of the
    others.

    For `kseq.layers.RNN`, `RecurrentEncoder` and `RecurrentDecoder`. It has the weights
    of `keras.layers.LSTMCell` and those of the three normalizations. `quantize` leaves
    them unchanged.

    Args:
        units: Size U of the states.
        **kwargs: As for `keras.layers.LSTMCell`, except `implementation`.

    Call arguments:
        inputs: `(B, D)`.
        states: `[h, c]`, each `(B, U)`.
        training: Whether to apply dropout.

    Returns:
        `(h, [h, c])`, each `(B, U)`.

    Raises:
        ValueError: `implementation` is not 2.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import LayerNormLSTMCell, RecurrentEncoder
    >>> encoder = RecurrentEncoder(LayerNormLSTMCell(3), num_layers=2)
    >>> tuple(encoder(np.ones((2, 7, 5))).shape)
    (2, 7, 3)

    References:
        - [Ba et al., 2016](https://arxiv.org/abs/1607.06450), supplement, (20) to (22)
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.input_normalization = self._normalization("input_normalization")
        self.recurrent_normalization = self._normalization("recurrent_normalization")
        self.state_normalization = self._normalization("state_normalization", True)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.input_normalization.build((None, 4 * self.units))
        self.recurrent_normalization.build((None, 4 * self.units))
        self.state_normalization.build((None, self.units))
        freeze_parts(self)

    def project(self, inputs: Tensor) -> Tensor:
        gates = self.input_normalization(times(inputs, self.kernel))  # B 4U
        return gates + ops.cast(self.bias, gates.dtype) if self.use_bias else gates

    def advance(
        self, projected: Tensor, product: Tensor, states: Sequence[Tensor]
    ) -> list[Tensor]:
        _, c = states
        gates = projected + self.recurrent_normalization(product)
        i, f, g, o = ops.split(gates, 4, axis=-1)
        sigmoid, tanh = self.recurrent_activation, self.activation
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return [sigmoid(o) * tanh(self.state_normalization(c)), c]


@keras.saving.register_keras_serializable(package="kseq")
class LayerNormGRUCell(Variant, keras.layers.GRUCell):
    """A GRU cell with layer normalization of the products.

    `z, r = s(n(W x) + n(R h) + b)`, `h' = z h + (1 - z) tanh(n(W_h x) + b_h +
    r (n(R_h h) + d_h))`, where `s` is the sigmoid and `n` is layer normalization, each
    with its own gain. `z` keeps the old state, as in Keras.

    For `kseq.layers.RNN`, `RecurrentEncoder` and `RecurrentDecoder`. It has the weights
    of `keras.layers.GRUCell` and those of the four normalizations. `quantize` leaves
    them unchanged.

    Args:
        units: Size U of the state.
        **kwargs: As for `keras.layers.GRUCell`, except `implementation` and
            `reset_after`.

    Call arguments:
        inputs: `(B, D)`.
        states: `[h]`, `(B, U)`.
        training: Whether to apply dropout.

    Returns:
        `(h, [h])`, `(B, U)`.

    Raises:
        ValueError: `implementation` is not 2, or `reset_after` is False.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import RNN, LayerNormGRUCell
    >>> tuple(RNN(LayerNormGRUCell(3))(np.ones((2, 7, 5))).shape)
    (2, 3)

    References:
        - [Ba et al., 2016](https://arxiv.org/abs/1607.06450), supplement, (23) to (25)
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        if not self.reset_after:
            raise ValueError(
                "`reset_after` must be True: the product with the state is normalized "
                "before the gate is applied. Received: reset_after=False."
            )
        self.gate_sizes = [2 * units]  # of what `advance` returns after the state
        self.input_normalization = self._normalization("input_normalization")
        self.recurrent_normalization = self._normalization("recurrent_normalization")
        self.input_normalization_h = self._normalization("input_normalization_h")
        self.recurrent_normalization_h = self._normalization(
            "recurrent_normalization_h"
        )

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.input_normalization.build((None, 2 * self.units))
        self.recurrent_normalization.build((None, 2 * self.units))
        self.input_normalization_h.build((None, self.units))
        self.recurrent_normalization_h.build((None, self.units))
        freeze_parts(self)

    def project(self, inputs: Tensor) -> Tensor:
        x_zr, x_h = ops.split(times(inputs, self.kernel), [2 * self.units], axis=-1)
        projected = ops.concatenate(
            [self.input_normalization(x_zr), self.input_normalization_h(x_h)], axis=-1
        )  # B 3U
        bias = ops.cast(self.bias[0], projected.dtype) if self.use_bias else 0
        return projected + bias

    def advance(
        self, projected: Tensor, product: Tensor, states: Sequence[Tensor]
    ) -> list[Tensor]:
        [h] = states
        x_zr, x_h = ops.split(projected, [2 * self.units], axis=-1)
        p_zr, p_h = ops.split(product, [2 * self.units], axis=-1)
        p_zr = self.recurrent_normalization(p_zr)
        p_h = self.recurrent_normalization_h(p_h)
        if self.use_bias:
            d_zr, d_h = ops.split(ops.cast(self.bias[1], p_h.dtype), [2 * self.units])
            p_zr, p_h = p_zr + d_zr, p_h + d_h
        zr = self.recurrent_activation(x_zr + p_zr)  # B 2U
        z, r = ops.split(zr, 2, axis=-1)
        return [z * h + (1 - z) * self.activation(x_h + r * p_h), zr]


@keras.saving.register_keras_serializable(package="kseq")
class PeepholeLSTMCell(Variant, keras.layers.LSTMCell):
    """An LSTM cell whose gates also read the cell state.

    `i = s(W_i x + R_i h + p_i c + b_i)`, `f` likewise with `p_f c`,
    `c' = f c + i tanh(W_g x + R_g h + b_g)`, `o = s(W_o x + R_o h + p_o c' + b_o)`,
    `h' = o tanh(c')`, where the peepholes `p` are vectors and `s` is the sigmoid.

    For `kseq.layers.RNN`, `RecurrentEncoder` and `RecurrentDecoder`. It has the weights
    of `keras.layers.LSTMCell`, and `peepholes` `(3, U)` for `i`, `f` and `o`, which
    start at zero.

    Args:
        units: Size U of the states.
        **kwargs: As for `keras.layers.LSTMCell`, except `implementation`.

    Call arguments:
        inputs: `(B, D)`.
        states: `[h, c]`, each `(B, U)`.
        training: Whether to apply dropout.

    Returns:
        `(h, [h, c])`, each `(B, U)`.

    Raises:
        ValueError: `implementation` is not 2.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import RNN, PeepholeLSTMCell
    >>> tuple(RNN(PeepholeLSTMCell(3))(np.ones((2, 7, 5))).shape)
    (2, 3)

    References:
        - [Gers et al., 2002](https://www.jmlr.org/papers/v3/gers02a.html), 4
        - [Graves, 2013](https://arxiv.org/abs/1308.0850), (7) to (11)
    """

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.peepholes = self.add_weight(
            shape=(3, self.units), initializer="zeros", name="peepholes"
        )

    def project(self, inputs: Tensor) -> Tensor:
        gates = times(inputs, self.kernel)  # B 4U
        return gates + ops.cast(self.bias, gates.dtype) if self.use_bias else gates

    def advance(
        self, projected: Tensor, product: Tensor, states: Sequence[Tensor]
    ) -> list[Tensor]:
        _, before = states
        i, f, g, o = ops.split(projected + product, 4, axis=-1)
        sigmoid, tanh = self.recurrent_activation, self.activation
        p_i, p_f, p_o = ops.split(ops.cast(self.peepholes, before.dtype), 3)  # 1 U
        c = sigmoid(f + p_f * before) * before + sigmoid(i + p_i * before) * tanh(g)
        return [sigmoid(o + p_o * c) * tanh(c), c]


@keras.saving.register_keras_serializable(package="kseq")
class MinGRUCell(keras.layers.Layer):
    """A GRU cell whose gate and candidate depend on the input alone.

    One step of `kseq.layers.MinGRU`, which explains the formula and the arguments, and
    which is much faster over a sequence. Use the cell to write loops of your own, or as
    `"mingru"` in `RecurrentDecoder`.

    Args:
        units: Size U of the state.
        memory: Number of steps, at least 2, that the slowest unit remembers at first.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, D)`.
        states: `[h]`, `(B, U)`.

    Returns:
        `(h, [h])`, `(B, U)`.

    Raises:
        ValueError: `units` is not a positive integer, or `memory` is below 2.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import MinGRUCell
    >>> output, [state] = MinGRUCell(3)(np.ones((2, 5)), [np.zeros((2, 3))])
    >>> tuple(output.shape)
    (2, 3)

    References:
        - [Feng et al., 2024](https://arxiv.org/abs/2410.01201), 3.1
    """

    def __init__(self, units: int, memory: int = 1000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = positive_integer("units", units)
        if integer("memory", memory) < 2:
            raise ValueError(
                "`memory` must be at least 2 steps: a gate of one half, the fastest at "
                f"first, keeps a state for that long. Received: memory={memory}."
            )
        self.memory = int(memory)

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_weight(
            shape=(input_shape[-1], 2 * self.units),
            initializer="glorot_uniform",
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(2 * self.units,), initializer=self._first_bias, name="bias"
        )

    def _first_bias(self, shape: Shape, dtype: Any = None) -> Tensor:
        """Return biases for gates from `1 / memory` to one half, and zeros."""
        slowest = -math.log(self.memory - 1)
        of_gates = ops.linspace(slowest, 0.0, self.units, dtype=dtype)
        return ops.concatenate([of_gates, ops.zeros_like(of_gates)])

    def call(
        self, inputs: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        [h] = states if isinstance(states, (list, tuple)) else [states]
        products = times(ops.cast(inputs, self.compute_dtype), self.kernel)  # B 2U
        products += ops.cast(self.bias, products.dtype)
        [h], _ = MinGRUFormula.advance(products, products[..., :0], [h])
        return h, [h]

    def get_config(self) -> Config:
        return {**super().get_config(), "units": self.units, "memory": self.memory}
