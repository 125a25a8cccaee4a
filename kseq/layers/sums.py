"""Sums over axes of unknown length, in at least float32.

A sum in float16 may overflow to infinity on the way, and one in bfloat16 stops growing
at 256 times the values that are added.

Axes in shape comments: B batch, S steps, D features.
"""

import keras
from keras import ops

from kseq.typing import Tensor


def precise(x: Tensor) -> Tensor:
    """Cast a tensor to float32, unless it is more precise already."""
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))


def total(x: Tensor, axis: int | tuple[int, ...]) -> Tensor:
    """Return the sum over axes, in the dtype of the tensor."""
    return ops.cast(ops.sum(precise(x), axis=axis), x.dtype)


def mean_of_steps(sequences: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean of the real steps of `(B, S, D)`, zeros if there are none.

    Masked steps must be zeros.
    """
    if sequences.shape[1] == 0:
        return ops.sum(sequences, axis=1)
    steps = precise(sequences)
    if mask is None:  # in a graph the number of steps may be unknown, and 0
        count = ops.cast(ops.shape(sequences)[1], steps.dtype)
    else:
        count = ops.sum(ops.cast(mask, steps.dtype), axis=1, keepdims=True)  # B 1
    mean = ops.sum(steps, axis=1) / ops.maximum(count, 1.0)  # B D
    return ops.cast(mean, sequences.dtype)
