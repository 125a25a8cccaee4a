"""Image layers: an encoder from pixels to a grid of vectors, and a decoder back.

Both layers are convolutions with residual blocks. They do most of their work on the
grid, which has fewer cells than the image has pixels.

Axes in shape comments: B batch, H height, W width of an image, C channels, R rows,
G columns of the grid, D width of a vector.
"""

from typing import Any

import keras
from keras import ops

from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.initializers import initializer_of
from kseq.layers.validation import positive_integer
from kseq.typing import Activation, Config, Initializer, Shape, Tensor


class ImageCoder(Composite):
    """Base class of the image encoder and decoder.

    There are residual blocks on the grid, and one stage for each factor of 2 between
    pixels and grid. Towards the pixels, each stage has half the width and twice the
    height and width of the image.
    """

    def __init__(
        self,
        patch_size: int,
        width: int = 128,
        num_blocks: int = 2,
        kernel_size: int = 3,
        activation: Activation = "silu",
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.patch_size = positive_integer("patch_size", patch_size)
        self.num_stages = self.patch_size.bit_length() - 1
        if self.patch_size != 1 << self.num_stages:
            raise ValueError(
                "`patch_size` must be a power of two, since each stage halves the "
                f"size of an image. Received: patch_size={patch_size}. Use "
                f"{1 << self.num_stages} or {2 << self.num_stages}."
            )
        self.width = positive_integer("width", width)
        self.num_blocks = positive_integer("num_blocks", num_blocks)
        self.kernel_size = positive_integer("kernel_size", kernel_size)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        if self.width % self.patch_size:
            raise ValueError(
                "`width` must be a multiple of `patch_size`, since each stage towards "
                f"the pixels halves it. Received: width={width}, "
                f"patch_size={patch_size}."
            )

    def stage_widths(self) -> list[int]:
        """Return the width of each stage, from the pixels to the grid."""
        return [self.width >> n for n in range(self.num_stages - 1, -1, -1)]

    def convolution(
        self, name: str, filters: int, kernel_size: int = 1, strides: int = 1
    ) -> keras.layers.Conv2D:
        return keras.layers.Conv2D(
            filters,
            kernel_size,
            strides,
            padding="same",
            data_format="channels_last",
            kernel_initializer=initializer_of(name, self.kernel_initializer),
            dtype=self.dtype_policy,
            name=name,
        )

    def block(self, name: str, filters: int) -> "ResidualBlock":
        return ResidualBlock(
            filters,
            self.kernel_size,
            self.activation,
            kernel_initializer=initializer_of(name, self.kernel_initializer),
            dtype=self.dtype_policy,
            name=name,
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "patch_size": self.patch_size,
            "width": self.width,
            "num_blocks": self.num_blocks,
            "kernel_size": self.kernel_size,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@keras.saving.register_keras_serializable(package="kseq")
class ImageEncoder(ImageCoder):
    """Convolutional image encoder with one output vector per patch.

    Each stage halves height and width by a convolution of stride 2. Residual blocks
    follow, most of them on the grid. A vector also depends on pixels around its patch,
    unless the blocks have kernels of size 1; then equal patches have equal vectors.

    Args:
        patch_size: Height and width of the patch that a vector represents, a power of
            two.
        width: Size D of the vectors on the grid. Each stage towards the pixels has
            half the width of the next.
        num_blocks: Number of residual blocks on the grid.
        kernel_size: Height and width of the blocks' spatial kernels.
        activation: Activation inside the blocks.
        kernel_initializer: Initializer of all kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        images: `(B, H, W, C)`, ideally with values between about -1 and 1.

    Returns:
        Vectors `(B, H / patch_size, W / patch_size, D)`.

    Raises:
        ValueError: A size is not a positive integer, `patch_size` is not a power of
            two, or the images cannot be divided into patches.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import ImageEncoder
    >>> tuple(ImageEncoder(patch_size=4, width=8)(np.ones((2, 8, 12, 3))).shape)
    (2, 2, 3, 8)

    References:
        - [van den Oord et al., 2017](https://arxiv.org/abs/1711.00937), 4.1
        - [He et al., 2016](https://arxiv.org/abs/1603.05027), 3 (pre-activation)
    """

    def build(self, images_shape: Shape) -> None:
        check_divides(images_shape, self.patch_size)
        self.parts = []
        shape = images_shape
        widths = self.stage_widths() or [self.width]
        for number, width in enumerate(widths):
            stride = 2 if self.num_stages else 1  # a patch may be one pixel
            halve = self.convolution(f"halve_{number}", width, stride, stride)
            is_last = width == self.width
            count = self.num_blocks if is_last else 1
            blocks = [self.block(f"block_{number}_{n}", width) for n in range(count)]
            for part in (halve, *blocks):
                part.build(shape)
                shape = part.compute_output_shape(shape)
            self.parts += [halve, *blocks]
        freeze_parts(self)

    def compute_output_shape(self, images_shape: Shape) -> Shape:
        check_divides(images_shape, self.patch_size)
        grid = (size and size // self.patch_size for size in images_shape[1:3])
        return (images_shape[0], *grid, self.width)

    def call(self, images: Tensor) -> Tensor:
        x = images  # B H W C
        for part in self.parts:
            x = part(x)
        return self.activation(x)  # B R G D


@keras.saving.register_keras_serializable(package="kseq")
class ImageDecoder(ImageCoder):
    """Convolutional decoder from a grid of vectors to an image.

    It is the reverse of `ImageEncoder`.

    Residual blocks on the grid come first. Then each stage doubles height and width by
    a convolution with four times the features, which become the four pixels of a
    square (sub-pixel convolution).

    Args:
        patch_size: Height and width of the patch that a vector represents, a power of
            two.
        channels: Number of channels C of the image.
        width: Size of the vectors on the grid. Each stage halves it.
        num_blocks: Number of residual blocks on the grid.
        kernel_size: Height and width of the blocks' spatial kernels.
        activation: Activation inside the blocks.
        kernel_initializer: Initializer of all kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        grids: `(B, R, G, D)`.

    Returns:
        Images `(B, patch_size R, patch_size G, C)`. The values are not bounded.

    Raises:
        ValueError: A size is not a positive integer, or `patch_size` is not a power of
            two.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import ImageDecoder
    >>> decoder = ImageDecoder(patch_size=4, channels=3, width=8)
    >>> tuple(decoder(np.ones((2, 2, 3, 5))).shape)
    (2, 8, 12, 3)

    References:
        - [van den Oord et al., 2017](https://arxiv.org/abs/1711.00937), 4.1
        - [Shi et al., 2016](https://arxiv.org/abs/1609.05158), 3.2 (upsampling)
    """

    def __init__(
        self,
        patch_size: int,
        channels: int = 3,
        width: int = 128,
        num_blocks: int = 2,
        kernel_size: int = 3,
        activation: Activation = "silu",
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            patch_size,
            width,
            num_blocks,
            kernel_size,
            activation,
            kernel_initializer,
            **kwargs,
        )
        self.channels = positive_integer("channels", channels)

    def build(self, grids_shape: Shape) -> None:
        self.read = self.convolution("read", self.width)
        self.read.build(grids_shape)
        shape = (*grids_shape[:-1], self.width)
        self.blocks = [
            self.block(f"block_{number}", self.width)
            for number in range(self.num_blocks)
        ]
        for block in self.blocks:
            block.build(shape)
        self.doublings, self.smoothings = [], []
        for number, width in enumerate(reversed(self.stage_widths())):
            doubling = self.convolution(f"double_{number}", 4 * (width // 2))
            doubling.build(shape)
            shape = (*grids_shape[:1], None, None, width // 2)
            self.doublings.append(doubling)
            is_last = number == self.num_stages - 1
            if not is_last:
                smoothing = self.block(f"smooth_{number}", width // 2)
                smoothing.build(shape)
                self.smoothings.append(smoothing)
        self.write = self.convolution("write", self.channels, kernel_size=3)
        self.write.build(shape)
        freeze_parts(self)

    def compute_output_shape(self, grids_shape: Shape) -> Shape:
        sides = (size and size * self.patch_size for size in grids_shape[1:3])
        return (grids_shape[0], *sides, self.channels)

    def call(self, grids: Tensor) -> Tensor:
        x = self.read(grids)  # B R G D
        for block in self.blocks:
            x = block(x)
        for number, doubling in enumerate(self.doublings):
            x = depth_to_space(doubling(self.activation(x)))
            if number < len(self.smoothings):
                x = self.smoothings[number](x)
        return self.write(self.activation(x))  # B H W C

    def get_config(self) -> Config:
        return {**super().get_config(), "channels": self.channels}


@keras.saving.register_keras_serializable(package="kseq")
class ResidualBlock(Composite):
    """Residual block of two convolutions: `x + W2 a(W1 * a(x))`.

    Args:
        width: Size D of the input and output vectors.
        kernel_size: Height and width of the first kernel. The second is of size 1.
        activation: Activation `a`.
        kernel_initializer: Initializer of both kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        images: `(B, H, W, D)`.

    Returns:
        `(B, H, W, D)`.

    Raises:
        ValueError: A size is not a positive integer, or the images do not have
            `width` features.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import ResidualBlock
    >>> tuple(ResidualBlock(width=5)(np.ones((2, 7, 3, 5))).shape)
    (2, 7, 3, 5)

    References:
        - [van den Oord et al., 2017](https://arxiv.org/abs/1711.00937), 4.1
    """

    def __init__(
        self,
        width: int,
        kernel_size: int = 3,
        activation: Activation = "silu",
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.width = positive_integer("width", width)
        self.kernel_size = positive_integer("kernel_size", kernel_size)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.mix, self.join = (
            keras.layers.Conv2D(
                self.width,
                size,
                padding="same",
                data_format="channels_last",
                kernel_initializer=initializer_of(name, self.kernel_initializer),
                dtype=self.dtype_policy,
                name=name,
            )
            for name, size in (("mix", self.kernel_size), ("join", 1))
        )

    def build(self, images_shape: Shape) -> None:
        if images_shape[-1] != self.width:
            raise ValueError(
                "The images must have `width` features at each pixel. Received: shape "
                f"{tuple(images_shape)} with width={self.width}. Put a 1x1 convolution "
                f"with {self.width} filters before this layer."
            )
        self.mix.build(images_shape)
        self.join.build(images_shape)
        freeze_parts(self)

    def compute_output_shape(self, images_shape: Shape) -> Shape:
        return images_shape

    def call(self, images: Tensor) -> Tensor:
        mixed = self.mix(self.activation(images))  # B H W D
        return images + self.join(self.activation(mixed))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "width": self.width,
            "kernel_size": self.kernel_size,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def depth_to_space(images: Tensor) -> Tensor:
    """Rearrange images `(B, H, W, 4 D)` to `(B, 2 H, 2 W, D)`."""
    _, height, width, features = ops.shape(images)
    squares = ops.reshape(images, (-1, height, width, 2, 2, features // 4))
    squares = ops.transpose(squares, (0, 1, 3, 2, 4, 5))  # B H 2 W 2 D
    return ops.reshape(squares, (-1, 2 * height, 2 * width, features // 4))


def check_divides(images_shape: Shape, patch_size: int) -> None:
    """Raise if images of known size cannot be divided into patches."""
    has_rest = any(size is not None and size % patch_size for size in images_shape[1:3])
    if len(images_shape) != 4 or has_rest:
        raise ValueError(
            "Images must have shape (B, H, W, C), with H and W multiples of "
            f"`patch_size`. Received: shape {tuple(images_shape)} with "
            f"patch_size={patch_size}. Pad or resize the images, or use a smaller "
            "`patch_size`."
        )
