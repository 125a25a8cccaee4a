"""Models that match texts and images.

Axes in shape comments: B batch, N images of a text, S text steps, E width of the
vectors that are compared, H height, W width of an image, C channels.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from kseq.builders.ensemble import inputs_of
from kseq.builders.many_to_one import many_to_one
from kseq.builders.row_checks import token_rows
from kseq.builders.token_inputs import TokenInputs
from kseq.builders.trainable import TrainableModel
from kseq.layers import CosineSimilarity
from kseq.layers.backends import predict
from kseq.layers.saving import WholeFiles
from kseq.layers.validation import positive_integer
from kseq.typing import TensorLike


def text_image_matcher(
    text: keras.Model | int,
    image: keras.Model,
    width: int = 256,
    name: str = "text_image_matcher",
) -> "TextImageMatcher":
    """Build a model that tells which text of a batch belongs to which image.

        texts ───text tower───> (B,E) ──┐
                                        ├─ cosines, scaled ─> logits (B,B)
        images ──image tower──> (B,E) ──┘

    This is a small CLIP. It learns from pairs alone, by plain `fit` with
    `kseq.training.ContrastiveLoss`. The other images of a batch are the negatives, so
    larger batches teach more. After training, `score` tells how well images fit texts.

    Args:
        text: Model that maps token ids to one vector each, `(B, E)`, such as
            `kseq.many_to_one(8_000, num_outputs=64)`. A vocabulary size is shorthand
            for a Transformer of two layers of this `width` with mean pooling and a
            dense layer to the E of `image`.
        image: Model that maps images to one vector each, `(B, E)`, such as
            `kseq.vision_transformer((32, 32, 3), 4, num_outputs=64)`.
        width: Width of a text tower given by number.
        name: Name of the model.

    Returns:
        An uncompiled functional `keras.Model` that maps `{"text", "image"}` to logits
        `(B, B)`, with a row for each text and a column for each image. It has `score`,
        and its towers are `text_tower` and `image_tower`.

    Raises:
        ValueError: A tower is not a functional model with one input and one vector for
            each example, or the two have different output widths or the same name.

    Example:

    >>> import numpy as np
    >>> import kseq
    >>> image = kseq.vision_transformer((8, 8, 3), 4, num_outputs=6, width=8)
    >>> matcher = kseq.text_image_matcher(11, image, width=8)
    >>> matcher.compile("adam", kseq.training.ContrastiveLoss())
    >>> texts = np.array([[4, 5, 0], [6, 7, 8]])
    >>> pictures = np.ones((2, 8, 8, 3))
    >>> history = matcher.fit({"text": texts, "image": pictures}, y=texts, verbose=0)

    Score five images for each text:

    >>> matcher.score(texts, np.ones((2, 5, 8, 8, 3))).shape
    (2, 5)

    References:
        - [Radford et al., 2021](https://arxiv.org/abs/2103.00020), 2.3, figure 3
    """
    image = checked_tower("image", image)
    size = image.output_shape[-1]
    if not isinstance(text, keras.Model):
        text = many_to_one(
            text, size, "transformer", "mean", width=width, name="text_tower"
        )
    text = checked_tower("text", text)
    if text.output_shape[-1] != size or text.name == image.name:
        raise ValueError(
            "The towers must return vectors of one width, and have different names. "
            f"Received: text={text.name!r}, which returns {text.output_shape}, and "
            f"image={image.name!r}, which returns {image.output_shape}. Build each "
            "with the same `num_outputs=` and another `name=`."
        )
    inputs = {
        "text": input_like(text, "text"),
        "image": input_like(image, "image"),
    }
    similarity = CosineSimilarity(dtype="float32", name="similarity")
    logits = similarity(text(inputs["text"]), image(inputs["image"]))  # B B
    return TextImageMatcher(inputs, logits, name=name)


@keras.saving.register_keras_serializable(package="kseq")
class TextImageMatcher(TokenInputs, TrainableModel, WholeFiles, keras.Model):
    """Functional model that `kseq.text_image_matcher` returns."""

    def __init__(
        self, *args: Any, **kwargs: Any
    ) -> None:  # marks a functional model for Keras
        super().__init__(*args, **kwargs)
        parts = [
            x for x in self.operations if not isinstance(x, keras.layers.InputLayer)
        ]
        if len(parts) != 3 or not isinstance(parts[2], CosineSimilarity):
            raise ValueError(
                "A matcher must have the graph of two towers and a `CosineSimilarity`. "
                f"Received: {[x.name for x in parts]}. Move other operations into the "
                "towers."
            )
        self.text_tower, self.image_tower, self.similarity = parts

    def score(
        self, texts: TensorLike, images: TensorLike, batch_size: int = 128
    ) -> np.ndarray:
        """Return the cosines of texts with their images.

        Args:
            texts: Token ids `(B, S)`, padded, or a list of lists of different lengths,
                which are padded with 0.
            images: Images `(B, H, W, C)`, one for each text, or `(B, N, H, W, C)`, N
                for each.
            batch_size: Maximum number of texts, or images, per batch.

        Returns:
            Cosines between -1 and 1, a NumPy array `(B,)` or `(B, N)`, which
            `kseq.decoding.best_of` accepts.

        Raises:
            ValueError: There is not one image, or N, for each text; the images are not
                finite floats of the right size; or `batch_size` is not a positive
                integer.
        """
        positive_integer("batch_size", batch_size)
        texts, images = padded("texts", texts), ops.convert_to_numpy(images)
        axes = len(self.image_tower.input_shape)
        if images.ndim not in (axes, axes + 1) or len(images) != len(texts):
            raise ValueError(
                "`images` must be an image for each text, shape (B, H, W, C), or N, "
                f"shape (B, N, H, W, C). Received: images of shape {images.shape} for "
                f"{len(texts)} texts."
            )
        check_pictures(images, self.image_tower)
        pictures = images.reshape(-1, *images.shape[1 - axes :])  # B*N H W C
        x = predict(self.text_tower, texts, batch_size)
        y = predict(self.image_tower, pictures, batch_size)
        x, y = (unit_length(vectors.astype("float32")) for vectors in (x, y))
        y = y.reshape(*images.shape[: 1 - axes], -1)  # B E, or B N E
        return (x.reshape(len(x), *[1] * (y.ndim - 2), -1) * y).sum(-1)


def checked_tower(role: str, model: Any) -> keras.Model:
    """Return a model if it maps one input to one vector for each example."""
    is_model = isinstance(model, keras.Model) and getattr(model, "inputs", None)
    has_one = is_model and len(model.inputs) == 1 and len(model.outputs) == 1
    if not has_one or len(model.outputs[0].shape) != 2:
        raise ValueError(
            f"`{role}` must be a functional model with one input that returns one "
            f"vector for each example, shape (B, E). Received: {role}={model!r}. Use "
            "`kseq.many_to_one` or `kseq.vision_transformer` with the width E as "
            "`num_outputs=`."
        )
    return model


def check_pictures(images: np.ndarray, tower: keras.Model) -> None:
    """Raise unless images have the shape and type of the tower's training images."""
    shape = tuple(tower.input_shape[1:])
    own = images.shape[images.ndim - len(shape) :]
    is_other = any(a not in (None, b) for a, b in zip(shape, own, strict=True))
    is_float = "float" in images.dtype.name
    is_finite = not is_float or np.isfinite(images.astype("float32")).all()
    if is_other or not is_float or not is_finite:
        raise ValueError(
            f"`images` must be images of shape {shape}, of finite floats on the "
            f"scale of training. Received: images of {images.dtype} of shape "
            f"{images.shape}{'' if is_finite else ', some not finite'}. Resize them, "
            "or convert them to floats as for training, such as "
            '`images.astype("float32") / 255`.'
        )


def input_like(model: keras.Model, name: str) -> keras.KerasTensor:
    """Return a new input like that of a model."""
    [symbol] = keras.tree.flatten(inputs_of(model))
    return keras.Input(symbol.shape[1:], dtype=symbol.dtype, name=name)


def padded(name: str, rows: Any) -> np.ndarray:
    """Return token ids as an array, padded with 0."""
    rows = token_rows(name, rows)
    if hasattr(rows, "shape"):
        return rows
    length = max(1, *map(len, rows))
    filled = np.zeros((len(rows), length), "int32")
    for target, row in zip(filled, rows, strict=True):
        target[: len(row)] = row
    return filled


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Return vectors scaled to length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
