"""Pipelines from text to images: a model with the vocabulary of its captions.

Axes in shape comments: B captions, N images, H height, W width, C channels.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np

from kseq.text.exporting import export_from_texts
from kseq.text.loading import Loadable
from kseq.text.parts import checked, deserialize_parts, encode_some, serialize_parts
from kseq.text.vocabulary import Vocabulary
from kseq.typing import Config, PathLike, Tensor, Texts, Tree

if TYPE_CHECKING:
    from PIL import Image

    from kseq.decoding import Search

PARTS = ("model", "vocabulary")


@keras.saving.register_keras_serializable(package="kseq")
class TextToImage(Loadable, keras.Model):
    """A text-to-image model and the vocabulary of its captions, in one `.keras` file.

    The model contains its image tokenizer.

    Args:
        model: A model with `draw(captions, search)`, such as from `kseq.text_to_image`.
        vocabulary: The `Vocabulary` of the captions.
        **kwargs: `name` and the other arguments of `keras.Model`.

    Call arguments:
        inputs: The inputs of the inner model, passed on unchanged.

    Returns:
        The outputs of the inner model.

    Raises:
        ValueError: The model has no `draw`, or `vocabulary` is not a `Vocabulary`.

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

    def __init__(
        self, model: keras.Model, vocabulary: Vocabulary, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not callable(getattr(model, "draw", None)):
            raise ValueError(
                "`model` must have a method `draw`, as models of `kseq.text_to_image` "
                f"have. Received: model={model!r}."
            )
        self.model = model
        self.vocabulary = checked("vocabulary", vocabulary)
        self.built = True

    def call(self, inputs: Tree, training: bool | None = None) -> Tree:
        return self.model(inputs, training=training)

    def draw(
        self, captions: Texts, search: "Search | None" = None, **options: Any
    ) -> "list[list[Image.Image]]":
        """Generate images for each caption.

        Args:
            captions: List of texts.
            search: The search, such as `kseq.decoding.Sampling(num_draws=4)`. None for
                the default of the model.
            **options: Further arguments of the model's `draw`.

        Returns:
            For each caption a list of images, `PIL.Image.Image`, the most probable
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

    def export_generation(self, path: PathLike, search: "Search | None" = None) -> None:
        """Export a SavedModel from texts to pixels that runs without kseq.

        It needs TensorFlow; if the vocabulary normalizes or has pieces, also
        `import tensorflow_text` before loading. Inputs: "captions", strings `(B,)`, at
        least one, and "seed", `(1,)`, for a `Sampling` without a seed. Outputs:
        "images", integers from 0 to 255 `(B, N, H, W, C)`, and "log_probs", `(B, N)`. A
        caption that has no token, or is not UTF-8, raises an error with its position.

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

    def get_config(self) -> Config:
        return {**super().get_config(), **serialize_parts(self, PARTS)}

    @classmethod
    def from_config(
        cls, config: Config, custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        return cls(**deserialize_parts(config, PARTS, custom_objects))


class Pixels(keras.Model):
    """A model that returns images as integers from 0 to 255, and log-probabilities.

    Args:
        drawing: A model that returns "images" from 0 to 1, and "log_probs".
    """

    def __init__(self, drawing: keras.Model) -> None:
        super().__init__(name="pixels", autocast=False)
        self.drawing = drawing
        self.built = True

    def call(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = self.drawing(inputs)
        images = keras.ops.cast(keras.ops.round(255 * outputs["images"]), "uint8")
        return {"images": images, "log_probs": outputs["log_probs"]}


def pillow() -> ModuleType:
    """Return the module `PIL.Image`; raise if Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "Images need Pillow. Install it with `pip install kseq[plots]`."
        ) from error
    return Image
