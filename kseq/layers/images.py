"""Images: how pixels become vectors on a grid, and how such vectors become pixels.

Both layers are convolutions with residual blocks. Most of their work is done on the
grid, which has fewer places than the image has pixels.

Axes in shape comments: B batch, H height, W width of an image, C channels, R rows,
G columns of the grid, D width of a vector.
"""

import keras
from keras import ops

from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.initializers import initializer_of
from kseq.layers.validation import positive_integer


class ImageCoder(Composite):
    """The base of both ways: blocks on the grid, and a stage for each halving.

    A stage has half of the width of the one behind it, and twice its sides.
    """

    def __init__(
        self,
        patch_size,
        width=128,
        num_blocks=2,
        kernel_size=3,
        activation="silu",
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.patch_size = positive_integer("patch_size", patch_size)
        self.num_stages = self.patch_size.bit_length() - 1
        if self.patch_size != 1 << self.num_stages:
            raise ValueError(
                "`patch_size` must be a power of two, since each stage halves the "
                f"sides of an image. Received: patch_size={patch_size}. Take "
                f"{1 << self.num_stages} or {2 << self.num_stages}."
            )
        self.width = positive_integer("width", width)
        self.num_blocks = positive_integer("num_blocks", num_blocks)
        self.kernel_size = positive_integer("kernel_size", kernel_size)
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        if self.width % self.patch_size:
            raise ValueError(
                "`width` must be a multiple of `patch_size`, as each stage has half of "
                f"the next one's. Received: width={width}, patch_size={patch_size}."
            )

    def stage_widths(self):
        """The width of each stage, from the pixels to the grid."""
        return [self.width >> n for n in range(self.num_stages - 1, -1, -1)]

    def convolution(self, name, filters, kernel_size=1, strides=1):
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

    def block(self, name, filters):
        return ResidualBlock(
            filters,
            self.kernel_size,
            self.activation,
            kernel_initializer=initializer_of(name, self.kernel_initializer),
            dtype=self.dtype_policy,
            name=name,
        )

    def get_config(self):
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
    """Reads an image as vectors on a grid, one for each patch.

    Each stage halves the sides by a convolution of stride 2; residual blocks follow,
    most of them on the grid. A vector knows of the pixels around its patch too, unless
    the blocks have kernels of size 1: then equal patches have equal vectors.

    Args:
        patch_size: Height and width of the patch that a vector stands for, a power of
            two.
        width: Size D of the vectors inside; a stage before has half of it.
        num_blocks: Number of residual blocks on the grid.
        kernel_size: Height and width of the kernels that mix places, in the blocks.
        activation: Activation inside the blocks.
        kernel_initializer: Initializer of all kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        images: `(B, H, W, C)`, best about between -1 and 1.

    Returns:
        Vectors `(B, H / patch_size, W / patch_size, D)`.

    Raises:
        ValueError: A size is not a positive integer, `patch_size` is not a power of
            two, or the images do not divide into patches.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import ImageEncoder
    >>> tuple(ImageEncoder(patch_size=4, width=8)(np.ones((2, 8, 12, 3))).shape)
    (2, 2, 3, 8)

    References:
        - [van den Oord et al., 2017](https://arxiv.org/abs/1711.00937), 4.1
        - [He et al., 2016](https://arxiv.org/abs/1603.05027), 3 (where to activate)
    """

    def build(self, images_shape):
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

    def compute_output_shape(self, images_shape):
        check_divides(images_shape, self.patch_size)
        grid = (size and size // self.patch_size for size in images_shape[1:3])
        return (images_shape[0], *grid, self.width)

    def call(self, images):
        x = images  # B H W C
        for part in self.parts:
            x = part(x)
        return self.activation(x)  # B R G D


@keras.saving.register_keras_serializable(package="kseq")
class ImageDecoder(ImageCoder):
    """Draws an image from vectors on a grid, the reverse of `ImageEncoder`.

    Residual blocks on the grid; then each stage doubles the sides by a convolution with
    four times the features, which become the four places of a square.

    Args:
        patch_size: Height and width of the patch that a vector stands for, a power of
            two.
        channels: Number of channels C of the image.
        width: Size of the vectors on the grid; each stage has half of it.
        num_blocks: Number of residual blocks on the grid.
        kernel_size: Height and width of the kernels that mix places, in the blocks.
        activation: Activation inside the blocks.
        kernel_initializer: Initializer of all kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        grids: `(B, R, G, D)`.

    Returns:
        `(B, patch_size R, patch_size G, C)`, any numbers.

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
        - [Shi et al., 2016](https://arxiv.org/abs/1609.05158), 3.2 (doubling)
    """

    def __init__(
        self,
        patch_size,
        channels=3,
        width=128,
        num_blocks=2,
        kernel_size=3,
        activation="silu",
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
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

    def build(self, grids_shape):
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

    def compute_output_shape(self, grids_shape):
        sides = (size and size * self.patch_size for size in grids_shape[1:3])
        return (grids_shape[0], *sides, self.channels)

    def call(self, grids):
        x = self.read(grids)  # B R G D
        for block in self.blocks:
            x = block(x)
        for number, doubling in enumerate(self.doublings):
            x = doubled(doubling(self.activation(x)))
            if number < len(self.smoothings):
                x = self.smoothings[number](x)
        return self.write(self.activation(x))  # B H W C

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}


@keras.saving.register_keras_serializable(package="kseq")
class ResidualBlock(Composite):
    """Adds what two convolutions make of an image: `x + W2 a(W1 * a(x))`.

    Args:
        width: Size D of the vectors, those of the input too.
        kernel_size: Height and width of the first kernel; the second is 1.
        activation: Activation `a`.
        kernel_initializer: Initializer of both kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        images: `(B, H, W, D)`.

    Returns:
        `(B, H, W, D)`.

    Raises:
        ValueError: A size is not a positive integer, or the images are not as wide.

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
        width,
        kernel_size=3,
        activation="silu",
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
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

    def build(self, images_shape):
        if images_shape[-1] != self.width:
            raise ValueError(
                "The images must have `width` features at each place. Received: shape "
                f"{tuple(images_shape)} with width={self.width}. A convolution of "
                "kernel 1 before this layer makes it so."
            )
        self.mix.build(images_shape)
        self.join.build(images_shape)
        freeze_parts(self)

    def compute_output_shape(self, images_shape):
        return images_shape

    def call(self, images):
        mixed = self.mix(self.activation(images))  # B H W D
        return images + self.join(self.activation(mixed))

    def get_config(self):
        return {
            **super().get_config(),
            "width": self.width,
            "kernel_size": self.kernel_size,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def doubled(images):
    """Images `(B, H, W, 4 D)` as those of twice their sides, `(B, 2 H, 2 W, D)`."""
    _, height, width, features = ops.shape(images)
    squares = ops.reshape(images, (-1, height, width, 2, 2, features // 4))
    squares = ops.transpose(squares, (0, 1, 3, 2, 4, 5))  # B H 2 W 2 D
    return ops.reshape(squares, (-1, 2 * height, 2 * width, features // 4))


def check_divides(images_shape, patch_size):
    """Refuse images that do not divide into patches, where their sides are known."""
    has_rest = any(size is not None and size % patch_size for size in images_shape[1:3])
    if len(images_shape) != 4 or has_rest:
        raise ValueError(
            "Images must have a shape (B, H, W, C) with sides that divide by "
            f"`patch_size`. Received: shape {tuple(images_shape)} with "
            f"patch_size={patch_size}. Pad or resize them, or take a smaller "
            "`patch_size`."
        )
