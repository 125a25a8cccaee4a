"""Tokens of images in the vocabulary of a text-to-image model.

Axes in shape comments: V vocabulary.
"""

from typing import Any, Self

import keras
from keras import ops

from kseq.builders.image_tokenizer import ImageTokenizer
from kseq.builders.target_tokens import TargetTokens
from kseq.typing import Config, Tensor

START, END = 2, 3  # never part of an image; 0 is padding and 1 the unknown token
FIRST_CODE = 4  # the token of code 0


@keras.saving.register_keras_serializable(package="kseq")
class ImageTokens(TargetTokens):
    """Identity on the tokens of images, with the tokenizer of the model.

    Args:
        tokenizer: The image tokenizer, which becomes frozen.
        *options: As for `TargetTokens`.
        **kwargs: As for `TargetTokens`.
    """

    def __init__(self, tokenizer: ImageTokenizer, *options: Any, **kwargs: Any) -> None:
        super().__init__(*options, **kwargs)
        self.tokenizer = tokenizer
        self.tokenizer.trainable = False

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        tokenizer = keras.saving.deserialize_keras_object(config["tokenizer"])
        return cls(**{**config, "tokenizer": tokenizer})


def only_codes(logits: Tensor) -> Tensor:
    """Return logits `(..., V)` in which only tokens of an image are possible."""
    is_code = ops.arange(logits.shape[-1], dtype="int32") >= FIRST_CODE
    return ops.where(is_code, logits, -float("inf"))
