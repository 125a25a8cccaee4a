"""Embeddings: how a model's input becomes a sequence of vectors.

Axes in shape comments: B batch, S steps, D width.
"""

import keras

from kseq.layers.arguments import positive_integer, rate
from kseq.layers.masking import padding_mask


@keras.saving.register_keras_serializable(package="kseq")
class TokenEmbedding(keras.layers.Layer):
    """A learned vector for each token.

    The padding token makes the Keras mask, so every layer behind this one knows which
    steps are real.

    Args:
        vocabulary_size: Number of token ids, padding and the other special tokens
            included.
        width: Size D of the vectors.
        dropout: Share of each sequence's features to drop in training, the same ones
            at every step.
        pad_token_id: The id that fills up short sequences.
        embeddings_initializer: Initializer of the table.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        token_ids: Integers `(B, S)`.

    Returns:
        Vectors `(B, S, D)`, with the Keras mask `token_ids != pad_token_id`.

    Raises:
        ValueError: A size is not a positive integer, or `dropout` is not in [0, 1).

    Example:

    >>> import numpy as np
    >>> from kseq.layers import TokenEmbedding
    >>> vectors = TokenEmbedding(vocabulary_size=11, width=5)(np.array([[4, 2, 0]]))
    >>> tuple(vectors.shape)
    (1, 3, 5)

    References:
        - [Bengio et al., 2003](https://www.jmlr.org/papers/v3/bengio03a.html), 2
        - [Gal and Ghahramani, 2016](https://arxiv.org/abs/1512.05287), 4 (dropout)
    """

    def __init__(
        self,
        vocabulary_size,
        width,
        dropout=0.0,
        pad_token_id=0,
        embeddings_initializer="uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.vocabulary_size = positive_integer("vocabulary_size", vocabulary_size)
        self.width = positive_integer("width", width)
        self.dropout = rate("dropout", dropout)
        self.pad_token_id = pad_token_id
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.embedding = keras.layers.Embedding(
            self.vocabulary_size,
            self.width,
            embeddings_initializer=self.embeddings_initializer,
            dtype=self.dtype_policy,
            name="embedding",
        )
        self.dropout_layer = sequence_dropout(self.dropout, self.dtype_policy)
        self.supports_masking = True

    def symbolic_input(self, name):
        return keras.Input((None,), dtype="int32", name=name)

    def build(self, token_ids_shape):
        self.embedding.build(token_ids_shape)

    def compute_mask(self, token_ids, previous_mask=None):
        return padding_mask(token_ids, self.pad_token_id)

    def call(self, token_ids, training=False):
        return self.dropout_layer(self.embedding(token_ids), training=training)  # B S D

    def get_config(self):
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "width": self.width,
            "dropout": self.dropout,
            "pad_token_id": self.pad_token_id,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
        }


def sequence_dropout(dropout, dtype):
    """Dropout of `(B, S, D)` that drops the same features at every step.

    One mask for a sequence regularises recurrent networks better than a new one at
    each step, and needs S times fewer random numbers.
    """
    return keras.layers.Dropout(dropout, noise_shape=(None, 1, None), dtype=dtype)
