"""Models that tell which text belongs to which picture.

Axes in shape comments: B batch, N pictures of a text, S text steps, E width of the
vectors that are compared, H height, W width of a picture, C channels.
"""

import keras
import numpy as np
from keras import ops

from kseq.builders.ensemble import inputs_of
from kseq.builders.many_to_one import many_to_one
from kseq.builders.row_checks import token_rows
from kseq.builders.token_inputs import TokenInputs
from kseq.layers import CosineSimilarity
from kseq.layers.backends import predict
from kseq.layers.saving import WholeFiles
from kseq.layers.validation import positive_integer


def text_image_matcher(text, image, width=256, name="text_image_matcher"):
    """A model that tells which text of a batch belongs to which of its pictures.

        texts ────text tower───> (B,E) ──┐
                                         ├─ cosines, scaled ─> logits (B,B)
        pictures ──image tower─> (B,E) ──┘

    A small CLIP. It learns from pairs alone, by plain `fit` with
    `kseq.training.ContrastiveLoss`: the other pictures of a batch are wrong answers, so
    large batches teach more. Trained, `score` tells how well pictures fit their texts.

    Args:
        text: Model with one input, token ids, and one vector for each, `(B, E)`, such
            as `kseq.many_to_one(8_000, num_outputs=64)`; or the size of a vocabulary,
            short for a Transformer of two layers of this `width`, whose mean over the
            steps a dense layer brings to the E of `image`.
        image: Model with one input, pictures, and one vector for each, `(B, E)`, such
            as `kseq.vision_transformer((32, 32, 3), 4, num_outputs=64)`.
        width: Width of a text tower that is given by number.
        name: Name of the model.

    Returns:
        An uncompiled functional `keras.Model` that maps `{"text", "image"}` to logits
        `(B, B)`, a row for each text and a column for each picture, with `score`. The
        towers are its `text_tower` and `image_tower`.

    Raises:
        ValueError: A tower is no functional model with one input that gives one vector
            for each row, or the two give vectors of different widths, or have one name.

    Example:

    >>> import numpy as np
    >>> import kseq
    >>> image = kseq.vision_transformer((8, 8, 3), 4, num_outputs=6, width=8)
    >>> matcher = kseq.text_image_matcher(11, image, width=8)
    >>> matcher.compile("adam", kseq.training.ContrastiveLoss())
    >>> texts = np.array([[4, 5, 0], [6, 7, 8]])
    >>> pictures = np.ones((2, 8, 8, 3))
    >>> history = matcher.fit({"text": texts, "image": pictures}, y=texts, verbose=0)

    How well a text fits each of five pictures of its own:

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
            "The towers must give vectors of one width, and have names of their own. "
            f"Received: text={text.name!r}, which gives {text.output_shape}, and "
            f"image={image.name!r}, which gives {image.output_shape}. Build each with "
            "the same `num_outputs=` and another `name=`."
        )
    inputs = {
        "text": input_like(text, "text"),
        "image": input_like(image, "image"),
    }
    similarity = CosineSimilarity(dtype="float32", name="similarity")
    logits = similarity(text(inputs["text"]), image(inputs["image"]))  # B B
    return TextImageMatcher(inputs, logits, name=name)


@keras.saving.register_keras_serializable(package="kseq")
class TextImageMatcher(TokenInputs, WholeFiles, keras.Model):
    """The functional model that `kseq.text_image_matcher` returns."""

    def __init__(self, *args, **kwargs):  # which Keras knows a graph by
        super().__init__(*args, **kwargs)
        parts = [
            x for x in self.operations if not isinstance(x, keras.layers.InputLayer)
        ]
        if len(parts) != 3 or not isinstance(parts[2], CosineSimilarity):
            raise ValueError(
                "A matcher must have the graph of two towers and a `CosineSimilarity`. "
                f"Received: {[x.name for x in parts]}. Put other operations into the "
                "towers."
            )
        self.text_tower, self.image_tower, self.similarity = parts

    def score(self, texts, images, batch_size=128):
        """Return the cosines of texts with their pictures.

        Args:
            texts: Token ids `(B, S)`, padded, or a list of lists of different lengths,
                which are filled up with 0.
            images: Pictures `(B, H, W, C)`, one for each text, or `(B, N, H, W, C)`, N
                for each.
            batch_size: Most texts, or pictures, to work on at a time.

        Returns:
            Cosines between -1 and 1, a NumPy array `(B,)` or `(B, N)`: what
            `kseq.decoding.best_of` takes.

        Raises:
            ValueError: There is not a picture, or N, for each text, of the size and
                the floats that the model was made for, or `batch_size` is not a
                positive integer.
        """
        positive_integer("batch_size", batch_size)
        texts, images = padded("texts", texts), ops.convert_to_numpy(images)
        axes = len(self.image_tower.input_shape)
        if images.ndim not in (axes, axes + 1) or len(images) != len(texts):
            raise ValueError(
                "`images` must be a picture for each text, shape (B, H, W, C), or N, "
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


def checked_tower(role, model):
    """Returns a model if it gives one vector for each of its one kind of input."""
    is_model = isinstance(model, keras.Model) and getattr(model, "inputs", None)
    has_one = is_model and len(model.inputs) == 1 and len(model.outputs) == 1
    if not has_one or len(model.outputs[0].shape) != 2:
        raise ValueError(
            f"`{role}` must be a functional model with one input, which gives one "
            f"vector for each row, shape (B, E). Received: {role}={model!r}. Such a "
            "model is `kseq.many_to_one`, or `kseq.vision_transformer`, with "
            "`num_outputs=` the width E."
        )
    return model


def check_pictures(images, tower):
    """Refuse pictures that a tower cannot have learned from."""
    shape = tuple(tower.input_shape[1:])
    own = images.shape[images.ndim - len(shape) :]
    is_other = any(a not in (None, b) for a, b in zip(shape, own, strict=True))
    is_float = "float" in images.dtype.name
    is_finite = not is_float or np.isfinite(images.astype("float32")).all()
    if is_other or not is_float or not is_finite:
        raise ValueError(
            f"`images` must be pictures of shape {shape}, of finite floats on the "
            f"scale of training. Received: images of {images.dtype} of shape "
            f"{images.shape}{'' if is_finite else ', some not finite'}. Resize them, "
            "or make floats of them as for training, such as "
            '`images.astype("float32") / 255`.'
        )


def input_like(model, name):
    [symbol] = keras.tree.flatten(inputs_of(model))
    return keras.Input(symbol.shape[1:], dtype=symbol.dtype, name=name)


def padded(name, rows):
    """Token ids as an array; rows of different lengths are filled up with 0."""
    rows = token_rows(name, rows)
    if hasattr(rows, "shape"):
        return rows
    length = max(1, *map(len, rows))
    filled = np.zeros((len(rows), length), "int32")
    for target, row in zip(filled, rows, strict=True):
        target[: len(row)] = row
    return filled


def unit_length(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)
