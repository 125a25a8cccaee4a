"""Position-wise feed-forward network of a Transformer.

Axes in shape comments: B batch, S steps, D features.
"""

from typing import Any

import keras

from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.dropout import Dropout
from kseq.layers.initializers import initializer_of
from kseq.layers.masking import apply_mask
from kseq.layers.validation import positive_integer, rate
from kseq.typing import Activation, Config, Initializer, Shape, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class FeedForward(Composite):
    """Position-wise network of a Transformer: `W_2 activation(W_1 x + b_1) + b_2`.

    Args:
        intermediate_dim: Width between the two products.
        activation: Activation between them: a Keras name such as `"relu"` or `"gelu"`,
            a function, or None.
        dropout: Fraction of the intermediate features to drop in training.
        kernel_initializer: Initializer of the kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, S, D)`.
        mask: Boolean `(B, S)`, True where a step is real; other steps are read as
            zeros. Defaults to the Keras mask of `inputs`, which the outputs keep.

    Returns:
        `(B, S, D)`.

    Raises:
        ValueError: `intermediate_dim` is not a positive integer, or `dropout` is not in
            [0, 1).

    Example:

    >>> import numpy as np
    >>> from kseq.layers import FeedForward
    >>> tuple(FeedForward(intermediate_dim=20)(np.ones((2, 7, 5))).shape)
    (2, 7, 5)

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), 3.3
    """

    def __init__(
        self,
        intermediate_dim: int,
        activation: Activation = "relu",
        dropout: float = 0.0,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.intermediate_dim = positive_integer("intermediate_dim", intermediate_dim)
        self.activation = keras.activations.get(activation)
        self.dropout = rate("dropout", dropout)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.widen = self._dense("widen", intermediate_dim, self.activation)
        self.dropout_layer = Dropout(dropout, dtype=self.dtype_policy)
        self.supports_masking = True

    def _dense(
        self, name: str, units: int | None, activation: Activation = None
    ) -> keras.layers.Dense:
        return keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=initializer_of(name, self.kernel_initializer),
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, inputs_shape: Shape) -> None:
        self.narrow = self._dense("narrow", inputs_shape[-1])
        self.widen.build(inputs_shape)
        self.narrow.build((*inputs_shape[:-1], self.intermediate_dim))
        freeze_parts(self)

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        return inputs_shape

    def call(
        self, inputs: Tensor, mask: Tensor | None = None, training: bool = False
    ) -> Tensor:
        hidden = self.widen(apply_mask(inputs, mask))  # B S intermediate_dim
        return self.narrow(self.dropout_layer(hidden, training=training))  # B S D

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "intermediate_dim": self.intermediate_dim,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
