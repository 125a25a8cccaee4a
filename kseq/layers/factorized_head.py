"""A head for codes that are made of digits.

Axes in shape comments: B batch, T steps, D features, C codes, V tokens.
"""

import math

import keras
from keras import ops

from kseq.layers.backends import matmul
from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.initializers import initializer_of
from kseq.layers.masking import apply_mask
from kseq.layers.quantizers import checked_levels
from kseq.layers.validation import count


@keras.saving.register_keras_serializable(package="kseq")
class FactorizedHead(Composite):
    """The logits of codes, from logits for each of their digits.

    A code of `FiniteScalarQuantizer` is one digit for each level. The logit of a code
    is the sum of the logits of its digits, so what is learned of a digit holds for all
    codes that have it, and a head for 4,375 codes needs 27 outputs. The sum alone would
    make the digits independent; a product of two matrices of low rank says how they
    go together.

    Args:
        levels: The levels of the quantizer.
        rank: Rank of what is added for each code. 0 for independent digits.
        num_special: Number of tokens before the token of code 0.
        kernel_initializer: Initializer of all kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, T, D)`.
        mask: Boolean `(B, T)`, True where a step is real; elsewhere zeros are read.
            Defaults to the Keras mask of `inputs`, which the logits keep.

    Returns:
        Logits `(B, T, V)`, with V the special tokens and one for each code.

    Raises:
        ValueError: The levels are none of a quantizer, or a number is negative.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import FactorizedHead
    >>> tuple(FactorizedHead(levels=(7, 5, 5))(np.ones((1, 3, 8))).shape)
    (1, 3, 179)

    References:
        - [Yu et al., 2024](https://arxiv.org/abs/2310.05737), 3.2 (token factorization)
        - [Yang et al., 2018](https://arxiv.org/abs/1711.03953), 2.2 (rank of a softmax)
    """

    def __init__(
        self,
        levels,
        rank=16,
        num_special=4,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.levels = checked_levels(levels)
        self.rank = count("rank", rank)
        self.num_special = count("num_special", num_special)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.vocabulary_size = self.num_special + math.prod(self.levels)
        self.digits = self._dense("digits", self.num_special + sum(self.levels))
        self.down = self._dense("down", self.rank, use_bias=False) if rank else None
        self.up = self._dense("up", self.vocabulary_size) if rank else None
        self.supports_masking = True

    def _dense(self, name, units, **options):
        return keras.layers.Dense(
            units,
            kernel_initializer=initializer_of(name, self.kernel_initializer),
            dtype=self.dtype_policy,
            name=name,
            **options,
        )

    def build(self, inputs_shape):
        self.digits.build(inputs_shape)
        if self.rank:
            self.down.build(inputs_shape)
            self.up.build((*inputs_shape[:-1], self.rank))
        freeze_parts(self)

    def compute_output_shape(self, inputs_shape):
        return (*inputs_shape[:-1], self.vocabulary_size)

    def call(self, inputs, mask=None):
        inputs = apply_mask(inputs, mask)
        has_digit = digits_of_tokens(self.levels, self.num_special)
        has_digit = ops.cast(has_digit, self.compute_dtype)
        logits = matmul(self.digits(inputs), has_digit)  # B T V
        return logits + self.up(self.down(inputs)) if self.rank else logits

    def get_config(self):
        return {
            **super().get_config(),
            "levels": list(self.levels),
            "rank": self.rank,
            "num_special": self.num_special,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def digits_of_tokens(levels, num_special):
    """Tell which digits each token has: booleans `(num_special + sum(levels), V)`."""
    tokens = ops.arange(num_special + math.prod(levels), dtype="int32")
    codes, rows = tokens - num_special, [is_each(tokens, num_special)]
    place = 1
    for level in levels:
        is_digit = is_each(codes // place % level, level)
        rows.append(ops.logical_and(is_digit, codes >= 0))
        place *= level
    return ops.concatenate(rows)


def is_each(values, count):
    """Compare values `(V,)` with each number below a count: booleans `(count, V)`."""
    return values == ops.expand_dims(ops.arange(count, dtype="int32"), 1)
