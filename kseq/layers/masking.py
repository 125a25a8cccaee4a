"""Masks: which positions may be used, and the softmax that obeys them.

A mask is boolean and True means "may be used". Padding travels through a model as
the Keras mask; attention combines it with the look-ahead mask of a decoder.

Axes in shape comments: B batch, T query steps, S key steps.
"""

import functools

import keras
from keras import ops
from keras.backend import standardize_dtype

from kseq.layers.validation import concrete_values, shapes_compatible


def padding_mask(token_ids, pad_token_id=0):
    """Marks the real tokens of padded sequences.

    Args:
        token_ids: Integer tensor of any shape, usually `(B, S)`.
        pad_token_id: The id that fills up short sequences.

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


def look_ahead_mask(query_length, key_length=None, offset=0):
    """Lets each query see its own step and the steps before it.

    Query `t` stands at step `t + offset` of the keys, so a decoder that has already
    written `offset` tokens passes that number.

    Args:
        query_length: Number of query steps T.
        key_length: Number of key steps S. Defaults to `query_length + offset`.
        offset: Steps that stand before the first query.

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


def combine_masks(*masks):
    """Joins masks: a position may be used where every mask allows it.

    Args:
        *masks: Boolean (or 0/1) tensors that broadcast together, or None for "no
            restriction".

    Returns:
        Boolean tensor, or None if every mask is None.

    Raises:
        ValueError: A mask holds anything but booleans or 0 and 1.

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


def as_boolean_mask(mask):
    """Turns a 0/1 mask into a boolean one, and refuses anything else.

    An additive mask (0 and -1e9) read as boolean would mean the reverse of what its
    author wanted, so a mask whose values cannot be looked at, because the function is
    being compiled, must come as a boolean or an integer.

    Args:
        mask: Boolean tensor, or a numeric one that holds 0 and 1 only.

    Returns:
        Boolean tensor of the same shape.

    Raises:
        ValueError: The mask holds another value than 0 and 1, or is a float tensor
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
            "A mask must be boolean or hold 0 and 1 only, 1 where a position may be "
            f"used. Received: mask with the value {other}. An additive mask (0 and "
            "-1e9) becomes one with `mask == 0`."
        )
    return ops.cast(mask, "bool")


def masked_softmax(scores, mask=None, axis=-1):
    """Softmax over the allowed positions.

    Computed in float32 at least, so half precision gives the same weights up to its
    own rounding. Where nothing is allowed the weights are zeros, never NaN, and so
    are their gradients.

    Args:
        scores: Float tensor, usually `(B, T, S)`.
        mask: Boolean tensor that broadcasts to `scores`, True where a position may be
            used. None allows all.
        axis: The axis that the weights sum to 1 over.

    Returns:
        Weights, with the shape and dtype of `scores`.

    Raises:
        ValueError: The mask holds anything but booleans or 0 and 1.

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
    # Behind the mask they are 0 already, but for rows that are masked throughout.
    return ops.cast(ops.where(mask, weights, 0.0), dtype)


def apply_mask(sequences, mask, fill=0.0):
    """The steps of `(B, S, D)` where the mask allows them, and elsewhere `fill`.

    Weights of zero are not enough: behind a mask may stand NaN, and 0 x NaN is NaN.
    """
    if mask is None:
        return sequences
    mask = ops.expand_dims(step_mask(mask, sequences), -1)  # B S 1
    return ops.where(mask, sequences, ops.cast(fill, sequences.dtype))


def step_mask(mask, sequences):
    """The boolean mask of the steps of `(B, S, D)`, or None.

    Where there are more axes than these, the mask has all but the last.
    """
    if mask is None:
        return None
    mask = as_boolean_mask(mask)
    received, expected = tuple(mask.shape), tuple(sequences.shape[:-1])
    if not shapes_compatible(received, expected):
        raise ValueError(
            "The mask of a sequence must have a value for each step, shape (B, S) = "
            f"{expected}. Received: a mask of shape {received}."
        )
    return mask


def mask_of(tensor):
    """The mask that a layer put on its output, or None.

    Keras offers no function that reads it, and the attribute where it usually lies is
    not there on a tensor that JAX traces; but Keras hands it to any layer that asks.
    """
    # One for all values, for `torch.compile` cannot make a layer in a call.
    is_symbol = isinstance(tensor, keras.KerasTensor)
    return (_MaskOf() if is_symbol else _mask_of_value())(tensor)


@functools.cache
def _mask_of_value():
    return _MaskOf()


class _MaskOf(keras.layers.Layer):
    def __init__(self):
        # TensorFlow refuses a name that begins with an underscore.
        super().__init__(autocast=False, name="mask_of")
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return mask


def _softmax(scores, axis):
    if scores.shape[axis] == 1:  # of which Keras warns; a memory may have one step
        return scores - scores + 1
    return ops.softmax(scores, axis=axis)


def check_attention_mask(mask, query, value):
    """Refuse a mask that is known not to fit `(B, T, S)` or `(T, S)`."""
    if mask is None:
        return
    shape = (*query.shape[:2], value.shape[1])  # B T S
    received = tuple(ops.convert_to_tensor(mask).shape)
    if len(received) not in (2, 3) or any(
        None not in sizes and sizes[0] not in (1, sizes[1])
        for sizes in zip(received[::-1], shape[::-1], strict=False)
    ):
        raise ValueError(
            "`attention_mask` must have a value for each query and value, shape (T, S) "
            f"or (B, T, S) = {shape}. Received: attention_mask of shape {received}."
        )
