"""Sums over axes of unknown length, which half precision would not hold.

On the way a sum of float16 may be infinite, and one of bfloat16 stands still at 256
times what is added. So these are computed in float32 at least.

Axes in shape comments: B batch, S steps, D features.
"""

import keras
from keras import ops


def precise(x):
    """The tensor in float32 at least."""
    return ops.cast(x, keras.backend.result_type(x.dtype, "float32"))


def total(x, axis):
    """The sum over the axes, in the dtype of the tensor."""
    return ops.cast(ops.sum(precise(x), axis=axis), x.dtype)


def mean_of_steps(sequences, mask=None):
    """The mean of the real steps of `(B, S, D)`, zeros where there are none.

    What stands behind the mask must be zeros.
    """
    if sequences.shape[1] == 0:
        return ops.sum(sequences, axis=1)
    if mask is None:
        return ops.cast(ops.mean(precise(sequences), axis=1), sequences.dtype)
    steps = precise(sequences)
    count = ops.sum(ops.cast(mask, steps.dtype), axis=1, keepdims=True)  # B 1
    mean = ops.sum(steps, axis=1) / ops.maximum(count, 1.0)  # B D
    return ops.cast(mean, sequences.dtype)
