"""Masks of usable positions, and a softmax that respects them.

A mask is boolean, and True means "may be used". Padding is passed through a model as
the Keras mask. Attention combines it with the look-ahead mask of a decoder.

Axes in shape comments: B batch, T query steps, S key steps.
"""

import functools

import keras
from keras import ops
from keras.backend import standardize_dtype

from kseq.layers.validation import concrete_values, shapes_compatible
from kseq.typing import Tensor, TensorLike


def padding_mask(token_ids: TensorLike, pad_token_id: int = 0) -> Tensor:
    """Return the padding mask of token ids.

    Args:
        token_ids: Integer tensor of any shape, usually `(B, S)`.
        pad_token_id: Id of the padding token.

    Returns:
        Boolean tensor shaped like `token_ids`, True where the token is real.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import padding_mask
    >>> np.array(padding_mask([[5, 7, 0], [9, 0, 0]])).tolist()
    [[True, True, False], [True, False, False]]

    References:
        - [Keras: masking and padding](https://keras.io/guides/understanding_masking_and_padding/)
    """
    token_ids = ops.convert_to_tensor(token_ids)
    if pad_token_id < 0 and standardize_dtype(token_ids.dtype).startswith("uint"):
        return ops.ones_like(token_ids, dtype="bool")  # in `uint8`, 255 would be -1
    return ops.not_equal(token_ids, pad_token_id)


def look_ahead_mask(
    query_length: int, key_length: int | None = None, offset: int = 0
) -> Tensor:
    """Return a mask that lets each query see its own step and earlier steps only.

    Query `t` is at step `t + offset` of the keys. A decoder that has already generated
    `offset` tokens passes that number.

    Args:
        query_length: Number of query steps T.
        key_length: Number of key steps S. Defaults to `query_length + offset`.
        offset: Number of steps before the first query.

    Returns:
        Boolean tensor `(T, S)`, True where `s <= t + offset`.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import look_ahead_mask
    >>> np.array(look_ahead_mask(3)).tolist()
    [[True, False, False], [True, True, False], [True, True, True]]
    >>> np.array(look_ahead_mask(1, 4, offset=2)).tolist()
    [[True, True, True, False]]

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), 3.2.3
    """
    key_length = query_length + offset if key_length is None else key_length
    queries = ops.arange(query_length, dtype="int32")[:, None] + offset  # T 1
    return queries >= ops.arange(key_length, dtype="int32")[None]  # T S


def combine_masks(*masks: TensorLike | None) -> Tensor | None:
    """Combine masks: a position may be used where every mask allows it.

    Args:
        *masks: Boolean (or 0/1) tensors that broadcast together, or None for "no
            restriction".

    Returns:
        Boolean tensor, or None if every mask is None.

    Raises:
        ValueError: A mask contains values other than booleans or 0 and 1.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import combine_masks, look_ahead_mask, padding_mask
    >>> padding = padding_mask([[5, 0, 7]])[:, None]
    >>> np.array(combine_masks(padding, look_ahead_mask(3), None)).tolist()
    [[[True, False, False], [True, False, False], [True, False, True]]]

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), 3.2.3
    """
    combined = None
    for mask in masks:
        if mask is not None:
            mask = as_boolean_mask(mask)
            combined = mask if combined is None else ops.logical_and(combined, mask)
    return combined


def as_boolean_mask(mask: TensorLike) -> Tensor:
    """Convert a 0/1 mask to a boolean mask, and raise for any other mask.

    An additive mask (0 and -1e9) read as boolean would mean the opposite of what its
    author intended. While a function is being compiled, the values of a mask cannot be
    checked, so there the mask must be of booleans or integers.

    Args:
        mask: Boolean tensor, or a numeric tensor of 0 and 1.

    Returns:
        Boolean tensor of the same shape.

    Raises:
        ValueError: The mask contains a value other than 0 and 1, or is a float tensor
            inside a compiled function.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import as_boolean_mask
    >>> np.array(as_boolean_mask([[1, 1, 0]])).tolist()
    [[True, True, False]]

    References:
        - [Keras: masking and padding](https://keras.io/guides/understanding_masking_and_padding/)
    """
    mask = ops.convert_to_tensor(mask)
    dtype = keras.backend.standardize_dtype(mask.dtype)
    if dtype == "bool":
        return mask
    values = concrete_values(mask)
    if values is None and "float" in dtype:
        raise ValueError(
            "A mask must be boolean, True where a position may be used. Received: a "
            f"mask of dtype={dtype} in a compiled function, where its values cannot "
            'be checked. Cast a 0/1 mask with `keras.ops.cast(mask, "bool")`.'
        )
    if values is not None and not ((values == 0) | (values == 1)).all():
        other = values[(values != 0) & (values != 1)].flat[0]
        raise ValueError(
            "A mask must be boolean or contain only 0 and 1, with 1 where a position "
            f"may be used. Received: mask with the value {other}. Convert an additive "
            "mask (0 and -1e9) with `mask == 0`."
        )
    return ops.cast(mask, "bool")


def masked_softmax(
    scores: TensorLike, mask: TensorLike | None = None, axis: int = -1
) -> Tensor:
    """Compute the softmax over the allowed positions.

    It is computed in at least float32, so half precision yields the same weights up to
    its own rounding. Where no position is allowed, the weights and their gradients are
    zeros, never NaN.

    Args:
        scores: Float tensor, usually `(B, T, S)`.
        mask: Boolean tensor that broadcasts to `scores`, True where a position may be
            used. None allows all positions.
        axis: Axis over which the weights sum to 1.

    Returns:
        Weights, with the shape and dtype of `scores`.

    Raises:
        ValueError: The mask contains values other than booleans or 0 and 1.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import masked_softmax
    >>> scores = np.zeros((2, 3), "float32")
    >>> mask = [[True, True, False], [False, False, False]]
    >>> np.array(masked_softmax(scores, mask)).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), 3.2.3
    """
    scores = ops.convert_to_tensor(scores)
    dtype = keras.backend.standardize_dtype(scores.dtype)
    precise = ops.cast(scores, keras.backend.result_type(dtype, "float32"))
    if mask is None:
        return ops.cast(_softmax(precise, axis), dtype)
    mask = as_boolean_mask(mask)
    weights = _softmax(ops.where(mask, precise, -3.4e38), axis)
    # Masked weights are 0 already, except where all positions are masked.
    return ops.cast(ops.where(mask, weights, 0.0), dtype)


def apply_mask(sequences: Tensor, mask: TensorLike | None, fill: float = 0.0) -> Tensor:
    """Replace the masked steps of `(B, S, D)` with `fill`.

    Weights of zero are not enough: masked steps may be NaN, and 0 x NaN is NaN.
    """
    if mask is None:
        return sequences
    mask = ops.expand_dims(step_mask(mask, sequences), -1)  # B S 1
    return ops.where(mask, sequences, ops.cast(fill, sequences.dtype))


def step_mask(mask: TensorLike | None, sequences: Tensor) -> Tensor | None:
    """Return the boolean mask of the steps of `(B, S, D)`; None stays None.

    If `sequences` has more axes, the mask has all of them but the last.
    """
    if mask is None:
        return None
    steps = as_boolean_mask(mask)
    received, expected = tuple(steps.shape), tuple(sequences.shape[:-1])
    if not shapes_compatible(received, expected):
        raise ValueError(
            "The mask of a sequence must have one value per step, shape (B, S) = "
            f"{expected}. Received: a mask of shape {received}."
        )
    return steps


def mask_of(tensor: Tensor) -> Tensor | None:
    """Return the Keras mask of a layer's output, or None.

    Keras has no function that reads the mask, and a tensor traced by JAX lacks the
    attribute that usually holds it. But Keras passes it to any layer that takes one.
    """
    # Concrete tensors share a layer: `torch.compile` cannot make a layer in a call.
    is_symbolic = isinstance(tensor, keras.KerasTensor)
    return (_MaskReader() if is_symbolic else _shared_mask_reader())(tensor)


@functools.cache
def _shared_mask_reader() -> "_MaskReader":
    return _MaskReader()


class _MaskReader(keras.layers.Layer):
    """Layer that returns the mask of its input."""

    def __init__(self) -> None:
        # TensorFlow rejects names that start with an underscore.
        super().__init__(autocast=False, name="mask_of")
        self.supports_masking = True

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor | None:
        return mask


def _softmax(scores: Tensor, axis: int) -> Tensor:
    if scores.shape[axis] == 1:  # a memory of one step; the softmax of Keras warns
        return scores - scores + 1
    return ops.softmax(scores, axis=axis)


def check_attention_mask(mask: TensorLike | None, query: Tensor, value: Tensor) -> None:
    """Raise if the shape of a mask is known not to fit `(B, T, S)` or `(T, S)`."""
    if mask is None:
        return
    shape = (*query.shape[:2], value.shape[1])  # B T S
    received = tuple(ops.convert_to_tensor(mask).shape)
    if len(received) not in (2, 3) or any(
        None not in sizes and sizes[0] not in (1, sizes[1])
        for sizes in zip(received[::-1], shape[::-1], strict=False)
    ):
        raise ValueError(
            "`attention_mask` must have one value per query and value step, shape (T, "
            f"S) or (B, T, S) = {shape}. Received: attention_mask of shape {received}."
        )
