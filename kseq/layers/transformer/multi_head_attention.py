"""Multi-head attention: several scaled dot-product attentions in parallel.

The layer is called like any other, or in two parts for whole sequences: `project` and
`attend`. A decoder that generates one step at a time keeps keys and values in a cache
(`cache.py`).

Axes in shape comments: B batch, T query steps, S key steps, D features, H heads, N key
heads, G query heads to each key head, C size of a head.
"""

from typing import Any, Self

import keras
from keras import ops

from kseq.layers import torch_kernels
from kseq.layers.composition import freeze_parts
from kseq.layers.dropout import Dropout
from kseq.layers.masking import (
    apply_mask,
    as_boolean_mask,
    check_attention_mask,
    combine_masks,
    look_ahead_mask,
    masked_softmax,
    step_mask,
)
from kseq.layers.positions import serialize_positions, step_positions
from kseq.layers.rotary_positions import RotaryPositions, make_rotary
from kseq.layers.transformer.cache import Cache, attend_step, start_cache
from kseq.layers.transformer.head_projections import HeadProjections
from kseq.layers.transformer.products import (
    by_head,
    rows_of,
    scores_of,
    sum_by_weights,
)
from kseq.layers.validation import (
    optional_positive_integer,
    positive_integer,
    rate,
    same_rows,
    sequence_shape,
)
from kseq.typing import Config, Initializer, Shape, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class MultiHeadAttention(HeadProjections):
    """Scaled dot-product attention with several heads in parallel.

    Each head has its own projections and computes `softmax(Q K^T / sqrt(key_dim)) V`.
    The results are concatenated and projected back to the width of the query. In
    self-attention, query, key and value are computed as one product.

    Args:
        num_heads: Number of heads H.
        key_dim: Size C of a head. Defaults to the width of the query over `num_heads`.
        num_key_value_heads: Number of heads of the keys and values, each shared by an
            equal group of query heads, which makes caches smaller; 1 is multi-query
            attention. Defaults to `num_heads`.
        dropout: Fraction of the attention weights to drop in training.
        use_bias: Whether the projections have a bias.
        rotary: Whether queries and keys are rotated by position, or a `RotaryPositions`
            layer that does it, for example on a grid.
        relative_bias: Layer that is called with integers `(1, T, S)` or `(B, T, S)`,
            the position of the key minus that of the query, and returns the number to
            add to the scores of each head, `(..., T, S, H)`.
        kernel_initializer: Initializer of the kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        query: `(B, T, D)`.
        value: `(B, S, D_v)`, the vectors to sum up. Defaults to `query`.
        key: `(B, S, D_k)`, the vectors to compare with the query. Defaults to `value`.
        query_mask: Boolean `(B, T)`; where it is False the output is zeros. Defaults
            to the Keras mask of `query`.
        value_mask: Boolean `(B, S)`, True where a value may be read. Defaults to the
            Keras mask of `value`; in self-attention to `query_mask`.
        attention_mask: Boolean `(B, T, S)` or `(T, S)`, True where that query may read
            that value.
        look_ahead: Whether each query sees only its own step and those before it.
        return_attention_scores: Whether to return the weights as well.
        use_causal_mask: Keras' name for `look_ahead`; raises an error that says so.

    Returns:
        `(B, T, D)`, or `(outputs, weights)` with the weights `(B, H, T, S)` before
        dropout. A query with nothing to read has weights of zero.

    Raises:
        ValueError: The width is not divisible by `num_heads`, or `num_heads` by
            `num_key_value_heads`, or a mask is neither boolean nor made of 0 and 1.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import MultiHeadAttention
    >>> query, value = np.ones((2, 5, 6)), np.ones((2, 7, 4))
    >>> outputs, weights = MultiHeadAttention(num_heads=3)(
    ...     query, value, return_attention_scores=True)
    >>> tuple(outputs.shape), tuple(weights.shape)
    ((2, 5, 6), (2, 3, 5, 7))

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), 3.2
        - [Ainslie et al., 2023](https://arxiv.org/abs/2305.13245), 2.2 (grouped heads)
        - [Shaw et al., 2018](https://arxiv.org/abs/1803.02155) and
          [Raffel et al., 2020](https://arxiv.org/abs/1910.10683), 2.1 (relative bias)
        - [Su et al., 2021](https://arxiv.org/abs/2104.09864), 3.2 (rotary)
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int | None = None,
        num_key_value_heads: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        rotary: bool | RotaryPositions = False,
        relative_bias: keras.layers.Layer | None = None,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = positive_integer("num_heads", num_heads)
        self.key_dim = optional_positive_integer("key_dim", key_dim)
        self.num_key_value_heads = optional_positive_integer(
            "num_key_value_heads", num_key_value_heads
        )
        self.key_heads = self.num_key_value_heads or self.num_heads
        if self.num_heads % self.key_heads:
            raise ValueError(
                "`num_key_value_heads` must divide `num_heads`. Received: "
                f"num_heads={num_heads}, num_key_value_heads={num_key_value_heads}."
            )
        self.dropout = rate("dropout", dropout)
        self.use_bias = bool(use_bias)
        self.rotary = rotary
        if relative_bias is not None and not isinstance(
            relative_bias, keras.layers.Layer
        ):
            raise ValueError(
                "`relative_bias` must be a layer that returns a bias for each "
                f"distance. Received: relative_bias={relative_bias!r}."
            )
        self.relative_bias = relative_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.dropout_layer = Dropout(dropout, dtype=self.dtype_policy)
        self.rotary_positions = make_rotary(rotary, self.dtype_policy)
        self.supports_masking = True

    def build(
        self,
        query_shape: Shape,
        value_shape: Shape | None = None,
        key_shape: Shape | None = None,
    ) -> None:
        width: Any = sequence_shape("query", query_shape)[-1]
        value_shape = query_shape if value_shape is None else value_shape
        sequence_shape("value", value_shape)
        key_shape = value_shape if key_shape is None else key_shape
        if self.key_dim is None and width % self.num_heads:
            raise ValueError(
                "The width of the query must be divisible by `num_heads`. Received: "
                f"width {width} with num_heads={self.num_heads}. Or pass `key_dim`, "
                "the size of a head."
            )
        self.head_size = self.key_dim or width // self.num_heads
        whole = self.num_heads * self.head_size
        shared = self.key_heads * self.head_size
        self.query_projection = self._projection("query", width, whole)
        self.key_projection = self._projection("key", key_shape[-1], shared)
        self.value_projection = self._projection("value", value_shape[-1], shared)
        self.output_projection = self._projection("output", whole, width)
        if self.rotary_positions is not None:
            self.rotary_positions.build((None, None, self.num_heads, self.head_size))
        if self.relative_bias is not None and not self.relative_bias.built:
            self.relative_bias.build((None, None, None))
        freeze_parts(self)

    def compute_output_shape(
        self,
        query_shape: Shape,
        value_shape: Shape | None = None,
        key_shape: Shape | None = None,
    ) -> Shape:
        return query_shape

    def call(
        self,
        query: Tensor,
        value: Tensor | None = None,
        key: Tensor | None = None,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        look_ahead: bool = False,
        return_attention_scores: bool = False,
        training: bool = False,
        use_causal_mask: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        if use_causal_mask:
            raise ValueError(
                "The option that hides later steps is called `look_ahead`. Received: "
                "use_causal_mask=True. Use `look_ahead=True`."
            )
        positions = step_positions(query_mask, ops.shape(query)[1])
        query = apply_mask(query, query_mask)
        if value is None:
            value_mask = query_mask if value_mask is None else value_mask
            value_mask = step_mask(value_mask, query)
            value_positions = positions
            queries, keys, values = self.project(query, positions)
        else:
            same_rows("value", value.shape, "query", query.shape)
            value_positions = step_positions(value_mask, ops.shape(value)[1])
            value = apply_mask(value, value_mask)
            key = None if key is None else apply_mask(key, value_mask)
            queries = self.project_query(query, positions)
            keys, values = self.project_memory(value, key, value_positions)
        check_attention_mask(attention_mask, query, query if value is None else value)
        mask = combine_masks(
            attention_mask,
            None if value_mask is None else ops.expand_dims(value_mask, 1),  # B 1 S
            look_ahead_mask(ops.shape(query)[1], keys.shape[2]) if look_ahead else None,
        )
        bias = self.bias_between(positions, value_positions)
        outputs, weights = self.attend(
            queries, keys, values, mask, bias, training, return_attention_scores
        )
        if query_mask is not None:
            is_real = ops.expand_dims(as_boolean_mask(query_mask), -1)  # B T 1
            outputs = ops.where(is_real, outputs, ops.zeros_like(outputs))
        return (outputs, weights) if return_attention_scores else outputs

    def attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        return_attention_scores: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """Read the values by the queries: return the outputs and the weights.

        Args:
            queries: `(B, T, N, G, C)`.
            keys: `(B, N, S, C)`.
            values: `(B, N, S, C)`.
            mask: Boolean, broadcasts to `(B, T, S)`.
            bias: Float, broadcasts to `(B, N, G, T, S)`.
            training: Whether to drop weights.
            return_attention_scores: Whether to return the weights, else None.

        Returns:
            `(outputs (B, T, D), weights (B, H, T, S) or None)`.
        """
        needs_weights = return_attention_scores or (training and self.dropout)
        if torch_kernels.available() and not needs_weights:
            context = torch_kernels.attention(queries, keys, values, mask, bias)
            return self.join_heads(context), None
        scores = scores_of(queries, ops.swapaxes(keys, 2, 3))
        weights = self.attention_weights(scores, mask, bias)
        kept = self.dropout_layer(weights, training=training)
        context = sum_by_weights(kept, values)
        weights = by_head(weights) if return_attention_scores else None
        return self.join_heads(context), weights

    def start_cache(
        self, num_rows: Tensor | int, num_beams: int, max_length: int
    ) -> Cache:
        """Return an empty cache, see `kseq.layers.transformer.cache.start_cache`."""
        return start_cache(self, num_rows, num_beams, max_length)

    def step(
        self,
        query: Tensor,
        cache: Cache,
        lineage: Tensor,
        positions: Tensor,
        prefix: dict[str, Tensor],
        prefix_mask: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """Compute a step of each beam, see `transformer.cache.attend_step`."""
        return attend_step(self, query, cache, lineage, positions, prefix, prefix_mask)

    def bias_between(
        self, query_positions: Tensor, key_positions: Tensor
    ) -> Tensor | None:
        """Return the relative bias `(B, N, G, T, S)`, or None if there is none.

        The positions are `(B, T)` and `(B, S)`.
        """
        if self.relative_bias is None:
            return None
        distance = ops.expand_dims(key_positions, 1) - ops.expand_dims(
            query_positions, 2
        )  # B T S
        bias = ops.moveaxis(self.relative_bias(distance), -1, 1)  # B H T S
        return ops.reshape(
            bias, (rows_of(bias), self.key_heads, self._group, *ops.shape(bias)[2:])
        )

    def attention_weights(
        self, scores: Tensor, mask: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        """Return the weights `(B, N, G, T, S)` of scores, with a mask `(B, T, S)`."""
        scores = scores if bias is None else scores + ops.cast(bias, scores.dtype)
        if mask is not None:
            rows = rows_of(mask) if len(mask.shape) > 2 else 1
            shape = (rows, 1, 1, *ops.shape(mask)[-2:])
            mask = ops.reshape(mask, shape)  # B 1 1 T S
        return masked_softmax(scores, mask)

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "num_key_value_heads": self.num_key_value_heads,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "rotary": serialize_positions(self.rotary),
            "relative_bias": self.relative_bias and serialize(self.relative_bias),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        restore = keras.saving.deserialize_keras_object
        layers = {name: restore(config[name]) for name in ("rotary", "relative_bias")}
        return cls(**{**config, **layers})
