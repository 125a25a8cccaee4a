"""Text in, pictures out: a model that draws, with the vocabulary of its captions.

Axes in shape comments: B captions, N pictures, H height, W width, C channels.
"""

import keras
import numpy as np

from kseq.text.exporting import export_from_texts
from kseq.text.loading import Loadable
from kseq.text.parts import checked, deserialize_parts, encode_some, serialize_parts

PARTS = ("model", "vocabulary")


@keras.saving.register_keras_serializable(package="kseq")
class TextToImage(Loadable, keras.Model):
    """A model that draws, its tokenizer and its vocabulary, in one `.keras` file.

    Args:
        model: A model with `draw(captions, search)`, such as `kseq.text_to_image`
            builds.
        vocabulary: The `Vocabulary` of the captions.
        **kwargs: `name` and the other arguments of `keras.Model`.

    Call arguments:
        inputs: Whatever the inner model is called with; it goes there unchanged.

    Returns:
        What the inner model returns.

    Raises:
        ValueError: The model has no `draw`, or the vocabulary is none.

    Example:

    >>> import kseq
    >>> words = kseq.text.Vocabulary("word").adapt(["a red heart", "a blue heart"])
    >>> tokenizer = kseq.image_tokenizer((8, 8, 3), patch_size=4, width=8)
    >>> model = kseq.text_to_image(words.size, tokenizer, width=8)
    >>> [[picture]] = kseq.text.TextToImage(model, words).draw(["a red heart"])
    >>> picture.size, picture.mode
    ((8, 8), 'RGB')

    References:
        - [Ramesh et al., 2021](https://arxiv.org/abs/2102.12092), 2
    """

    def __init__(self, model, vocabulary, **kwargs):
        super().__init__(**kwargs)
        if not callable(getattr(model, "draw", None)):
            raise ValueError(
                "`model` must have a method `draw`, as models of `kseq.text_to_image` "
                f"have. Received: model={model!r}."
            )
        self.model = model
        self.vocabulary = checked("vocabulary", vocabulary)
        self.built = True

    def call(self, inputs, training=None):
        return self.model(inputs, training=training)

    def draw(self, captions, search=None, **options):
        """Draws what each caption says.

        Args:
            captions: List of texts, as the vocabulary takes them.
            search: How to search: `kseq.decoding.Sampling(num_draws=4)` and the like.
                None for the way of the model.
            **options: What else the model's `draw` takes.

        Returns:
            For each caption a list of pictures, `PIL.Image.Image`, the most probable
            first.

        Raises:
            ImportError: Pillow is not installed.
            ValueError: A caption has no token.
        """
        image = pillow()
        rows = encode_some(self.vocabulary, captions)
        if not rows:
            return []
        drawn = self.model.draw(rows, search, **options)
        pixels = np.rint(255 * drawn.images).astype("uint8")  # B N H W C
        if pixels.shape[-1] == 1:
            pixels = pixels[..., 0]
        return [[image.fromarray(picture) for picture in row] for row in pixels]

    def export_generation(self, path, search=None):
        """Writes all of it, from texts to pixels, to a SavedModel that needs no kseq.

        The file needs TensorFlow, and tensorflow-text where the vocabulary normalizes
        or cuts into pieces. It is called with "captions", strings `(B,)`, one or more,
        and "seed", `(1,)`, for a `Sampling` without one. It gives "images", integers
        from 0 to 255 `(B, N, H, W, C)`, and "log_probs", `(B, N)`. A caption without a
        token, or one that is not UTF-8, ends the call with an error that names its
        place.

        Args:
            path: The folder.
            search: As for `draw`.

        Raises:
            ValueError: The backend is not TensorFlow.

        Example:

        >>> import os, tempfile
        >>> import keras, kseq
        >>> words = kseq.text.Vocabulary("word").adapt(["a red heart"])
        >>> tokenizer = kseq.image_tokenizer((8, 8, 3), patch_size=4, width=8)
        >>> model = kseq.text_to_image(words.size, tokenizer, width=8)
        >>> path = os.path.join(tempfile.mkdtemp(), "drawer")
        >>> if keras.backend.backend() == "tensorflow":
        ...     kseq.text.TextToImage(model, words).export_generation(path)
        ...     import tensorflow as tf  # what follows needs no kseq
        ...     drawer = tf.saved_model.load(path)
        ...     drawn = drawer.serve({"captions": tf.constant(["a heart"])})
        ...     assert drawn["images"].shape == (1, 1, 8, 8, 3)
        """
        model = Pixels(self.model.generation_model(search))
        export_from_texts(path, "captions", self.vocabulary, model, search)

    def get_config(self):
        return {**super().get_config(), **serialize_parts(self, PARTS)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**deserialize_parts(config, PARTS, custom_objects))


class Pixels(keras.Model):
    """The pictures and log-probabilities of what a model of tensors has drawn."""

    def __init__(self, drawing):
        super().__init__(name="pixels", autocast=False)
        self.drawing = drawing
        self.built = True

    def call(self, inputs):
        outputs = self.drawing(inputs)
        images = keras.ops.cast(keras.ops.round(255 * outputs["images"]), "uint8")
        return {"images": images, "log_probs": outputs["log_probs"]}


def pillow():
    """The module `PIL.Image`, or an `ImportError` that says how to get it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "Pictures need Pillow. Install it with `pip install kseq[plots]`."
        ) from error
    return Image
