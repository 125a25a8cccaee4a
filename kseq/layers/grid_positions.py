"""Grid positions: learned vectors for the row and the column of each step.

Axes in shape comments: B batch, S steps, D width, R rows, C columns.
"""

from typing import Any

import keras
from keras import ops

from kseq.layers.initializers import initializer_of
from kseq.layers.positions import table_rows
from kseq.layers.validation import positive_integer
from kseq.typing import Config, Initializer, Shape, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class GridPositions(keras.layers.Layer):
    """Learned position vectors for the rows and columns of a grid.

    Adds two vectors to each step:
    `x + row_table[p // columns] + column_table[p % columns]` for position `p` of a grid
    that is read row by row, such as the patches or tokens of an image. The layer learns
    `rows + columns` vectors; `LearnedPositions` would learn `rows * columns`.

    Args:
        rows: Number of rows R of the grid.
        columns: Number of columns C.
        embeddings_initializer: Initializer of both tables.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        positions: Integers `(B, S)` or `(1, S)`. By default, the real steps are
            counted from 0.
        mask: Boolean `(B, S)`, True where a step is real. Defaults to the Keras mask of
            `sequences`, which the outputs keep.

    Returns:
        `(B, S, D)`.

    Raises:
        ValueError: A size is not a positive integer, or a sequence has more real steps
            than the grid has cells, `max_length`. In a compiled function, TensorFlow
            raises its own error with the same message. A function compiled by JAX or
            XLA cannot raise; there, and where `positions` are passed, steps beyond
            the grid become NaN.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import GridPositions
    >>> positions = GridPositions(rows=2, columns=4)
    >>> tuple(positions(np.zeros((3, 8, 5))).shape), positions.max_length
    ((3, 8, 5), 8)

    References:
        - [Ramesh et al., 2021](https://arxiv.org/abs/2102.12092), B.1
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        embeddings_initializer: Initializer = "uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rows = positive_integer("rows", rows)
        self.columns = positive_integer("columns", columns)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.supports_masking = True

    @property
    def max_length(self) -> int:
        return self.rows * self.columns

    def build(self, sequences_shape: Shape) -> None:
        self.row_table = self._table("row_table", self.rows, sequences_shape[-1])
        self.column_table = self._table(
            "column_table", self.columns, sequences_shape[-1]
        )

    def _table(self, name: str, length: int, width: int | None) -> keras.Variable:
        return self.add_weight(
            shape=(length, width),
            initializer=initializer_of(name, self.embeddings_initializer),
            name=name,
        )

    def compute_output_shape(self, sequences_shape: Shape) -> Shape:
        return sequences_shape

    def call(
        self,
        sequences: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        cells, is_beyond = table_rows(
            sequences,
            positions,
            mask,
            self.max_length,
            "A sequence must not have more steps than the grid has cells, padding not "
            f"counted. Received: more than rows={self.rows} times columns="
            f"{self.columns}. Truncate the sequence, or use a larger grid.",
        )
        rows = ops.take(self.row_table, cells // self.columns, axis=0)
        columns = ops.take(self.column_table, cells % self.columns, axis=0)
        vectors = ops.cast(rows + columns, sequences.dtype)  # B S D
        return sequences + ops.where(is_beyond[..., None], float("nan"), vectors)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "rows": self.rows,
            "columns": self.columns,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
        }
