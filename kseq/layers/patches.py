"""Patches: how a picture becomes a sequence of vectors.

Axes in shape comments: B batch, H height, W width of a picture, C channels, P patches,
D width of a vector.
"""

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


@keras.saving.register_keras_serializable(package="kseq")
class PatchEmbedding(SequenceEmbedding):
    """A vector for each patch of a picture.

    The picture is cut into patches without overlap, row by row; the numbers of each are
    one long vector, which `W x + b` brings to the width.

    Args:
        image_shape: `(H, W, C)` of the pictures.
        patch_size: Height and width of a patch, or one number for both.
        width: Size D of the vectors.
        dropout: Share of the features to drop in training.
        kernel_initializer: Initializer of `W`.
        positions: What tells the patches apart: `"learned"`, `"sinusoidal"` or None;
            or a layer `(B, P, D) -> (B, P, D)`, which is called with the vectors alone,
            all rows of patches one behind the other, and unless it is built already is
            built for `(None, None, D)`.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        images: Numbers `(B, H, W, C)`, best about between -1 and 1.

    Returns:
        Vectors `(B, P, D)`, P = H/height x W/width.

    Raises:
        ValueError: The pictures do not divide into patches, or have another shape, a
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
        image_shape,
        patch_size,
        width,
        dropout=0.0,
        kernel_initializer="glorot_uniform",
        positions="learned",
        **kwargs,
    ):
        super().__init__(**kwargs)
        is_shape = isinstance(image_shape, (tuple, list))
        self.image_shape = tuple(image_shape) if is_shape else (image_shape,)
        is_pair = isinstance(patch_size, (tuple, list))
        self.patch_size = tuple(patch_size) if is_pair else (patch_size, patch_size)
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
                "A picture (height, width, channels) must divide into patches. "
                f"Received: image_shape={self.image_shape}, "
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
    def num_patches(self):
        (height, width, _), (rows, columns) = self.image_shape, self.patch_size
        return (height // rows) * (width // columns)

    @property
    def num_positions(self):
        return most_positions(self.positions_layer)

    def symbolic_input(self, name):
        return keras.Input(self.image_shape, name=name)

    def build(self, images_shape):
        if tuple(images_shape[1:]) != self.image_shape:
            raise ValueError(
                "The pictures must have the shape (B, height, width, channels) that "
                f"was given. Received: pictures of shape {tuple(images_shape)} with "
                f"image_shape={self.image_shape}."
            )
        rows, columns = self.patch_size
        self.projection.build((None, None, rows * columns * self.image_shape[-1]))
        build_positions(self.positions_layer, self.width)
        freeze_parts(self)

    def compute_output_shape(self, images_shape):
        return (images_shape[0], self.num_patches, self.width)

    def call(self, images, training=False):
        (height, width, channels), (rows, columns) = self.image_shape, self.patch_size
        down, across = height // rows, width // columns
        cut = ops.reshape(images, (-1, down, rows, across, columns, channels))
        patches = ops.transpose(cut, (0, 1, 3, 2, 4, 5))
        flat = ops.reshape(patches, (-1, down * across, rows * columns * channels))
        vectors = self.projection(flat)  # B P D
        if self.positions_layer is not None:
            vectors = self.positions_layer(vectors)
        return self.dropout_layer(vectors, training=training)

    def get_config(self):
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
    def from_config(cls, config):
        return cls(**deserialize_positions(config))
