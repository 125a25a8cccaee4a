"""Attention layers of recurrent decoders: additive and multiplicative.

Each layer works in two ways: called like any Keras layer, or in the loop of a decoder,
with `project_keys` once for a source and `attend` at each step. The scores of a
Transformer are in `transformer/products.py`.

Axes in shape comments: B batch, T query steps, S key steps, U units, D features.
"""

from typing import Any, Literal

import keras
from keras import ops

from kseq.layers.attention_window import local_weights, window_centres
from kseq.layers.backends import matmul
from kseq.layers.initializers import initializer_of
from kseq.layers.layer import Layer
from kseq.layers.masking import apply_mask, masked_softmax
from kseq.layers.sums import total
from kseq.layers.validation import (
    one_of,
    optional_positive_integer,
    positive_integer,
    same_rows,
)
from kseq.typing import Config, Initializer, Shape, Tensor


class DecoderAttention(Layer):
    """The base class of attention layers for decoders.

    A subclass defines `project_keys(key (B, S, D_k))`, which depends on the source
    alone, and `attend(query (B, T, D_q), keys, value (B, S, D_v), value_mask)`, which
    returns the context `(B, T, D_v)` and the weights `(B, T, S)`. `call` uses both. A
    layer whose weights depend on those of earlier steps derives from
    `kseq.layers.alignment_attention.AlignmentAttention`.

    Attributes:
        default_order: The `attention_order` of a decoder that is given none.
    """

    default_order: Literal["bahdanau", "luong"] = "luong"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def compute_output_shape(
        self, query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None
    ) -> Shape:
        return (*query_shape[:-1], value_shape[-1])

    def call(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        value_mask: Tensor | None = None,
        return_attention_scores: bool = False,
        query_mask: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        same_rows("value", value.shape, "query", query.shape)
        query = apply_mask(query, query_mask)
        value = apply_mask(value, value_mask)
        keys = self.project_keys(value if key is None else apply_mask(key, value_mask))
        context, weights = self.attend(query, keys, value, value_mask)
        return (context, weights) if return_attention_scores else context

    def loop_key(self) -> Config | None:
        """Return a key that is equal for layers with equal configs, names aside.

        None for a class outside of kseq, whose config may be incomplete.
        """
        is_known = type(self).__module__.startswith(f"{__package__}.")
        return nameless_config(self) if is_known else None


@keras.saving.register_keras_serializable(package="kseq")
class BahdanauAttention(DecoderAttention):
    """Additive attention.

    Scores each key with a one-hidden-layer network,
    `v . tanh(W_q query + W_k key)`, and returns the weighted sum of the values. The
    query and the keys may have different sizes.

    Args:
        units: Width U of the hidden layer.
        kernel_initializer: Initializer of the three kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        query: `(B, T, D_q)`.
        value: `(B, S, D_v)`, the vectors to sum.
        key: `(B, S, D_k)`, the vectors to compare with the query. Defaults to `value`.
        value_mask: Boolean `(B, S)`, True where a value may be read. Defaults to the
            Keras mask of `value`.
        return_attention_scores: Whether to return the weights as well.
        query_mask: Boolean `(B, T)`. A query where it is False is replaced by zeros;
            ignore its context. Defaults to the Keras mask of `query`.

    Returns:
        The context `(B, T, D_v)`, or `(context, weights)` with weights `(B, T, S)`.
        Both are zeros for an example whose values are all masked.

    Raises:
        ValueError: `units` is not a positive integer, or a mask is neither boolean nor
            made of 0 and 1.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import BahdanauAttention
    >>> query, value = np.ones((2, 1, 5)), np.ones((2, 7, 3))
    >>> context, weights = BahdanauAttention(units=4)(
    ...     query, value, return_attention_scores=True)
    >>> tuple(context.shape), tuple(weights.shape)
    ((2, 1, 3), (2, 1, 7))

    References:
        - [Bahdanau et al., 2015](https://arxiv.org/abs/1409.0473), A.1.2
    """

    default_order = "bahdanau"

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
        key_shape = value_shape if key_shape is None else key_shape
        self.query_kernel = add_kernel(self, "query", query_shape[-1], self.units)
        self.key_kernel = add_kernel(self, "key", key_shape[-1], self.units)
        self.score_kernel = add_kernel(self, "score", self.units, 1)

    def project_keys(self, key: Tensor) -> Tensor:
        [key_kernel] = cast_like(key, self.key_kernel)
        return matmul(key, key_kernel)  # B S U

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        value: Tensor,
        value_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        kernels = self.query_kernel, self.score_kernel
        query_kernel, score_kernel = cast_like(keys, *kernels)
        queries = ops.expand_dims(matmul(query, query_kernel), 2)  # B T 1 U
        hidden = ops.tanh(queries + ops.expand_dims(keys, 1))  # B T S U
        scores = times_column(hidden, score_kernel)  # B T S
        return weighted_sum(scores, value, value_mask)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable(package="kseq")
class LuongAttention(DecoderAttention):
    """Multiplicative attention, or the concatenation score from the same paper.

    The scores are:

    - `"dot"`: `query . key`; both must have the same size.
    - `"general"`: `query . W key`.
    - `"concat"`: `v . tanh(W [query; key])`, which needs `units`.

    With a `window` D, attention is local ("local-p"). It predicts a position between
    0 and the number S of real steps, which are counted from 1,

        p = S sigmoid(v_p . tanh(W_p query)),

    takes the softmax of the scores from p - D to p + D only, and multiplies the weights
    by `exp(-(s - p)^2 / (2 (D / 2)^2))`, so that their sum is below 1.

    Args:
        score: `"dot"`, `"general"` or `"concat"`.
        units: Width U of the hidden layer of `"concat"`; not allowed for the others.
        scaled: Whether to divide the scores by the square root of the key size, as
            scaled dot-product attention does (Vaswani et al., 2017, 3.2.1). This keeps
            the softmax from saturating when vectors are wide.
        window: Number of steps D on either side of the predicted position, or None to
            read the whole source. The paper uses 10.
        kernel_initializer: Initializer of the kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        query: `(B, T, D_q)`.
        value: `(B, S, D_v)`, the vectors to sum.
        key: `(B, S, D_k)`, the vectors to compare with the query. Defaults to `value`.
        value_mask: Boolean `(B, S)`, True where a value may be read. Defaults to the
            Keras mask of `value`.
        return_attention_scores: Whether to return the weights as well.
        query_mask: Boolean `(B, T)`. A query where it is False is replaced by zeros;
            ignore its context. Defaults to the Keras mask of `query`.

    Returns:
        The context `(B, T, D_v)`, or `(context, weights)` with weights `(B, T, S)`.
        Both are zeros for an example whose values are all masked.

    Raises:
        ValueError: The score is unknown, `"concat"` has no `units`, the sizes of query
            and key differ for `"dot"`, or `window` is not a positive integer.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import LuongAttention
    >>> query, value = np.ones((2, 1, 3)), np.ones((2, 7, 3))
    >>> tuple(LuongAttention("dot", scaled=True)(query, value).shape)
    (2, 1, 3)

    References:
        - [Luong et al., 2015](https://arxiv.org/abs/1508.04025), 3.1, 3.2 (`window`)
    """

    def __init__(
        self,
        score: Literal["dot", "general", "concat"] = "general",
        units: int | None = None,
        scaled: bool = False,
        window: int | None = None,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.score = one_of("score", score, ("dot", "general", "concat"))
        if score == "concat":
            units = positive_integer("units", units)
        elif units is not None:
            raise ValueError(
                f'`units` is the width of the "concat" score. Received: units={units} '
                f'with score="{score}". Leave it out, or use score="concat".'
            )
        self.units = units
        self.scaled = bool(scaled)
        self.window = optional_positive_integer("window", window)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(
        self, query_shape: Shape, value_shape: Shape, key_shape: Shape | None = None
    ) -> None:
        query_dim = query_shape[-1]
        key_dim = (value_shape if key_shape is None else key_shape)[-1]
        if self.score == "dot" and query_dim != key_dim:
            raise ValueError(
                "The dot score needs a query and keys of the same size. Received: "
                f"query size {query_dim}, key size {key_dim}. "
                'Use score="general", which learns a matrix between the two.'
            )
        self.scale = 1.0
        if self.scaled:
            self.scale = key_dim**-0.5  # type: ignore[operator]
        if self.score == "general":
            self.key_kernel = add_kernel(self, "key", key_dim, query_dim)
        if self.score == "concat":
            self.key_kernel = add_kernel(self, "key", key_dim, self.units)
            self.query_kernel = add_kernel(self, "query", query_dim, self.units)
            self.score_kernel = add_kernel(self, "score", self.units, 1)
        if self.window is not None:
            self.window_kernel = add_kernel(self, "window", query_dim, query_dim)
            self.position_kernel = add_kernel(self, "position", query_dim, 1)

    def project_keys(self, key: Tensor) -> Tensor:
        if self.score == "dot":
            return key
        [key_kernel] = cast_like(key, self.key_kernel)
        return matmul(key, key_kernel)  # B S U

    def attend(
        self,
        query: Tensor,
        keys: Tensor,
        value: Tensor,
        value_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        if self.score == "concat":
            kernels = self.query_kernel, self.score_kernel
            query_kernel, score_kernel = cast_like(keys, *kernels)
            queries = matmul(query, query_kernel)  # B T U
            queries, keys = ops.expand_dims(queries, 2), ops.expand_dims(keys, 1)
            hidden = ops.tanh(queries + keys)  # B T S U
            scores = times_column(hidden, score_kernel) * self.scale  # B T S
        else:  # scale before the product, which may overflow in half precision
            scores = matmul(query * self.scale, ops.swapaxes(keys, 1, 2))  # B T S
        if self.window is None:
            return weighted_sum(scores, value, value_mask)
        window_kernels = cast_like(query, self.window_kernel, self.position_kernel)
        centres = window_centres(query, *window_kernels)  # B T 1
        weights = local_weights(scores, centres, self.window, value_mask)
        return matmul(ops.cast(weights, value.dtype), value), weights

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "score": self.score,
            "units": self.units,
            "scaled": self.scaled,
            "window": self.window,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def nameless_config(layer: keras.layers.Layer) -> Config:
    """Return a layer's config without its name."""
    config = layer.get_config()
    del config["name"]
    return config


def add_kernel(
    layer: keras.layers.Layer, name: str, inputs: int | None, outputs: int | None
) -> keras.Variable:
    """Add a kernel `(inputs, outputs)` with the layer's `kernel_initializer`."""
    return layer.add_weight(
        shape=(inputs, outputs),
        initializer=initializer_of(name, layer.kernel_initializer),
        name=f"{name}_kernel",
    )


def cast_like(tensor: Tensor, *weights: keras.Variable) -> list[Tensor]:
    """Cast weights to the dtype of a tensor.

    Keras' autocast does not reach the gradient of a loop, nor a call that only infers
    shapes.
    """
    return [ops.cast(weight, tensor.dtype) for weight in weights]


def weighted_sum(
    scores: Tensor, value: Tensor, value_mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Turn scores `(B, T, S)` into `(context (B, T, D), weights (B, T, S))`."""
    mask = None if value_mask is None else ops.expand_dims(value_mask, 1)  # B 1 S
    weights = masked_softmax(scores, mask)
    # In a search Keras does not autocast kernels: scores may be float32, values half.
    return matmul(ops.cast(weights, value.dtype), value), weights


def times_column(hidden: Tensor, column: Tensor) -> Tensor:
    """Multiply `(B, T, S, U)` by a column `(U, 1)`: `(B, T, S)`.

    The gradient of the column is first summed over S for each query step, then over B
    and T. As a single product, XLA makes it the slowest part of a decoder's training.
    """
    column = ops.reshape(column, column.shape)  # not a variable any more on TensorFlow

    @ops.custom_gradient
    def product(hidden, column):
        def gradient(*args, upstream=None):
            [slope] = args if upstream is None else [upstream]  # torch passes a keyword
            read = matmul(ops.expand_dims(slope, 2), hidden)  # B T 1 U
            d_hidden = ops.expand_dims(slope, -1) * ops.squeeze(column, -1)  # B T S U
            return d_hidden, ops.expand_dims(total(read, axis=(0, 1, 2)), -1)

        return ops.squeeze(matmul(hidden, column), -1), gradient

    return product(hidden, column)
