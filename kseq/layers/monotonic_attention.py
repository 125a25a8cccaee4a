"""Monotonic attention, which reads a source from left to right only.

Axes in shape comments: B batch, T query steps, S key steps, U units, D features.
"""

import math
from typing import Any, Literal

import keras
from keras import ops

from kseq.layers.alignment_attention import AdditiveAlignmentAttention
from kseq.layers.backends import matmul
from kseq.layers.masking import as_boolean_mask
from kseq.layers.sums import precise
from kseq.layers.validation import not_negative, number, one_of
from kseq.typing import Config, Initializer, Shape, Tensor

# Passes over a source of unknown length, each over twice as many steps as the last.
MOST_PASSES = 20


@keras.saving.register_keras_serializable(package="kseq")
class MonotonicAttention(AdditiveAlignmentAttention):
    """Attention that moves through the source from left to right.

    For each query, it scans the source from the step that it read last, and stops at
    step s with the probability

        p_s = sigmoid(g v / |v| . tanh(W_q query + W_k key_s + b) + r + noise)

    and reads only this one. In training it is soft, that is, the weights are the
    probabilities of reading each step, which can be differentiated:

        q_s = (1 - p_{s-1}) q_{s-1} + a_{t-1,s};  a_{t,s} = p_s q_s

    Otherwise it is hard: it reads the first step with p_s > 1/2. If there is none, then
    the weights and the context are zeros, at this query and at all later ones. That is
    the same formula with probabilities rounded to 0 and 1. Validation, `generate` and
    `score` are all hard, so a text has the same log-probability in each. The noise
    teaches the model to make the probabilities nearly 0 or 1.

    It suits sources and targets in the same order: speech, spelling, inflection.

    Args:
        units: Width U of the hidden layer.
        mode: `"soft"` or `"hard"`, in training or not. None means soft in training and
            hard otherwise.
        noise: Standard deviation of the noise that is added to the scores in training.
            The noise of a source step is the same at every target step.
        score_bias: Initial value of r. The longer the sources, the lower it should be.
        kernel_initializer: Initializer of the kernels.
        seed: Integer seed of the noise, or None.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        query: `(B, T, D_q)`. Its steps are computed one after the other.
        value: `(B, S, D_v)`, the vectors to sum.
        key: `(B, S, D_k)`, the vectors to compare with the query. Defaults to `value`.
        value_mask: Boolean `(B, S)`, True where a value may be read. Defaults to the
            Keras mask of `value`.
        return_attention_scores: Whether to return the weights as well.
        query_mask: Boolean `(B, T)`. A query where it is False leaves the alignment
            unchanged; ignore its context. Defaults to the Keras mask of `query`.

    Returns:
        The context `(B, T, D_v)`, or `(context, weights)` with weights `(B, T, S)`,
        whose sum is at most 1. Both are zeros for an example whose values are all
        masked.

    Raises:
        ValueError: `units` is not a positive integer, `mode` is unknown, or `noise` is
            negative.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import MonotonicAttention, RecurrentDecoder
    >>> query, value = np.ones((2, 4, 5)), np.ones((2, 7, 3))
    >>> attention = MonotonicAttention(units=6, score_bias=5.0)
    >>> _, weights = attention(query, value, return_attention_scores=True)
    >>> np.array(weights)[0].argmax(axis=-1).tolist(), np.unique(weights).tolist()
    ([0, 0, 0, 0], [0.0, 1.0])
    >>> decoder = RecurrentDecoder("lstm", 8, attention=MonotonicAttention(6))
    >>> tuple(decoder(query, value, training=True).shape)
    (2, 4, 8)

    References:
        - [Raffel et al., 2017](https://arxiv.org/abs/1704.00784), 2.2 to 2.5, eq. 8 to
          11 and algorithm 1
    """

    def __init__(
        self,
        units: int,
        mode: Literal["soft", "hard"] | None = None,
        noise: float = 1.0,
        score_bias: float = -1.0,
        kernel_initializer: Initializer = "glorot_uniform",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, kernel_initializer, **kwargs)
        self.mode: Literal["soft", "hard"] | None = one_of(
            "mode", mode, ("soft", "hard", None)
        )
        self.noise = not_negative("noise", noise)
        self.score_bias = number("score_bias", score_bias)
        self.seed = seed
        self.seed_generator: Any = None
        if self.noise:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def build(
        self, query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None
    ) -> None:
        super().build(query_shape, value_shape, key_shape)
        self.score_scale = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self.units**-0.5),
            name="score_scale",
        )
        self.score_offset = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self.score_bias),
            name="score_offset",
        )

    def project_keys(self, key: Tensor) -> Tensor:
        keys = super().project_keys(key)  # B S U
        if not self.noise:
            return keys
        # The last column is added to the scores: the noise in training, otherwise 0.
        return ops.concatenate([keys, ops.zeros_like(keys[..., :1])], axis=-1)

    def training_keys(self, keys: Tensor) -> Tensor:
        if not self.noise:
            return keys
        keys, none = ops.split(keys, [self.units], axis=-1)
        noise = self.noise * keras.random.normal(
            ops.shape(none), dtype=none.dtype, seed=self.seed_generator
        )
        return ops.concatenate([keys, noise], axis=-1)

    def start_alignment(self, keys: Tensor) -> Tensor:
        zeros = super().start_alignment(keys)  # B 1 S
        is_first = ops.arange(ops.shape(keys)[1], dtype="int32") == 0  # S
        return zeros + ops.cast(is_first, zeros.dtype)

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        value: Tensor,
        value_mask: Tensor | None,
        alignment: Tensor,
        training: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        noise: Any = 0.0
        if self.noise:
            keys, noise = ops.split(keys, [self.units], axis=-1)
            noise = precise(ops.swapaxes(noise, 1, 2))  # B 1 S
        column = precise(ops.convert_to_tensor(self.score_kernel))
        scale = precise(ops.convert_to_tensor(self.score_scale))
        column = column * scale / ops.sqrt(ops.sum(ops.square(column)))
        scores = self.scores(query, keys, column=column)
        offset = precise(ops.convert_to_tensor(self.score_offset))
        probabilities = ops.sigmoid(precise(scores) + offset + noise)
        mode = self.mode or ("soft" if training else "hard")
        if mode == "hard":
            probabilities = ops.cast(probabilities > 0.5, probabilities.dtype)
        if value_mask is not None:
            mask = ops.expand_dims(as_boolean_mask(value_mask), 1)  # B 1 S
            probabilities = ops.where(mask, probabilities, 0.0)
        alignment = monotonic_weights(probabilities, alignment)
        weights = ops.cast(alignment, value.dtype)
        return matmul(weights, value), weights, alignment

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "mode": self.mode,
            "noise": self.noise,
            "score_bias": self.score_bias,
            "seed": self.seed,
        }


def monotonic_weights(probabilities: Tensor, alignment: Tensor) -> Tensor:
    """Return the probabilities of reading each source step.

    With `q_s = (1 - p_{s-1}) q_{s-1} + a_s` they are `p_s q_s`. Pass i adds up what
    comes from 2^i steps before, so there is no quotient of products, which would
    underflow, and no logarithm of 0.

    Args:
        probabilities: `(B, T, S)`, of stopping at a step that is inspected.
        alignment: `(B, T, S)`, the probabilities of having read each step before.

    Returns:
        `(B, T, S)`.

    References:
        - [Raffel et al., 2017](https://arxiv.org/abs/1704.00784), 2.3, eq. 8 to 11
    """
    steps = probabilities.shape[-1]
    is_known = isinstance(steps, int)
    passes = math.ceil(math.log2(max(steps, 1))) if is_known else MOST_PASSES
    passing = delayed(1 - probabilities, 1)
    arriving = alignment

    def more(i, sums):
        arriving, passing = sums
        arriving = arriving + passing * delayed(arriving, 2**i)
        return arriving, passing * delayed(passing, 2**i)

    if is_symbolic(steps):  # XLA would fuse all passes into one
        arriving, _ = ops.fori_loop(0, passes, more, (arriving, passing))
        return probabilities * arriving
    for i in range(passes):
        arriving, passing = more(i, (arriving, passing))
    return probabilities * arriving


def delayed(x: Tensor, steps: int) -> Tensor:
    """Move `(B, T, S)` to the right along the last axis; fill up with zeros."""
    if is_symbolic(x.shape[-1]):  # it cannot be compared with a number
        places = ops.arange(ops.shape(x)[-1], dtype="int32") - steps
        moved = ops.take(x, ops.maximum(places, 0), axis=-1)
        return ops.where(places >= 0, moved, ops.zeros_like(moved))
    return ops.concatenate([ops.zeros_like(x[..., :steps]), x[..., :-steps]], axis=-1)


def is_symbolic(size: Any) -> bool:
    """Return True for an unknown size of an array in an export of JAX."""
    return not isinstance(size, (int, type(None)))
