"""Text in, pictures out: a model that draws, with the vocabulary of its captions.

Axes in shape comments: B captions, N pictures, H height, W width, C channels.
"""

import keras
import numpy as np

from kseq.text.loading import Loadable
from kseq.text.pipeline import checked, deserialize_parts, encode_some, serialize_parts

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

    def get_config(self):
        return {**super().get_config(), **serialize_parts(self, PARTS)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**deserialize_parts(config, PARTS, custom_objects))


def pillow():
    """The module `PIL.Image`, or an `ImportError` that says how to get it."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "Pictures need Pillow. Install it with `pip install kseq[plots]`."
        ) from error
    return Image
