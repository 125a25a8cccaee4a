"""Matrix products of attention: projections, scores and weighted sums.

`einsum` is not used: on TensorFlow it and its gradient accumulate half precision in
half precision, which loses 2 % over 500 steps, and half over 3,000 steps of bfloat16.

Axes in shape comments: B batch, T query steps, S key steps, N key heads, G query heads
to each key head, C size of a head.
"""

from collections.abc import Sequence

import keras
from keras import ops

from kseq.layers.backends import matmul
from kseq.typing import Tensor


def rows_of(x: Tensor) -> Tensor | int:
    """Return the first size for a reshape: -1, unless another axis is empty."""
    return ops.shape(x)[0] if 0 in x.shape[1:] else -1


def scores_of(queries: Tensor, keys: Tensor) -> Tensor:
    """Multiply `(B, T, N, G, C)` by `(B, N, C, S)`, giving `(B, N, G, T, S)`."""
    heads, group, size = queries.shape[2:]
    rows, length = ops.shape(queries)[:2]
    queries = ops.transpose(queries, (0, 2, 3, 1, 4))  # B N G T C
    queries = ops.reshape(queries, (rows, heads, group * length, size))
    scores = matmul(queries, keys)  # B N GT S
    return ops.reshape(scores, (rows, heads, group, length, ops.shape(keys)[3]))


def sum_by_weights(weights: Tensor, values: Tensor) -> Tensor:
    """Multiply `(B, N, G, T, S)` by `(B, N, S, C)`, giving `(B, T, N, G, C)`."""
    heads, group = weights.shape[1:3]
    rows, _, _, length, steps = ops.shape(weights)
    weights = ops.reshape(weights, (rows, heads, group * length, steps))
    context = matmul(weights, values)  # B N GT C
    context = ops.reshape(context, (rows, heads, group, length, values.shape[3]))
    return ops.transpose(context, (0, 3, 1, 2, 4))


def by_head(weights: Tensor) -> Tensor:
    """Reshape `(B, N, G, T, S)` to `(B, H, T, S)`."""
    num_heads = weights.shape[1] * weights.shape[2]
    shape = (rows_of(weights), num_heads, *ops.shape(weights)[3:])
    return ops.reshape(weights, shape)


def project_together(
    x: Tensor, projections: Sequence[keras.layers.Dense], dtype: str
) -> list[Tensor]:
    """Apply dense layers to `x` as one product with all their kernels."""
    outputs = matmul(x, join([ops.cast(dense.kernel, dtype) for dense in projections]))
    if projections[0].use_bias:
        outputs = outputs + join([ops.cast(d.bias, dtype) for d in projections])
    if len(projections) == 1:
        return [outputs]
    sizes = [dense.units for dense in projections]
    return ops.split(outputs, [sum(sizes[:i]) for i in range(1, len(sizes))], -1)


def join(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else ops.concatenate(tensors, axis=-1)
