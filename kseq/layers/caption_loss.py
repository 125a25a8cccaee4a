"""The loss of a caption that precedes the image in a decoder's input.

Axes in shape comments: B batch, S words of the caption, T steps of the image,
D features, V vocabulary.
"""

from typing import Any

import keras
from keras import ops

from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.validation import not_negative, positive_integer
from kseq.typing import Config, Shape, Tensor, Tree


@keras.saving.register_keras_serializable(package="kseq")
class CaptionLoss(Composite):
    """The cross-entropy of a caption's words, added to the loss of a model.

    Each word but the first is predicted from the decoder's output at the word before
    it. The mean over the words of a batch, times `weight`, is added with `add_loss`.

    Args:
        vocabulary_size: Number of token ids V of captions.
        weight: Weight of the added loss.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        outputs: The decoder's outputs for the image `(B, T, D)`, returned unchanged.
        caption: The decoder's outputs for the words `(B, S, D)`, with their Keras mask.
        token_ids: Integers `(B, S)`, 0 for padding.

    Returns:
        `outputs`.

    Raises:
        ValueError: `vocabulary_size` is not a positive integer, or `weight` is not a
            non-negative number.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import CaptionLoss
    >>> layer = CaptionLoss(vocabulary_size=5, weight=0.5)
    >>> outputs, caption = np.ones((1, 6, 4)), np.zeros((1, 3, 4))
    >>> tuple(layer(outputs, caption, np.array([[3, 2, 4]])).shape)
    (1, 6, 4)
    >>> round(float(layer.losses[0]), 4)  # log(5) / 2: all words are equally likely
    0.8047

    References:
        - [Ramesh et al., 2021](https://arxiv.org/abs/2102.12092), 2.2
    """

    def __init__(self, vocabulary_size: int, weight: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = positive_integer("vocabulary_size", vocabulary_size)
        self.weight = not_negative("weight", weight)
        self.head = keras.layers.Dense(
            self.vocabulary_size, dtype=self.dtype_policy, name="head"
        )
        self.supports_masking = True

    def build(
        self, outputs_shape: Shape, caption_shape: Shape, token_ids_shape: Shape
    ) -> None:
        self.head.build(caption_shape)
        freeze_parts(self)

    def compute_output_shape(
        self, outputs_shape: Shape, caption_shape: Shape, token_ids_shape: Shape
    ) -> Shape:
        return outputs_shape

    def compute_mask(self, inputs: Tensor, previous_mask: Tree = None) -> Tree:
        return previous_mask

    def call(self, outputs: Tensor, caption: Tensor, token_ids: Tensor) -> Tensor:
        logits = ops.cast(self.head(caption[:, :-1]), "float32")  # B S-1 V
        labels = token_ids[:, 1:]
        log_probs = ops.log_softmax(logits, axis=-1)
        log_probs = ops.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
        is_word = ops.cast(labels != 0, "float32")
        mean = ops.sum(log_probs * is_word) / ops.maximum(ops.sum(is_word), 1.0)
        self.add_loss(ops.cast(-self.weight * mean, keras.config.floatx()))
        return outputs

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "weight": self.weight,
        }
