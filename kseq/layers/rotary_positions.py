"""Rotary position encoding of attention queries and keys.

Axes in shape comments: B batch, S steps, H heads, C size of a head.
"""

from typing import Any, Literal

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
from kseq.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class RotaryPositions(Layer):
    """Rotary position encoding (RoPE).

    Each pair of features is rotated by an angle proportional to the position, at a
    speed that differs by pair: `(x, y) -> (x cos a - y sin a, x sin a + y cos a)` with
    `a = s / 10000^(2i/C)`. The dot product of a rotated query and a rotated key depends
    on their distance only, and not on their absolute positions.

    With `columns`, the positions are those of a grid, row by row. Half of the pairs are
    rotated by the row `s // columns` and half by the column `s % columns`, so the dot
    product depends on the distances in rows and in columns. Division rounds down.
    Negative positions, such as those of a prefix, fill the rows above the grid: -1 is
    the last column of row -1.

    Args:
        layout: Features that form a pair: `"halves"`, `i` and `i + C/2`, or
            `"interleaved"`, `2i` and `2i + 1`, as in the paper.
        max_wavelength: Longest wavelength divided by 2 pi.
        columns: Number of columns of a grid. None for a sequence.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        heads: `(B, S, H, C)`, queries or keys by head.
        positions: Integers `(B, S)` or `(1, S)`, which may be negative. By default,
            the real steps are counted from 0.
        mask: Boolean `(B, S)`, True where a step is real.

    Returns:
        `(B, S, H, C)`.

    Raises:
        ValueError: C is odd, or not a multiple of 4 with `columns`, the layout is
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

    def __init__(
        self,
        layout: Literal["halves", "interleaved"] = "halves",
        max_wavelength: float = 10_000,
        columns: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layout = one_of("layout", layout, LAYOUTS)
        self.max_wavelength = positive_number("max_wavelength", max_wavelength)
        self.columns = optional_positive_integer("columns", columns)
        self.supports_masking = True

    def build(self, heads_shape: Shape) -> None:
        if len(heads_shape) != 4:
            raise ValueError(
                "`heads` must be vectors by head, shape (B, S, H, C). Received: heads "
                f"of shape {tuple(heads_shape)}."
            )
        check_even(heads_shape[-1])  # type: ignore[arg-type]
        if self.columns is not None and heads_shape[-1] % 4:  # type: ignore[operator]
            raise ValueError(
                "On a grid, half of the pairs of features are rotated by row and half "
                "by column, so the size of a head must be a multiple of 4. Received: "
                f"size {heads_shape[-1]} with columns={self.columns}."
            )

    def compute_output_shape(self, heads_shape: Shape) -> Shape:
        return heads_shape

    def call(
        self,
        heads: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        if positions is None:
            positions = step_positions(mask, ops.shape(heads)[1])
        angles = self._angles(positions, heads.shape[-1])  # B S C/2
        sine, cosine = (
            ops.cast(ops.expand_dims(f(angles), 2), heads.dtype)  # B S 1 C/2
            for f in (ops.sin, ops.cos)
        )
        x, y = split_pairs(heads, self.layout)  # B S H C/2
        return join_pairs(x * cosine - y * sine, x * sine + y * cosine, self.layout)

    def _angles(self, positions: Tensor, size: int) -> Tensor:
        """Return the rotation angle of each pair, `(B, S, C/2)`."""
        if self.columns is None:
            return position_angles(positions, size, self.max_wavelength)
        positions = ops.convert_to_tensor(positions, "int32")
        angles = [
            position_angles(axis, size // 2, self.max_wavelength)  # B S C/4
            for axis in (positions // self.columns, positions % self.columns)
        ]
        return ops.concatenate(angles, axis=-1)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "layout": self.layout,
            "max_wavelength": self.max_wavelength,
            "columns": self.columns,
        }


def make_rotary(rotary: bool | RotaryPositions, dtype: Any) -> RotaryPositions | None:
    """Return a new layer for True, None for False, and a layer unchanged."""
    if isinstance(rotary, RotaryPositions):
        return rotary
    if rotary not in (True, False):
        raise ValueError(
            "`rotary` must be True, False, or a layer `RotaryPositions`. Received: "
            f"rotary={rotary!r}."
        )
    return RotaryPositions(dtype=dtype) if rotary else None


def split_pairs(x: Tensor, layout: str) -> tuple[Tensor, Tensor]:
    """Split the last axis into the first and second features of pairs.

    It is the reverse of `join_pairs`.
    """
    if layout == "halves":
        return ops.split(x, 2, axis=-1)
    return x[..., 0::2], x[..., 1::2]
