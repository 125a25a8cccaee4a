"""Generated images: the result of `draw`, and a Keras model that computes it.

Axes in shape comments: B batch, N images of a caption, H height, W width of an image,
C channels, R rows, G columns of the grid of tokens, S words of the caption.
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from kseq.builders.exporting import Exported
from kseq.builders.image_tokenizer import ImageTokenizer
from kseq.builders.image_tokens import FIRST_CODE
from kseq.typing import Tensor, Tree


@dataclasses.dataclass(frozen=True)
class Drawings:
    """Generated images, N for each of B captions, best first.

    Attributes:
        images: Floats from 0 to 1, `(B, N, H, W, C)`.
        log_probs: Log-probabilities of the tokens, `(B, N)`.
        ids: Codes of the tokenizer, integers `(B, N, R * G)`, row by row.
        attention: Attention of each token to the caption, `(B, N, ..., R * G, S)`, or
            None.
    """

    images: np.ndarray = dataclasses.field(repr=False)
    log_probs: np.ndarray
    ids: np.ndarray = dataclasses.field(repr=False)
    attention: np.ndarray | None = dataclasses.field(default=None, repr=False)


class Drawing(Exported):
    """Keras model of a search and of the images that it generates.

    Args:
        writing: The search, a Keras model.
        tokenizer: The image tokenizer.

    Call arguments:
        inputs: As for `Exported`.

    Returns:
        The fields of a `kseq.decoding.Generation` by name, and "images": floats from 0
        to 1, `(B, N, H, W, C)`.
    """

    def __init__(self, writing: keras.Model, tokenizer: ImageTokenizer) -> None:
        super().__init__(writing)
        self.tokenizer = tokenizer

    def call(self, inputs: dict[str, Tree]) -> dict[str, Tensor]:
        outputs = super().call(inputs)
        # A hypothesis that constraints rule out has no tokens.
        ids = ops.maximum(outputs["token_ids"] - FIRST_CODE, 0)
        return {**outputs, "images": self.tokenizer.pictures(ids)}
