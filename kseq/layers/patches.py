"""Patch embedding: an image as a sequence of vectors.

Axes in shape comments: B batch, H height, W width of an image, C channels, P patches,
D width of a vector.
"""

from typing import Any, Literal, Self

import keras
from keras import ops

from kseq.layers.composition import freeze_parts
from kseq.layers.embeddings import build_positions
from kseq.layers.initializers import initializer_of
from kseq.layers.positions import (
    deserialize_positions,
    make_positions,
    most_positions,
    serialize_positions,
)
from kseq.layers.sequence_embedding import SequenceEmbedding
from kseq.layers.validation import positive_integer, rate
from kseq.typing import Config, Initializer, Shape, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class PatchEmbedding(SequenceEmbedding):
    """Linear embedding of the patches of an image.

    The image is cut into patches without overlap, row by row. The values of each patch
    form one vector `x`, which `W x + b` projects to the width.

    Args:
        image_shape: Shape `(H, W, C)` of the images.
        patch_size: Height and width of a patch, or one number for both.
        width: Size D of the vectors.
        dropout: Fraction of the features to drop in training.
        kernel_initializer: Initializer of `W`.
        positions: Position encoding: `"learned"`, `"sinusoidal"`, None, or a layer
            `(B, P, D) -> (B, P, D)`. The layer is called with the vectors only, in the
            order of the patches, row by row. If it is not built yet, it is built for
            `(None, None, D)`.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        images: Numbers `(B, H, W, C)`, ideally between about -1 and 1.

    Returns:
        Vectors `(B, P, D)`, P = H/height x W/width.

    Raises:
        ValueError: The images cannot be divided into patches or have another shape, a
            size is not a positive integer, `dropout` is not in [0, 1), or the positions
            are unknown.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import PatchEmbedding
    >>> embedding = PatchEmbedding(image_shape=(6, 4, 3), patch_size=2, width=5)
    >>> tuple(embedding(np.ones((1, 6, 4, 3))).shape)
    (1, 6, 5)

    References:
        - [Dosovitskiy et al., 2021](https://arxiv.org/abs/2010.11929), 3.1
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int] | list[int],
        patch_size: int | tuple[int, int] | list[int],
        width: int,
        dropout: float = 0.0,
        kernel_initializer: Initializer = "glorot_uniform",
        positions: Literal["learned", "sinusoidal"]
        | keras.layers.Layer
        | None = "learned",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        is_shape = isinstance(image_shape, (tuple, list))
        self.image_shape: tuple[Any, ...]
        self.image_shape = tuple(image_shape) if is_shape else (image_shape,)
        if not isinstance(patch_size, (tuple, list)):
            patch_size = (patch_size, patch_size)
        self.patch_size = tuple(patch_size)
        if len(self.patch_size) != 2:
            raise ValueError(
                "`patch_size` must be one number, or a height and a width. Received: "
                f"patch_size={patch_size!r}."
            )
        sizes = zip(self.image_shape, self.patch_size, strict=False)
        for size in (*self.image_shape, *self.patch_size):
            positive_integer("image_shape and patch_size", size)
        if len(self.image_shape) != 3 or any(whole % part for whole, part in sizes):
            raise ValueError(
                "`image_shape` must be (height, width, channels), and must divide into "
                f"patches. Received: image_shape={self.image_shape}, "
                f"patch_size={self.patch_size}."
            )
        self.width = positive_integer("width", width)
        self.dropout = rate("dropout", dropout)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.projection = keras.layers.Dense(
            self.width,
            kernel_initializer=initializer_of("kernel", self.kernel_initializer),
            dtype=self.dtype_policy,
            name="projection",
        )
        self.positions = positions
        max_length = self.num_patches if positions == "learned" else None
        self.positions_layer = make_positions(positions, max_length, self.dtype_policy)
        self.dropout_layer = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    @property
    def num_patches(self) -> int:
        (height, width, _), (rows, columns) = self.image_shape, self.patch_size
        return (height // rows) * (width // columns)

    @property
    def num_positions(self) -> int | None:
        return most_positions(self.positions_layer)

    def symbolic_input(self, name: str) -> keras.KerasTensor:
        return keras.Input(self.image_shape, name=name)

    def build(self, images_shape: Shape) -> None:
        if tuple(images_shape[1:]) != self.image_shape:
            raise ValueError(
                "The images must have the shape (B, *image_shape). Received: images "
                f"of shape {tuple(images_shape)} with image_shape={self.image_shape}."
            )
        rows, columns = self.patch_size
        self.projection.build((None, None, rows * columns * self.image_shape[-1]))
        build_positions(self.positions_layer, self.width)
        freeze_parts(self)

    def compute_output_shape(self, images_shape: Shape) -> Shape:
        return (images_shape[0], self.num_patches, self.width)

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        (height, width, channels), (rows, columns) = self.image_shape, self.patch_size
        down, across = height // rows, width // columns
        cut = ops.reshape(images, (-1, down, rows, across, columns, channels))
        patches = ops.transpose(cut, (0, 1, 3, 2, 4, 5))
        flat = ops.reshape(patches, (-1, down * across, rows * columns * channels))
        vectors = self.projection(flat)  # B P D
        if self.positions_layer is not None:
            vectors = self.positions_layer(vectors)
        return self.dropout_layer(vectors, training=training)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "image_shape": self.image_shape,
            "patch_size": self.patch_size,
            "width": self.width,
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "positions": serialize_positions(self.positions),
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**deserialize_positions(config))
