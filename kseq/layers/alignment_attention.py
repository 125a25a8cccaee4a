"""Attention layers whose weights depend on the alignments of earlier steps.

Axes in shape comments: B batch, T query steps, S key steps, U units, D features,
F filters, W kernel size.
"""

from typing import Any

import keras
from keras import ops

from kseq.layers.attention import (
    DecoderAttention,
    add_kernel,
    cast_like,
    times_column,
    weighted_sum,
)
from kseq.layers.backends import matmul
from kseq.layers.masking import apply_mask, step_mask
from kseq.layers.recurrent.cells import loop_over_time
from kseq.layers.sums import precise
from kseq.layers.validation import positive_integer, same_rows
from kseq.typing import Config, Initializer, Shape, Tensor


class AlignmentAttention(DecoderAttention):
    """The base class of attention layers that depend on earlier alignments.

    A subclass defines `project_keys` like any attention layer. Its `attend` takes two
    more arguments, `alignment (B, T, S)` and `training`, and also returns the alignment
    after each query. `start_alignment` returns the one before the first query.

    A decoder carries the alignment in its state, in at least float32, so a search
    reorders it with the hypotheses. The axis T of `attend` has separate hypotheses,
    each with an alignment of its own; steps follow each other in a loop.
    """

    default_order = "bahdanau"

    def start_alignment(self, keys: Tensor) -> Tensor:
        """Return the alignment before the first step, `(B, 1, S)`: zeros.

        Args:
            keys: `(B, S, U)`, from `project_keys`.
        """
        return ops.expand_dims(precise(ops.zeros_like(keys[..., 0])), 1)

    def training_keys(self, keys: Tensor) -> Tensor:
        """Return the keys for a call in training, which may have noise."""
        return keys

    def call(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        value_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        query_mask: Tensor | None = None,
        training: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        same_rows("value", value.shape, "query", query.shape)
        query_mask = step_mask(query_mask, query)
        query = apply_mask(query, query_mask)
        value = apply_mask(value, value_mask)
        keys = self.project_keys(value if key is None else apply_mask(key, value_mask))
        if training:
            keys = self.training_keys(keys)

        # The gradients of tensors that every step reads are summed up in their dtype.
        keys, values = precise(keys), precise(value)

        def advance(query, states):
            query = ops.expand_dims(query, 1)  # B 1 D
            alignment = ops.expand_dims(states[1], 1)  # B 1 S
            read = ops.cast(keys, value.dtype), ops.cast(values, value.dtype)
            context, weights, alignment = self.attend(
                query, *read, value_mask, alignment, training
            )
            # A loop over time has one output, which is also the first state.
            output = ops.concatenate([precise(context), precise(weights)], axis=-1)
            output = ops.squeeze(output, 1)  # B (D + S)
            return output, [output, ops.squeeze(alignment, 1)]

        alignment = ops.squeeze(self.start_alignment(keys), 1)  # B S
        first = ops.concatenate(
            [ops.zeros_like(precise(value[:, 0])), ops.zeros_like(alignment)], axis=-1
        )
        outputs = loop_over_time(advance, query, [first, alignment], query_mask)
        width = value.shape[-1]
        context = ops.cast(outputs[..., :width], value.dtype)  # B T D
        if not return_attention_scores:
            return context
        return context, ops.cast(outputs[..., width:], value.dtype)


class AdditiveAlignmentAttention(AlignmentAttention):
    """The base class of such layers with an additive score and a bias.

    A subclass adds a term to the score `v . tanh(W_q query + W_k key + b)`, or uses it
    in another way.

    Args:
        units: Width U of the hidden layer.
        kernel_initializer: Initializer of the kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        units: int,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = positive_integer("units", units)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(
        self, query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None
    ) -> None:
        key_dim = (value_shape if key_shape is None else key_shape)[-1]
        self.query_kernel = add_kernel(self, "query", query_shape[-1], self.units)
        self.key_kernel = add_kernel(self, "key", key_dim, self.units)
        self.score_kernel = add_kernel(self, "score", self.units, 1)
        self.bias = self.add_weight(
            shape=(self.units,), initializer="zeros", name="bias"
        )

    def project_keys(self, key: Tensor) -> Tensor:
        [key_kernel] = cast_like(key, self.key_kernel)
        keys = precise(matmul(key, key_kernel))  # as is the gradient of the bias
        return ops.cast(keys + cast_like(keys, self.bias)[0], key.dtype)  # B S U

    def scores(
        self,
        query: Tensor,
        keys: Tensor,
        more: Tensor | None = None,
        column: Tensor | None = None,
    ) -> Tensor:
        """Return `column . tanh(W_q query + keys + more)`, `(B, T, S)`.

        Args:
            query: `(B, T, D)`.
            keys: `(B, S, U)`, from `project_keys`.
            more: `(B, T, S, U)`, or None.
            column: `(U, 1)`. Defaults to `score_kernel`.
        """
        column = self.score_kernel if column is None else column
        query_kernel, column = cast_like(keys, self.query_kernel, column)
        queries = ops.expand_dims(matmul(query, query_kernel), 2)  # B T 1 U
        hidden = queries + ops.expand_dims(keys, 1)  # B T S U
        if more is not None:
            hidden = hidden + more
        return times_column(ops.tanh(hidden), column)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable(package="kseq")
class LocationAwareAttention(AdditiveAlignmentAttention):
    """Additive attention that also sees where the step before has read.

    The weights `a` of the step before, convolved over the source, are a third term of
    the scores:

        f = F * a_{t-1};  score_s = v . tanh(W_q query + W_k key_s + U f_s + b)

    The next weights can so be placed beside the last ones, which suits sources that are
    read in order, such as speech, and long ones with repetitions.

    Args:
        units: Width U of the hidden layer.
        num_filters: Number of filters of the convolution.
        kernel_size: Width of the filters in source steps, an odd number.
        cumulative: Whether to convolve the sum of the weights of all earlier steps
            instead of the last weights.
        kernel_initializer: Initializer of the kernels.
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
        The context `(B, T, D_v)`, or `(context, weights)` with weights `(B, T, S)`.
        Both are zeros for an example whose values are all masked.

    Raises:
        ValueError: A size is not a positive integer, or `kernel_size` is even.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import LocationAwareAttention, RecurrentDecoder
    >>> query, value = np.ones((2, 4, 5)), np.ones((2, 7, 3))
    >>> context, weights = LocationAwareAttention(units=6, kernel_size=5)(
    ...     query, value, return_attention_scores=True)
    >>> tuple(context.shape), tuple(weights.shape)
    ((2, 4, 3), (2, 4, 7))
    >>> decoder = RecurrentDecoder("gru", 8, attention=LocationAwareAttention(6))
    >>> tuple(decoder(query, value).shape)
    (2, 4, 8)

    References:
        - [Chorowski et al., 2015](https://arxiv.org/abs/1506.07503), 2.1, eq. 8 and 9
        - [Shen et al., 2018](https://arxiv.org/abs/1712.05884), 2.2 (`cumulative`, 32
          filters of width 31)
    """

    def __init__(
        self,
        units: int,
        num_filters: int = 32,
        kernel_size: int = 31,
        cumulative: bool = False,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(units, kernel_initializer, **kwargs)
        self.num_filters = positive_integer("num_filters", num_filters)
        self.kernel_size = positive_integer("kernel_size", kernel_size)
        if self.kernel_size % 2 == 0:
            raise ValueError(
                "`kernel_size` must be odd, so that filters have a middle. Received: "
                f"kernel_size={kernel_size}. Use {kernel_size + 1}."
            )
        self.cumulative = bool(cumulative)

    def build(
        self, query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None
    ) -> None:
        super().build(query_shape, value_shape, key_shape)
        self.filter_kernel = add_kernel(
            self, "filter", self.kernel_size, self.num_filters
        )
        self.location_kernel = add_kernel(
            self, "location", self.num_filters, self.units
        )

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        value: Tensor,
        value_mask: Tensor | None,
        alignment: Tensor,
        training: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        kernels = self.filter_kernel, self.location_kernel
        filters, location_kernel = cast_like(keys, *kernels)
        # Both products are linear, so they are one, with the narrower matrix.
        kernel = matmul(filters, location_kernel)  # W U
        shifted = shifts(ops.cast(alignment, keys.dtype), self.kernel_size)  # B T S W
        scores = self.scores(query, keys, matmul(shifted, kernel))
        context, weights = weighted_sum(scores, value, value_mask)
        after = precise(weights)
        return context, weights, alignment + after if self.cumulative else after

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_filters": self.num_filters,
            "kernel_size": self.kernel_size,
            "cumulative": self.cumulative,
        }


@keras.saving.register_keras_serializable(package="kseq")
class CoverageAttention(AdditiveAlignmentAttention):
    """Additive attention that also sees how much of each step has been read.

    The coverage `c` of a source step is the sum of its weights at all earlier steps:

        score_s = v . tanh(W_q query + W_k key_s + w_c c_s + b)

    A model can so learn not to read, and say, the same thing twice, as in summaries and
    translations. `kseq.encoder_decoder(..., copy=True)` adds the loss of the same
    paper, and `BeamSearch(coverage_penalty=)` prefers hypotheses that read everything.

    Args:
        units: Width U of the hidden layer.
        kernel_initializer: Initializer of the kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        query: `(B, T, D_q)`. Its steps are computed one after the other.
        value: `(B, S, D_v)`, the vectors to sum.
        key: `(B, S, D_k)`, the vectors to compare with the query. Defaults to `value`.
        value_mask: Boolean `(B, S)`, True where a value may be read. Defaults to the
            Keras mask of `value`.
        return_attention_scores: Whether to return the weights as well.
        query_mask: Boolean `(B, T)`. A query where it is False leaves the coverage
            unchanged; ignore its context. Defaults to the Keras mask of `query`.

    Returns:
        The context `(B, T, D_v)`, or `(context, weights)` with weights `(B, T, S)`.
        Both are zeros for an example whose values are all masked.

    Raises:
        ValueError: `units` is not a positive integer.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import CoverageAttention, RecurrentDecoder
    >>> query, value = np.ones((2, 4, 5)), np.ones((2, 7, 3))
    >>> decoder = RecurrentDecoder("lstm", 8, attention=CoverageAttention(units=6))
    >>> tuple(decoder(query, value).shape)
    (2, 4, 8)

    References:
        - [Tu et al., 2016](https://arxiv.org/abs/1601.04811), 3
        - [See et al., 2017](https://arxiv.org/abs/1704.04368), 2.3, eq. 10 and 11
    """

    def build(
        self, query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None
    ) -> None:
        super().build(query_shape, value_shape, key_shape)
        self.coverage_kernel = add_kernel(self, "coverage", 1, self.units)

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        value: Tensor,
        value_mask: Tensor | None,
        alignment: Tensor,
        training: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        [kernel] = cast_like(keys, self.coverage_kernel)
        # The gradient of a reshape has a known shape on TensorFlow, unlike a product's.
        kernel = ops.reshape(kernel, (1, self.units))
        coverage = ops.expand_dims(ops.cast(alignment, keys.dtype), -1)  # B T S 1
        scores = self.scores(query, keys, matmul(coverage, kernel))
        context, weights = weighted_sum(scores, value, value_mask)
        return context, weights, alignment + precise(weights)


def shifts(alignment: Tensor, size: int) -> Tensor:
    """Return each step's neighbours, with zeros beyond the ends, `(B, T, S, size)`."""
    steps, half = ops.shape(alignment)[-1], size // 2
    padded = ops.pad(alignment, ((0, 0), (0, 0), (half, half)))
    return ops.stack([padded[..., i : i + steps] for i in range(size)], axis=-1)
