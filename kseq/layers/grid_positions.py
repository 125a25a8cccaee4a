"""Positions on a grid: which row and which column a step stands in.

Axes in shape comments: B batch, S steps, D width, R rows, C columns.
"""

import keras
from keras import ops

from kseq.layers.initializers import initializer_of
from kseq.layers.positions import rows_of_table
from kseq.layers.validation import positive_integer


@keras.saving.register_keras_serializable(package="kseq")
class GridPositions(keras.layers.Layer):
    """Adds a learned vector for the row and one for the column of each position.

    `x + row_table[p // columns] + column_table[p % columns]` for position `p` of a grid
    that is read row by row, such as the patches or the tokens of a picture. It learns
    `rows + columns` vectors, where `LearnedPositions` would learn `rows * columns`.

    Args:
        rows: Number of rows R of the grid.
        columns: Number of columns C.
        embeddings_initializer: Initializer of both tables.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        positions: Integers `(B, S)` or `(1, S)`. Counted over the real steps where not
            given.
        mask: Boolean `(B, S)`, True where a step is real. Defaults to the Keras mask of
            `sequences`, which the outputs keep.

    Returns:
        `(B, S, D)`.

    Raises:
        ValueError: A size is not a positive integer, or a sequence has more real steps
            than the grid has places, `max_length`. In a compiled function TensorFlow
            raises its own error with the same words. Where nothing can be raised, as in
            one that JAX or XLA compiles, and for positions that are given, what is
            beyond the grid gets NaN.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import GridPositions
    >>> positions = GridPositions(rows=2, columns=4)
    >>> tuple(positions(np.zeros((3, 8, 5))).shape), positions.max_length
    ((3, 8, 5), 8)

    References:
        - [Ramesh et al., 2021](https://arxiv.org/abs/2102.12092), B.1
    """

    def __init__(self, rows, columns, embeddings_initializer="uniform", **kwargs):
        super().__init__(**kwargs)
        self.rows = positive_integer("rows", rows)
        self.columns = positive_integer("columns", columns)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.supports_masking = True

    @property
    def max_length(self):
        return self.rows * self.columns

    def build(self, sequences_shape):
        self.row_table = self._table("row_table", self.rows, sequences_shape[-1])
        self.column_table = self._table(
            "column_table", self.columns, sequences_shape[-1]
        )

    def _table(self, name, length, width):
        return self.add_weight(
            shape=(length, width),
            initializer=initializer_of(name, self.embeddings_initializer),
            name=name,
        )

    def compute_output_shape(self, sequences_shape):
        return sequences_shape

    def call(self, sequences, positions=None, mask=None):
        places, is_beyond = rows_of_table(
            sequences,
            positions,
            mask,
            self.max_length,
            "A sequence must have as many steps as the grid has places, padding not "
            f"counted. Received: more than rows={self.rows} times columns="
            f"{self.columns}. Cut it off, or make the grid larger.",
        )
        rows = ops.take(self.row_table, places // self.columns, axis=0)
        columns = ops.take(self.column_table, places % self.columns, axis=0)
        vectors = ops.cast(rows + columns, sequences.dtype)  # B S D
        return sequences + ops.where(is_beyond[..., None], float("nan"), vectors)

    def get_config(self):
        return {
            **super().get_config(),
            "rows": self.rows,
            "columns": self.columns,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
        }
