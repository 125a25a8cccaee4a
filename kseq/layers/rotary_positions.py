"""Rotary positions: queries and keys that turn by how far they stand.

Axes in shape comments: B batch, S steps, H heads, C size of a head.
"""

import keras
from keras import ops

from kseq.layers.layer import Layer
from kseq.layers.positions import (
    LAYOUTS,
    check_even,
    join_pairs,
    position_angles,
    step_positions,
)
from kseq.layers.validation import (
    one_of,
    optional_positive_integer,
    positive_number,
)


@keras.saving.register_keras_serializable(package="kseq")
class RotaryPositions(Layer):
    """Rotates the features of queries and keys by angles that grow with the position.

    Each pair of features turns as the hand of a clock, every pair at a speed of its
    own: `(x, y) -> (x cos a - y sin a, x sin a + y cos a)` with
    `a = s / 10000^(2i/C)`. The product of a rotated query and a rotated key depends on
    how far apart they stand, and no longer on where.

    With `columns` the positions are those of a grid, row by row: half of the pairs turn
    by the row `s // columns` and half by the column `s % columns`, so the product
    depends on how many rows and how many columns they stand apart. Division rounds
    down: what stands before position 0, as a prefix does, fills the rows above the
    grid, and -1 is the last column of row -1.

    Args:
        layout: What makes a pair: `"halves"`, features `i` and `i + C/2`, or
            `"interleaved"`, features `2i` and `2i + 1`, as in the paper.
        max_wavelength: The longest wavelength over 2 pi.
        columns: Number of columns of a grid. None for a sequence.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        heads: `(B, S, H, C)`, queries or keys by head.
        positions: Integers `(B, S)` or `(1, S)`, negative ones too. Counted over the
            real steps where not given.
        mask: Boolean `(B, S)`, True where a step is real.

    Returns:
        `(B, S, H, C)`.

    Raises:
        ValueError: C is odd, or with `columns` does not divide by 4, the layout is
            unknown, or `max_wavelength` or `columns` is not positive.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import RotaryPositions
    >>> heads = np.array([[[[1.0, 0.0]], [[1.0, 0.0]]]])
    >>> np.array(RotaryPositions()(heads), "float64").round(2).tolist()
    [[[[1.0, 0.0]], [[0.54, 0.84]]]]

    References:
        - [Su et al., 2021](https://arxiv.org/abs/2104.09864), 3.2.2, 3.4.2
        - [Heo et al., 2024](https://arxiv.org/abs/2403.13298), 3.2 (axial, for a grid)
    """

    def __init__(self, layout="halves", max_wavelength=10_000, columns=None, **kwargs):
        super().__init__(**kwargs)
        self.layout = one_of("layout", layout, LAYOUTS)
        self.max_wavelength = positive_number("max_wavelength", max_wavelength)
        self.columns = optional_positive_integer("columns", columns)
        self.supports_masking = True

    def build(self, heads_shape):
        if len(heads_shape) != 4:
            raise ValueError(
                "`heads` must be vectors by head, shape (B, S, H, C). Received: heads "
                f"of shape {tuple(heads_shape)}."
            )
        check_even(heads_shape[-1])
        if self.columns is not None and heads_shape[-1] % 4:
            raise ValueError(
                "On a grid half of the pairs of features turn by row and half by "
                "column, so the size of a head must divide by 4. Received: size "
                f"{heads_shape[-1]} with columns={self.columns}."
            )

    def compute_output_shape(self, heads_shape):
        return heads_shape

    def call(self, heads, positions=None, mask=None):
        if positions is None:
            positions = step_positions(mask, ops.shape(heads)[1])
        angles = self._angles(positions, heads.shape[-1])  # B S C/2
        sine, cosine = (
            ops.cast(ops.expand_dims(f(angles), 2), heads.dtype)  # B S 1 C/2
            for f in (ops.sin, ops.cos)
        )
        x, y = split_pairs(heads, self.layout)  # B S H C/2
        return join_pairs(x * cosine - y * sine, x * sine + y * cosine, self.layout)

    def _angles(self, positions, size):
        """By how much each pair turns, `(B, S, C/2)`."""
        if self.columns is None:
            return position_angles(positions, size, self.max_wavelength)
        positions = ops.convert_to_tensor(positions, "int32")
        angles = [
            position_angles(axis, size // 2, self.max_wavelength)  # B S C/4
            for axis in (positions // self.columns, positions % self.columns)
        ]
        return ops.concatenate(angles, axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "layout": self.layout,
            "max_wavelength": self.max_wavelength,
            "columns": self.columns,
        }


def make_rotary(rotary, dtype):
    """Makes the layer that rotates from True; a layer stays as it is, False is None."""
    if isinstance(rotary, RotaryPositions):
        return rotary
    if rotary not in (True, False):
        raise ValueError(
            "`rotary` must be True, False, or a layer `RotaryPositions`. Received: "
            f"rotary={rotary!r}."
        )
    return RotaryPositions(dtype=dtype) if rotary else None


def split_pairs(x, layout):
    """The reverse of `join_pairs`."""
    if layout == "halves":
        return ops.split(x, 2, axis=-1)
    return x[..., 0::2], x[..., 1::2]
