"""Similarity: how near two vectors are, as logits.

Axes in shape comments: B first vectors, N second vectors, D features.
"""

import math

import keras
from keras import ops

from kseq.layers.backends import matmul
from kseq.layers.layer import Layer
from kseq.layers.validation import positive_number

SMALL = 1e-12  # least square of a length, so that a vector of zeros stays one


@keras.saving.register_keras_serializable(package="kseq")
class CosineSimilarity(Layer):
    """The cosine between vectors, times a learned scale.

    `s x . y / (|x| |y|)` of each first vector with each second one: logits of which
    belong together. The scale `s = exp(w)`, one over a temperature, is learned as its
    logarithm `w`, which after each step of training is clipped to at most
    `log(max_scale)`. Computed in float32 at least.

    Args:
        temperature: One over the scale at the beginning.
        max_scale: The largest scale.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        first: `(B, D)`.
        second: `(N, D)`.

    Returns:
        Logits `(B, N)`. A vector of zeros has a cosine of 0 with any other.

    Raises:
        ValueError: A number is not positive, the beginning is beyond `max_scale`, or
            the vectors are not of one width.

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

    def __init__(self, temperature=0.07, max_scale=100.0, **kwargs):
        super().__init__(**kwargs)
        self.temperature = positive_number("temperature", temperature)
        self.max_scale = positive_number("max_scale", max_scale)
        if 1 / self.temperature > self.max_scale:
            raise ValueError(
                "`temperature` must be at least 1 / max_scale. Received: "
                f"temperature={temperature} with max_scale={max_scale}."
            )

    def build(self, first_shape, second_shape):
        shapes = tuple(first_shape), tuple(second_shape)
        if {len(shape) for shape in shapes} != {2} or shapes[0][1] != shapes[1][1]:
            raise ValueError(
                "`first` and `second` must be vectors of one width, shapes (B, D) and "
                f"(N, D). Received: first of shape {shapes[0]}, second of shape "
                f"{shapes[1]}. A dense layer in front of one brings it to the width of "
                "the other."
            )
        self.log_scale = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(-math.log(self.temperature)),
            constraint=lambda w: ops.minimum(w, math.log(self.max_scale)),
            name="log_scale",
        )

    def compute_output_shape(self, first_shape, second_shape):
        return (first_shape[0], second_shape[0])

    def call(self, first, second):
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        x, y = (unit_length(ops.cast(vectors, dtype)) for vectors in (first, second))
        cosines = matmul(x, ops.transpose(y))  # B N
        logits = cosines * ops.exp(ops.cast(self.log_scale, dtype))
        return ops.cast(logits, self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "max_scale": self.max_scale,
        }


def unit_length(vectors):
    """Vectors `(..., D)` of length 1, but those of zeros."""
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(squares, SMALL))
