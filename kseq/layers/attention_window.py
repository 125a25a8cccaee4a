"""Local attention: weights in a window around a predicted position of the source.

Axes in shape comments: B batch, T query steps, S key steps, D features.
"""

from keras import ops

from kseq.layers.backends import matmul
from kseq.layers.masking import as_boolean_mask, masked_softmax
from kseq.layers.sums import precise
from kseq.typing import Tensor


def window_centres(query: Tensor, kernel: Tensor, column: Tensor) -> Tensor:
    """Return the centre of each query's window, a fraction of the source, `(B, T, 1)`.

    That is `sigmoid(tanh(query W) v)`. It is computed in at least float32, since in
    bfloat16 the centre would be off by steps in a long source.
    """
    hidden = ops.tanh(matmul(precise(query), precise(kernel)))  # B T D
    return ops.sigmoid(matmul(hidden, precise(column)))


def local_weights(
    scores: Tensor, centres: Tensor, window: int, mask: Tensor | None = None
) -> Tensor:
    """Return the softmax within windows, times a Gaussian around their centres.

    Args:
        scores: `(B, T, S)`.
        centres: `(B, T, 1)`, as fractions of the real steps, in at least float32.
        window: Number of steps D on either side of a centre; the standard deviation is
            half of it.
        mask: Boolean `(B, S)`, True where a step is real. None means all are.

    Returns:
        Weights `(B, T, S)`, in the dtype of the scores.
    """
    if mask is None:
        is_real = ops.ones((1, ops.shape(scores)[2]), "bool")
    else:
        is_real = as_boolean_mask(mask)
    positions = ops.cumsum(ops.cast(is_real, "int32"), axis=1)  # B S, from 1 to S
    positions = ops.cast(ops.expand_dims(positions, 1), centres.dtype)  # B 1 S
    distances = positions - centres * positions[..., -1:]  # B T S
    is_near = (ops.abs(distances) <= window) & ops.expand_dims(is_real, 1)
    weights = precise(masked_softmax(scores, is_near))
    gaussian = ops.exp(-2 * ops.square(distances / window))
    return ops.cast(weights * gaussian, scores.dtype)
