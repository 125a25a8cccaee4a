"""Similarity of vectors as logits.

Axes in shape comments: B first vectors, N second vectors, D features.
"""

import math
from typing import Any

import keras
from keras import ops

from kseq.layers.backends import matmul
from kseq.layers.layer import Layer
from kseq.layers.validation import positive_number
from kseq.typing import Config, Shape, Tensor

SMALL = 1e-12  # minimum squared length, so that a vector of zeros stays zeros


@keras.saving.register_keras_serializable(package="kseq")
class CosineSimilarity(Layer):
    """Cosine similarity, multiplied by a learned scale.

    `s x . y / (|x| |y|)` for each pair of a first and a second vector: the logits that
    they belong together. The scale `s = exp(w)` is one over a temperature. Its
    logarithm `w` is learned, and clipped to at most `log(max_scale)` after each
    training step. The layer computes in at least float32.

    Args:
        temperature: One over the initial scale.
        max_scale: Maximum scale.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        first: `(B, D)`.
        second: `(N, D)`.

    Returns:
        Logits `(B, N)`. A vector of zeros has a cosine of 0 with any other vector.

    Raises:
        ValueError: A number is not positive, the initial scale exceeds `max_scale`, or
            the vectors differ in width.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import CosineSimilarity
    >>> similarity = CosineSimilarity(temperature=0.1)
    >>> logits = similarity(np.array([[3.0, 4.0]]), np.array([[6.0, 8.0], [0.0, 5.0]]))
    >>> np.array(logits).round(3).tolist()
    [[10.0, 8.0]]

    References:
        - [Radford et al., 2021](https://arxiv.org/abs/2103.00020), 2.3, 2.5
    """

    def __init__(
        self, temperature: float = 0.07, max_scale: float = 100.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.temperature = positive_number("temperature", temperature)
        self.max_scale = positive_number("max_scale", max_scale)
        if 1 / self.temperature > self.max_scale:
            raise ValueError(
                "`temperature` must be at least 1 / max_scale. Received: "
                f"temperature={temperature} with max_scale={max_scale}."
            )

    def build(self, first_shape: Shape, second_shape: Shape) -> None:
        shapes = tuple(first_shape), tuple(second_shape)
        if {len(shape) for shape in shapes} != {2} or shapes[0][1] != shapes[1][1]:
            raise ValueError(
                "`first` and `second` must be vectors of one width, shapes (B, D) and "
                f"(N, D). Received: first of shape {shapes[0]}, second of shape "
                f"{shapes[1]}. Project one of them to the width of the other with a "
                "dense layer."
            )
        self.log_scale = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(-math.log(self.temperature)),
            constraint=lambda w: ops.minimum(w, math.log(self.max_scale)),
            name="log_scale",
        )

    def compute_output_shape(self, first_shape: Shape, second_shape: Shape) -> Shape:
        return (first_shape[0], second_shape[0])

    def call(self, first: Tensor, second: Tensor) -> Tensor:
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        x, y = (unit_length(ops.cast(vectors, dtype)) for vectors in (first, second))
        cosines = matmul(x, ops.transpose(y))  # B N
        logits = cosines * ops.exp(ops.cast(self.log_scale, dtype))
        return ops.cast(logits, self.compute_dtype)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "max_scale": self.max_scale,
        }


def unit_length(vectors: Tensor) -> Tensor:
    """Scale vectors `(..., D)` to length 1; zeros stay zeros."""
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(squares, SMALL))
