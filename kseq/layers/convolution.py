"""Convolutional encoders: stacks of dilated convolutions over a sequence.

Axes in shape comments: B batch, S steps, D features, U units, P steps before the first.
"""

from typing import Any

import keras
from keras import ops

from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.dropout import sequence_dropout
from kseq.layers.layer import Layer
from kseq.layers.masking import apply_mask, mask_of, step_mask
from kseq.layers.sums import precise
from kseq.layers.validation import (
    positive_integer,
    rate,
    sequence_shape,
    shapes_compatible,
)
from kseq.typing import Activation, Config, Shape, Tensor, Tree

CONVOLUTIONS = 2  # per layer, as in the paper


@keras.saving.register_keras_serializable(package="kseq")
class ConvEncoder(Composite):
    """A stack of dilated convolutions with residual connections (TCN).

    Each layer computes `x + f(f(x))` with `f(x) = dropout(activation(conv(x)))`, where
    layer `i` convolves steps that are `dilation_base ** i` apart. Unlike in the paper,
    there is no activation after the sum. With `gated`, a convolution returns `a` and
    `b`, and its output is `activation(a) sigmoid(b)`: a gated linear unit for
    `activation="linear"`, the unit of WaveNet for `"tanh"`.

    Kernels are normalized, `W = g v / |v|`, with a length `g` for each output. Layer
    normalization is not used: it would remove the scale of each step, and so the shape
    of a series.

    An output depends on `receptive_field` steps. Steps beyond the ends of a sequence
    and masked steps are zeros. So a masked step between real ones keeps its position; a
    recurrent layer would skip it.

    Args:
        units: Size U of the outputs.
        num_layers: Number of layers, of two convolutions each.
        kernel_size: Number of steps that a convolution reads.
        dilation_base: Base of the dilations, 1 for none.
        causal: Whether an output depends only on its own step and those before it. If
            False, its step is in the middle of those that it depends on.
        gated: Whether to gate the output of each convolution.
        residual: Whether to add each layer's input to its output. If their widths
            differ, the input is projected.
        activation: Activation of the convolutions.
        weight_normalization: Whether to normalize the kernels.
        dropout: Fraction of the features of each convolution's output to drop in
            training, the same ones at every step.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        mask: Boolean `(B, S)`, True where a step may be read. Defaults to the Keras
            mask of `sequences`, which the outputs keep.
        initial_state: The states that a causal encoder returned for the previous steps.
            None if these are the first steps.
        return_state: Whether to return the states as well; for a causal encoder only.

    Returns:
        Outputs `(B, S, U)`, zeros at masked steps, or `(outputs, states)`. The states
        are a list for each layer, from the first to the last, of the last inputs of its
        convolutions: `(B, (kernel_size - 1) * dilation, D)` for the very first
        convolution, `(..., U)` for the others. If a sequence is encoded in chunks, each
        with the states of the chunk before, the outputs are those of the whole.

    Raises:
        ValueError: A size is not a positive integer, `dropout` is not in [0, 1), a mask
            is neither boolean nor made of 0 and 1, `initial_state` has the wrong
            shapes, or states are passed to or requested from an encoder that is not
            causal.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import ConvEncoder
    >>> encoder = ConvEncoder(units=6, num_layers=3, causal=True)
    >>> encoder.receptive_field
    29
    >>> series = np.random.default_rng(0).normal(size=(2, 9, 5)).astype("float32")
    >>> whole = encoder(series)
    >>> first, states = encoder(series[:, :4], return_state=True)
    >>> second = encoder(series[:, 4:], initial_state=states)
    >>> np.allclose(np.concatenate([first, second], axis=1), whole, atol=1e-5)
    True

    References:
        - [Bai et al., 2018](https://arxiv.org/abs/1803.01271), 3
        - [van den Oord et al., 2016](https://arxiv.org/abs/1609.03499), 2.1, 2.3 (gate)
        - [Dauphin et al., 2017](https://arxiv.org/abs/1612.08083), 2 (linear gate)
        - [Salimans and Kingma, 2016](https://arxiv.org/abs/1602.07868), 2 (kernels)
    """

    def __init__(
        self,
        units: int,
        num_layers: int = 4,
        kernel_size: int = 3,
        dilation_base: int = 2,
        causal: bool = False,
        gated: bool = False,
        residual: bool = True,
        activation: Activation = "relu",
        weight_normalization: bool = True,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = positive_integer("units", units)
        self.num_layers = positive_integer("num_layers", num_layers)
        self.kernel_size = positive_integer("kernel_size", kernel_size)
        self.dilation_base = positive_integer("dilation_base", dilation_base)
        self.causal = bool(causal)
        self.gated = bool(gated)
        self.residual = bool(residual)
        self.activation = keras.activations.get(activation)
        self.weight_normalization = bool(weight_normalization)
        self.dropout = rate("dropout", dropout)
        self.dropout_layer = sequence_dropout(self.dropout, self.dtype_policy)
        self.convolutions = [
            Convolution(
                self.units * (2 if self.gated else 1),
                self.kernel_size,
                self.dilation_base**layer,
                self.causal,
                self.weight_normalization,
                dtype=self.dtype_policy,
                name=f"convolution_{layer}_{index}",
            )
            for layer in range(self.num_layers)
            for index in range(CONVOLUTIONS)
        ]
        self.supports_masking = True

    @property
    def receptive_field(self) -> int:
        """The number of steps that an output depends on."""
        return 1 + sum(part.num_before for part in self.convolutions)

    def build(self, sequences_shape: Shape) -> None:
        shape = sequence_shape("sequences", sequences_shape)
        self.projection: Any = None
        if self.residual and shape[-1] != self.units:
            # Without a bias, so that masked steps stay zero.
            self.projection = keras.layers.Dense(
                self.units, use_bias=False, dtype=self.dtype_policy, name="projection"
            )
            self.projection.build(shape)
        for convolution in self.convolutions:
            convolution.build(shape)
            shape = (*shape[:2], self.units)
        freeze_parts(self)

    def compute_output_shape(self, sequences_shape: Shape) -> Shape:
        sequence_shape("sequences", sequences_shape)
        return (*sequences_shape[:-1], self.units)

    def call(
        self,
        sequences: Tensor,
        mask: Tensor | None = None,
        initial_state: Tree = None,
        return_state: bool = False,
        training: bool = False,
    ) -> Tensor | tuple[Tensor, list[list[Tensor]]]:
        if mask is None and initial_state is not None:
            mask = mask_of(sequences)  # Keras passes it only if there is one tensor
        mask = step_mask(mask, sequences)
        before = self._checked_states(initial_state, return_state, sequences.shape)
        x, after = apply_mask(sequences, mask), []
        for layer in range(self.num_layers):
            y, first = x, layer * CONVOLUTIONS
            for index in range(first, first + CONVOLUTIONS):
                y, last_inputs = self.convolutions[index](y, before[index])
                y = self._activated(y)
                y = self.dropout_layer(y, training=training)
                y = apply_mask(y, mask)  # B S U
                after.append(last_inputs)
            x = self._add_residual(x, y)
        if not return_state:
            return x
        firsts = range(0, len(after), CONVOLUTIONS)
        return x, [after[first : first + CONVOLUTIONS] for first in firsts]

    def _activated(self, y: Tensor) -> Tensor:
        if not self.gated:
            return self.activation(y)
        y, gates = ops.split(y, 2, axis=-1)
        return self.activation(y) * ops.sigmoid(gates)

    def _add_residual(self, x: Tensor, y: Tensor) -> Tensor:
        """Add the input of a layer to its output, if it is residual: `(B, S, U)`."""
        if not self.residual:
            return y
        is_projected = self.projection is not None and x.shape[-1] != self.units
        return y + (self.projection(x) if is_projected else x)

    def _checked_states(
        self, states: Tree, return_state: bool, sequences_shape: Shape
    ) -> list[Tensor | None]:
        """Return the states of all convolutions in one list, None for zeros."""
        if not self.causal and (return_state or states is not None):
            raise ValueError(
                "`initial_state` and `return_state` need a causal encoder. Received: "
                f"{self.name} with causal=False. Create it with `causal=True`."
            )
        if states is None:
            return [None] * len(self.convolutions)
        states = keras.tree.flatten(states)
        widths = [sequences_shape[-1]] + [self.units] * (len(self.convolutions) - 1)
        pairs = zip(self.convolutions, widths, strict=True)
        rows = sequences_shape[0]
        expected = [(rows, part.num_before, width) for part, width in pairs]
        received = [tuple(state.shape) for state in states]
        if len(received) != len(expected) or not all(
            map(shapes_compatible, received, expected)
        ):
            raise ValueError(
                "`initial_state` must be states that the same encoder returned for as "
                f"many examples, of shapes {expected}. Received: states of shapes "
                f"{received}. Call the encoder on the previous steps with "
                "`return_state=True`."
            )
        return states

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "num_layers": self.num_layers,
            "kernel_size": self.kernel_size,
            "dilation_base": self.dilation_base,
            "causal": self.causal,
            "gated": self.gated,
            "residual": self.residual,
            "activation": keras.activations.serialize(self.activation),
            "weight_normalization": self.weight_normalization,
            "dropout": self.dropout,
        }


class Convolution(Layer):
    """A convolution over steps that are `dilation` apart: `sum_j W_j x[s + j d] + b`.

    The steps beyond the ends are zeros, or `before`. A normalized kernel is
    `g v / |v|`, where `g` starts at 1, so that outputs are about as large as inputs.

    Call arguments:
        sequences: `(B, S, D)`, zeros at masked steps.
        before: `(B, P, D)`, the previous steps for a causal convolution, or None for
            zeros.

    Returns:
        `(B, S, U)`, and the last P inputs, `(B, P, D)`.
    """

    def __init__(
        self,
        units: int,
        kernel_size: int,
        dilation: int,
        causal: bool,
        is_normalized: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units, self.kernel_size = units, kernel_size
        self.dilation, self.causal = dilation, causal
        self.is_normalized = is_normalized

    @property
    def num_before(self) -> int:
        """P, the number of steps that an output depends on besides its own."""
        return (self.kernel_size - 1) * self.dilation

    def build(self, sequences_shape: Shape) -> None:
        self.kernel = self.add_weight(
            shape=(self.kernel_size, sequences_shape[-1], self.units),
            initializer="glorot_uniform",
            name="kernel",
        )
        sizes = {"shape": (self.units,)}
        self.bias = self.add_weight(**sizes, initializer="zeros", name="bias")
        self.scale = None
        if self.is_normalized:
            self.scale = self.add_weight(**sizes, initializer="ones", name="scale")

    def normalized_kernel(self) -> Tensor:
        kernel = ops.convert_to_tensor(self.kernel)
        if self.scale is None:
            return kernel
        squares = ops.sum(precise(kernel) ** 2, axis=(0, 1))  # U
        inverse = ops.cast(ops.rsqrt(ops.maximum(squares, 1e-12)), kernel.dtype)
        return kernel * (inverse * self.scale)

    def call(
        self, sequences: Tensor, before: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        num_before = self.num_before
        left = num_before
        if not self.causal:
            left = (self.kernel_size - 1) // 2 * self.dilation
        if before is None:
            sides = [[0, 0], [left, num_before - left], [0, 0]]
            x = ops.pad(sequences, sides)  # B P+S D
        else:
            x = ops.concatenate([before, sequences], axis=1)
        last_inputs = x[:, -num_before:] if num_before else x[:, :0]
        if sequences.shape[1] == 0:  # Keras raises for an empty sequence
            return ops.zeros(
                (*ops.shape(sequences)[:2], self.units), x.dtype
            ), last_inputs
        outputs = ops.conv(
            x,
            self.normalized_kernel(),
            padding="valid",
            dilation_rate=self.dilation,
            data_format="channels_last",
        )
        return outputs + self.bias, last_inputs  # B S U, B P D
