"""A head for codes that consist of digits.

Axes in shape comments: B batch, T steps, D features, C codes, V tokens.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kseq.layers.backends import matmul
from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.initializers import initializer_of
from kseq.layers.masking import apply_mask
from kseq.layers.quantizers import checked_levels
from kseq.layers.validation import count
from kseq.typing import Config, Initializer, Shape, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class FactorizedHead(Composite):
    """A head that computes the logits of codes from logits of their digits.

    A code of `FiniteScalarQuantizer` has one digit for each level. The logit of a code
    is the sum of the logits of its digits. So the codes that share a digit share what
    is learned about it, and a head for 4,375 codes needs 27 outputs. The sum alone
    would make the digits independent; a low-rank product of two matrices is added to
    model their dependence.

    Args:
        levels: The levels of the quantizer.
        rank: Rank of the term that is added for each code. 0 for independent digits.
        num_special: Number of tokens before the token of code 0.
        kernel_initializer: Initializer of all kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, T, D)`.
        mask: Boolean `(B, T)`, True where a step is real. Masked inputs are replaced by
            zeros. Defaults to the Keras mask of `inputs`, which the logits keep.

    Returns:
        Logits `(B, T, V)`, where V counts the special tokens and the codes.

    Raises:
        ValueError: The levels are not valid for a quantizer, or a number is negative.

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
        levels: Sequence[int],
        rank: int = 16,
        num_special: int = 4,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.levels = checked_levels(levels)
        self.rank = count("rank", rank)
        self.num_special = count("num_special", num_special)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.vocabulary_size = self.num_special + math.prod(self.levels)
        self.digits = self._dense("digits", self.num_special + sum(self.levels))
        self.down: Any = None
        self.up: Any = None
        if rank:
            self.down = self._dense("down", self.rank, use_bias=False)
            self.up = self._dense("up", self.vocabulary_size)
        self.supports_masking = True

    def _dense(self, name: str, units: int, **options: Any) -> keras.layers.Dense:
        return keras.layers.Dense(
            units,
            kernel_initializer=initializer_of(name, self.kernel_initializer),
            dtype=self.dtype_policy,
            name=name,
            **options,
        )

    def build(self, inputs_shape: Shape) -> None:
        self.digits.build(inputs_shape)
        if self.rank:
            self.down.build(inputs_shape)
            self.up.build((*inputs_shape[:-1], self.rank))
        freeze_parts(self)

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        return (*inputs_shape[:-1], self.vocabulary_size)

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        inputs = apply_mask(inputs, mask)
        has_digit = digits_of_tokens(self.levels, self.num_special)
        has_digit = ops.cast(has_digit, self.compute_dtype)
        logits = matmul(self.digits(inputs), has_digit)  # B T V
        return logits + self.up(self.down(inputs)) if self.rank else logits

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "levels": list(self.levels),
            "rank": self.rank,
            "num_special": self.num_special,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def digits_of_tokens(levels: Sequence[int], num_special: int) -> Tensor:
    """Return the digits of each token: booleans `(num_special + sum(levels), V)`."""
    tokens = ops.arange(num_special + math.prod(levels), dtype="int32")
    codes, rows = tokens - num_special, [is_each(tokens, num_special)]
    place = 1
    for level in levels:
        is_digit = is_each(codes // place % level, level)
        rows.append(ops.logical_and(is_digit, codes >= 0))
        place *= level
    return ops.concatenate(rows)


def is_each(values: Tensor, count: int) -> Tensor:
    """Compare values `(V,)` with each number below a count: booleans `(count, V)`."""
    return values == ops.expand_dims(ops.arange(count, dtype="int32"), 1)
