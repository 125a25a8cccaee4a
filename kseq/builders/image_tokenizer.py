"""Image tokenizer: an autoencoder from images to token ids and back.

Axes in shape comments: B batch, H height, W width of an image, C channels, R rows,
G columns of the grid, D width of a code.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kseq.builders.trainable import TrainableModel
from kseq.layers import (
    FiniteScalarQuantizer,
    ImageDecoder,
    ImageEncoder,
)
from kseq.layers.backends import predict
from kseq.layers.saving import WholeFiles
from kseq.typing import Config, Tensor, TensorLike, Tree, wraps

MOST_CODES = 2**24


def image_tokenizer(
    image_shape: tuple[int, int, int] | list[int],
    quantizer: Sequence[int] | keras.layers.Layer = (8, 5, 5, 5),
    patch_size: int = 4,
    width: int = 128,
    num_blocks: int = 2,
    encoder: keras.layers.Layer | None = None,
    decoder: keras.layers.Layer | None = None,
    name: str = "image_tokenizer",
) -> "ImageTokenizer":
    """Build an autoencoder that represents an image as a grid of integers.

        images ──encoder──> (B,R,G,D) ──quantizer──> codes ──decoder──> images
                                            │
                                           ids (B, R * G)

    Train it with plain `fit` to reconstruct its inputs:

        tokenizer.compile("adam", loss="mse")
        tokenizer.fit(images, images, epochs=10)

    The loss compares the images: `"mse"` for the best signal-to-noise ratio, `"mae"`
    for sharper edges. A `VectorQuantizer` adds its commitment loss. `fit` also reports
    the perplexity of the codes. It equals their number if all are used equally often.

    Args:
        image_shape: `(H, W, C)` of the images.
        quantizer: Layer `(..., D) -> (..., D)` with `width`, `num_codes`,
            `codes_to_ids` and `ids_to_codes`, such as `VectorQuantizer`. A list of
            levels is shorthand for `FiniteScalarQuantizer(levels)`: `(8, 5, 5, 5)`
            gives 1,000 codes and `(8, 6, 5)` 240.
        patch_size: Height and width of the patch of one id, a power of two.
        width: Size of the vectors inside the encoder and the decoder.
        num_blocks: Number of residual blocks of the encoder, and of the decoder.
        encoder: Layer `(B, H, W, C) -> (B, R, G, any)` that replaces
            `ImageEncoder(patch_size, width, num_blocks)`.
        decoder: Layer `(B, R, G, D) -> (B, H, W, C)` that replaces
            `ImageDecoder(patch_size, C, width, num_blocks)`.
        name: Name of the model.

    Returns:
        An uncompiled functional `keras.Model` that maps images `(B, H, W, C)` from 0 to
        1 to a dictionary of `"images"`, the reconstructions, and `"codes"`
        `(B, R, G, D)`. Its `encode` maps images to ids, and its `decode` ids to images.

    Raises:
        ValueError: A size is not a positive integer, the images do not divide into
            patches, there are more than 2^24 codes, or a component does not fit the
            others.

    Example:

    >>> import numpy as np
    >>> import kseq
    >>> tokenizer = kseq.image_tokenizer((8, 12, 3), patch_size=4, width=8)
    >>> ids = tokenizer.encode(np.zeros((2, 8, 12, 3)))
    >>> ids.shape, tokenizer.decode(ids).shape
    ((2, 6), (2, 8, 12, 3))

    References:
        - [van den Oord et al., 2017](https://arxiv.org/abs/1711.00937), 3.1
        - [Ramesh et al., 2021](https://arxiv.org/abs/2102.12092), 2.1
        - [Mentzer et al., 2023](https://arxiv.org/abs/2309.15505), 3.1
    """
    is_shape = isinstance(image_shape, (list, tuple)) and len(image_shape) == 3
    if not is_shape or not all(map(is_size, image_shape)):
        raise ValueError(
            "`image_shape` must be (height, width, channels), positive integers. "
            f"Received: image_shape={image_shape!r}. Grayscale images have one "
            "channel: (28, 28, 1)."
        )
    channels = image_shape[-1]
    options: dict[str, Any] = {"width": width, "num_blocks": num_blocks}
    if encoder is None:
        encoder = ImageEncoder(patch_size, **options, name="encoder")
    if decoder is None:
        decoder = ImageDecoder(patch_size, channels, **options, name="decoder")
    quantize: Any = quantizer
    if isinstance(quantizer, (list, tuple)):
        quantize = FiniteScalarQuantizer(quantizer, name="quantizer")
    check_quantizer(quantize)

    images = keras.Input(tuple(image_shape), name="images")
    scaled = keras.layers.Rescaling(2.0, -1.0, name="scale")(images)
    features = encoder(scaled)  # B R G any
    features = keras.layers.Dense(quantize.width, name="narrow")(features)
    codes = quantize(features)  # B R G D
    pixels = decoder(codes)  # B H W C
    if tuple(pixels.shape[1:]) != tuple(image_shape):
        raise ValueError(
            "The decoder must return images of `image_shape`. Received: "
            f"{tuple(pixels.shape[1:])} with image_shape={tuple(image_shape)}. Use "
            "the same `patch_size` for encoder and decoder."
        )
    pixels = keras.layers.Activation("sigmoid", dtype="float32", name="pixels")(pixels)
    return ImageTokenizer(images, {"images": pixels, "codes": codes}, name=name)


@keras.saving.register_keras_serializable(package="kseq")
class ImageTokenizer(TrainableModel, WholeFiles, keras.Model):
    """Model that `kseq.image_tokenizer` returns.

    Attributes:
        quantizer: The layer that quantizes vectors to codes.
        num_codes: Number of different ids.
        grid: Rows and columns of the grid of ids.
    """

    @property
    def quantizer(self) -> keras.layers.Layer:
        """The layer that quantizes vectors to codes."""
        return self.operations[self._quantizer_place()]

    @property
    def num_codes(self) -> int:
        """Number of different ids."""
        return self.quantizer.num_codes

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the grid of ids."""
        return tuple(self.output["codes"].shape[1:3])

    def _quantizer_place(self) -> int:
        """Return the index of the quantizer among the operations."""
        kinds = [hasattr(operation, "codes_to_ids") for operation in self.operations]
        return kinds.index(True)

    def encode(self, images: TensorLike, batch_size: int = 128) -> np.ndarray:
        """Return the ids of images.

        Args:
            images: `(B, H, W, C)`, floats from 0 to 1, or uint8 integers from 0 to 255.
            batch_size: Maximum number of images per batch.

        Returns:
            NumPy array of integers `(B, R * G)`, row by row.

        Raises:
            ValueError: The images have another shape or range.
        """
        images = self.checked_images(images)
        if not len(images):
            return np.zeros((0, math.prod(self.grid)), "int32")
        codes = predict(self._part("images_to_codes"), images, batch_size)
        ids = ops.convert_to_numpy(self.quantizer.codes_to_ids(codes))  # B R G
        return ids.reshape(len(ids), -1)

    def decode(self, ids: TensorLike, batch_size: int = 128) -> np.ndarray:
        """Return the images of ids.

        Args:
            ids: Integers `(..., R * G)`, row by row.
            batch_size: Maximum number of images per batch.

        Returns:
            NumPy array of floats from 0 to 1, `(..., H, W, C)`.

        Raises:
            ValueError: The ids are not integers from 0 to below the number of codes, or
                their number differs from the size of the grid.
        """
        ids, (rows, columns) = np.asarray(ids), self.grid
        is_id = ids.dtype.kind in "iu" and ids.ndim and ids.shape[-1] == rows * columns
        if not is_id or (ids.size and not 0 <= ids.min() <= ids.max() < self.num_codes):
            raise ValueError(
                f"`ids` must be integers from 0 to {self.num_codes - 1} of shape (..., "
                f"{rows * columns}), one for each place of the grid. Received: ids of "
                f"{ids.dtype} of shape {ids.shape}{between(ids)}. `encode(images)` "
                "returns such ids."
            )
        if not ids.size:
            return np.zeros((*ids.shape[:-1], *self.input.shape[1:]), "float32")
        grids = ids.reshape(-1, rows, columns)
        codes = ops.convert_to_numpy(self.quantizer.ids_to_codes(grids))
        images = predict(self._part("codes_to_images"), codes, batch_size)
        return images.reshape(*ids.shape[:-1], *images.shape[1:])

    def pictures(self, ids: Tensor) -> Tensor:
        """Return images of unchecked ids `(..., R * G)`, tensors for use in graphs."""
        grids = ops.reshape(ids, (-1, *self.grid))
        images = self._part("codes_to_images")(self.quantizer.ids_to_codes(grids))
        return ops.reshape(images, (*ops.shape(ids)[:-1], *images.shape[1:]))

    def checked_images(self, images: TensorLike) -> np.ndarray:
        """Return images as floats from 0 to 1, or raise a `ValueError`."""
        images, shape = np.asarray(images), tuple(self.input.shape[1:])
        is_bytes = images.dtype == "uint8"
        numbers = images / np.float32(255) if is_bytes else images
        if images.shape[1:] != shape or not between_0_and_1(numbers):
            raise ValueError(
                f"Images must have the shape (B, {', '.join(map(str, shape))}) and be "
                "floats from 0 to 1 or uint8. Received: images of "
                f"{images.dtype} of shape {images.shape}{between(images)}. Resize "
                "them, or divide them by 255."
            )
        return numbers.astype("float32")

    def _part(self, name: str) -> keras.Model:
        """Return a model of one direction, from images to codes or back."""
        parts = self.__dict__.setdefault("_ways", {})
        if name not in parts:
            codes = self.output["codes"]
            if name == "images_to_codes":
                parts[name] = keras.Model(self.input, codes, name=name)
            else:
                inputs = keras.Input(codes.shape[1:], dtype=codes.dtype, name="codes")
                pixels = inputs
                for layer in self.operations[self._quantizer_place() + 1 :]:
                    pixels = layer(pixels)
                parts[name] = keras.Model(inputs, pixels, name=name)
        return parts[name]

    @wraps(keras.Model.fit)
    def fit(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        for images in (x, y, *(kwargs.get("validation_data") or ())[:2]):
            if isinstance(images, np.ndarray):
                check_scale(images)
        return super().fit(x, y, *args, **kwargs)

    def compute_loss(
        self,
        x: Tree = None,
        y: Tree = None,
        y_pred: Tree = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        return super().compute_loss(x, y, y_pred["images"], *args, **kwargs)

    def compute_metrics(
        self, x: Tree, y: Tree, y_pred: Tree, sample_weight: Tensor | None = None
    ) -> dict[str, Any]:
        results = super().compute_metrics(x, y, y_pred["images"], sample_weight)
        ids = self.quantizer.codes_to_ids(y_pred["codes"])
        if not hasattr(self, "perplexity"):
            self.perplexity = CodePerplexity(self.num_codes)
        self.perplexity.update_state(ids)
        return {**results, self.perplexity.name: self.perplexity.result()}


@keras.saving.register_keras_serializable(package="kseq")
class CodePerplexity(keras.metrics.Metric):
    """Perplexity of codes: the number of equally frequent codes of the same entropy.

    `exp(-sum p log p)`, with `p` the fraction of each code in all codes so far.

    Args:
        num_codes: Number of codes N.
        name: Name of the metric.
        dtype: Dtype of the counts.

    Example:

    >>> import numpy as np
    >>> from kseq.builders.image_tokenizer import CodePerplexity
    >>> metric = CodePerplexity(num_codes=5)
    >>> metric.update_state(np.array([[0, 3], [3, 0]]))
    >>> round(float(metric.result()), 4)
    2.0

    References:
        - [van den Oord et al., 2017](https://arxiv.org/abs/1711.00937), 4
    """

    def __init__(
        self, num_codes: int, name: str = "perplexity", dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.num_codes = num_codes
        self.counts = self.add_variable((num_codes,), "zeros", name="counts")

    def update_state(self, ids: TensorLike, sample_weight: Any = None) -> None:
        """Count ids, integers of any shape; weights are ignored."""
        ids = ops.cast(ops.reshape(ids, (-1,)), "int32")
        ones = ops.ones_like(ids, dtype=self.counts.dtype)
        self.counts.assign_add(ops.segment_sum(ones, ids, self.num_codes))

    def result(self) -> Tensor:
        """Return the perplexity of the codes so far."""
        counts = ops.convert_to_tensor(self.counts)
        shares = counts / ops.maximum(ops.sum(counts), 1)
        logs = ops.log(ops.where(shares > 0, shares, 1))
        return ops.exp(-ops.sum(shares * logs))

    def get_config(self) -> Config:
        return {**super().get_config(), "num_codes": self.num_codes}


def check_quantizer(quantizer: Any) -> None:
    """Raise unless a quantizer has the interface of an image tokenizer."""
    needed = ("width", "num_codes", "codes_to_ids", "ids_to_codes")
    missing = [name for name in needed if not hasattr(quantizer, name)]
    if missing:
        raise ValueError(
            "`quantizer` must be levels such as (8, 5, 5, 5), or a layer with `width`, "
            "`num_codes`, `codes_to_ids` and `ids_to_codes`. Received: quantizer="
            f"{quantizer!r}, without {', '.join(missing)}. Use "
            "`kseq.layers.FiniteScalarQuantizer` or `VectorQuantizer`."
        )
    if quantizer.num_codes > MOST_CODES:
        raise ValueError(
            f"`quantizer` must have {MOST_CODES:,} codes at most. Received: "
            f"{quantizer.num_codes:,}. Use fewer levels, such as (8, 5, 5, 5), 1,000 "
            "codes."
        )


def is_size(value: Any) -> bool:
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_integer and value > 0


def check_scale(images: np.ndarray) -> None:
    """Raise unless training images are floats from 0 to 1."""
    if images.dtype.kind != "f" or not between_0_and_1(images):
        raise ValueError(
            "Training images must be floats from 0 to 1. Received: images of "
            f"{images.dtype}{between(images)}. Divide them by 255: "
            '`pictures.astype("float32") / 255`.'
        )


def between_0_and_1(numbers: np.ndarray) -> bool:
    return numbers.size == 0 or (numbers.min() >= 0 and numbers.max() <= 1)


def between(numbers: np.ndarray) -> str:
    """Return the range of numbers, for a message."""
    if numbers.size == 0 or numbers.dtype.kind not in "iuf":
        return ""
    return f" from {numbers.min():.5g} to {numbers.max():.5g}"
