"""Projections of multi-head attention: to queries, keys and values, and back.

Axes in shape comments: B batch, T query steps, S key steps, D features, H heads, N key
heads, G query heads to each key head, C size of a head.
"""

import keras
from keras import ops

from kseq.layers.composition import Composite, is_quantized
from kseq.layers.initializers import initializer_of
from kseq.layers.rotary_positions import RotaryPositions
from kseq.layers.transformer.products import project_together, rows_of
from kseq.typing import Tensor


class HeadProjections(Composite):
    """Base of `MultiHeadAttention`, which sets the attributes: the projections."""

    num_heads: int
    key_heads: int
    head_size: int
    use_bias: bool
    query_projection: keras.layers.Dense
    key_projection: keras.layers.Dense
    value_projection: keras.layers.Dense
    output_projection: keras.layers.Dense
    rotary_positions: RotaryPositions | None

    def _projection(
        self, name: str, inputs: int | None, outputs: int
    ) -> keras.layers.Dense:
        projection = keras.layers.Dense(
            outputs,
            use_bias=self.use_bias,
            kernel_initializer=initializer_of(name, self.kernel_initializer),
            dtype=self.dtype_policy,
            name=name,
        )
        projection.build((None, inputs))
        return projection

    @property
    def query_kernel(self) -> Tensor:
        return self.query_projection.kernel

    @property
    def key_kernel(self) -> Tensor:
        return self.key_projection.kernel

    @property
    def value_kernel(self) -> Tensor:
        return self.value_projection.kernel

    @property
    def output_kernel(self) -> Tensor:
        return self.output_projection.kernel

    def project(
        self, sequence: Tensor, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Project a sequence `(B, T, D)` for self-attention, in one product.

        Returns:
            Queries `(B, T, N, G, C)`, keys and values `(B, N, T, C)`.
        """
        query, key, value = self._project_together(
            sequence, self.query_projection, self.key_projection, self.value_projection
        )
        queries = self._query_heads(query, positions)
        return queries, self._key_heads(key, positions), self._key_heads(value)

    def project_query(self, query: Tensor, positions: Tensor | None = None) -> Tensor:
        """Project `(B, T, D)` to queries `(B, T, N, G, C)`."""
        [query] = self._project_together(query, self.query_projection)
        return self._query_heads(query, positions)

    def project_memory(
        self,
        value: Tensor,
        key: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Project `(B, S, D_v)` to keys and values, each `(B, N, S, C)`."""
        projections = self.key_projection, self.value_projection
        if key is None:
            keys, values = self._project_together(value, *projections)
        else:
            [keys] = self._project_together(key, projections[0])
            [values] = self._project_together(value, projections[1])
        return self._key_heads(keys, positions), self._key_heads(values)

    def join_heads(self, context: Tensor) -> Tensor:
        """Project what the heads read, `(B, T, N, G, C)`, to outputs `(B, T, D)`."""
        steps, width = ops.shape(context)[1], self.num_heads * self.head_size
        joined = ops.reshape(context, (rows_of(context), steps, width))  # B T HC
        [outputs] = self._project_together(joined, self.output_projection)
        return outputs

    @property
    def _group(self) -> int:
        return self.num_heads // self.key_heads

    def _project_together(
        self, x: Tensor, *projections: keras.layers.Dense
    ) -> list[Tensor]:
        """Apply each projection to `x`, as one product unless they are quantized."""
        if any(is_quantized(dense) for dense in projections):
            return [dense(x) for dense in projections]
        # Cast the weights here: in a search no autocast scope does it.
        return project_together(x, projections, self.compute_dtype)

    def _query_heads(self, query: Tensor, positions: Tensor | None) -> Tensor:
        heads = self._split_heads(query, self.num_heads)  # B T H C
        heads = self._rotate(heads, positions)
        groups = (self.key_heads, self._group, self.head_size)
        shape = (rows_of(heads), ops.shape(heads)[1], *groups)
        scale = ops.cast(self.head_size**-0.5, self.compute_dtype)
        return ops.reshape(heads, shape) * scale  # B T N G C

    def _key_heads(self, key: Tensor, positions: Tensor | None = None) -> Tensor:
        heads = self._split_heads(key, self.key_heads)  # B S N C
        if positions is not None:
            heads = self._rotate(heads, positions)
        return ops.swapaxes(heads, 1, 2)  # B N S C

    def _rotate(self, heads: Tensor, positions: Tensor | None) -> Tensor:
        if self.rotary_positions is None:
            return heads
        # A layer passed by the user may compute in another precision.
        return ops.cast(self.rotary_positions(heads, positions), heads.dtype)

    def _split_heads(self, x: Tensor, num_heads: int) -> Tensor:
        return ops.reshape(x, (rows_of(x), ops.shape(x)[1], num_heads, self.head_size))
