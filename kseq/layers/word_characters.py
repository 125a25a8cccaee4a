"""Word embedding with character features.

Axes in shape comments: B batch, S steps, C characters of a word, N = B * S words,
D width, U units.
"""

from typing import Any, Literal

import keras
from keras import ops

from kseq.layers.composition import freeze_parts
from kseq.layers.dropout import sequence_dropout
from kseq.layers.masking import apply_mask, padding_mask
from kseq.layers.pooling import MaxPooling
from kseq.layers.recurrent.encoder import RecurrentEncoder
from kseq.layers.sequence_embedding import SequenceEmbedding
from kseq.layers.validation import known_ids, one_of, positive_integer, rate
from kseq.typing import Config, Shape, Tensor

NETWORKS = ("convolution", "rnn", "lstm", "gru")


@keras.saving.register_keras_serializable(package="kseq")
class WordCharacterEmbedding(SequenceEmbedding):
    """Word embedding joined with features of the word's characters.

    The vector of a rare word is poorly trained, and a new word has none. But spelling
    is shared: from characters a tagger learns endings, capitals, digits and parts of
    compounds, in any script. A network reads the characters of each word separately,
    and the maximum of each feature over the characters is kept.

    The ids come from a `kseq.text.WordCharacterVocabulary`. Drop some words in training
    (`kseq.training.TokenDropout`), so that the model learns to use characters.

    Args:
        vocabulary_size: Number of word ids, including special ones.
        num_characters: Number of character ids, including special ones.
        width: Size D of the vectors: the word vector and the character features.
        character_units: Size U of the character features.
        character_width: Size of the vector of each character.
        network: Network that reads the characters: `"convolution"`, or a bidirectional
            `"rnn"`, `"lstm"` or `"gru"`.
        kernel_size: Number of characters that a convolution sees at a time.
        dropout: Fraction of each sequence's features to drop in training, the same ones
            at every step.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        token_ids: Integers `(B, S, 1 + C)`: for each word its id, then the ids of its
            characters, padded with 0.

    Returns:
        Vectors `(B, S, D)`, with the Keras mask of the words whose id is not 0.

    Raises:
        ValueError: A size is not a positive integer; `width` is not greater than
            `character_units`; the network is unknown; `dropout` is not in [0, 1); or
            the ids have another shape, or are not in the vocabulary.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import WordCharacterEmbedding
    >>> embedding = WordCharacterEmbedding(11, 7, width=9, character_units=5)
    >>> token_ids = np.array([[[4, 5, 6, 4], [1, 6, 0, 0]]])  # the second word is new
    >>> tuple(embedding(token_ids).shape)
    (1, 2, 9)

    References:
        - [Ma and Hovy, 2016](https://arxiv.org/abs/1603.01354), 2.1 (convolution)
        - [Lample et al., 2016](https://arxiv.org/abs/1603.01360), 4.1 (recurrent)
    """

    padding = 0

    def __init__(
        self,
        vocabulary_size: int,
        num_characters: int,
        width: int,
        character_units: int = 64,
        character_width: int = 32,
        network: Literal["convolution", "rnn", "lstm", "gru"] = "convolution",
        kernel_size: int = 3,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = positive_integer("vocabulary_size", vocabulary_size)
        self.num_characters = positive_integer("num_characters", num_characters)
        self.width = positive_integer("width", width)
        self.character_units = positive_integer("character_units", character_units)
        if self.character_units >= self.width:
            raise ValueError(
                "`width` must be greater than `character_units`, which are part of it. "
                f"Received: width={width}, character_units={character_units}."
            )
        self.character_width = positive_integer("character_width", character_width)
        self.network = one_of("network", network, NETWORKS)
        self.kernel_size = positive_integer("kernel_size", kernel_size)
        self.dropout = rate("dropout", dropout)
        own_width = self.width - self.character_units
        self.words = self._table("words", self.vocabulary_size, own_width)
        self.characters = self._table(
            "characters", self.num_characters, self.character_width
        )
        self.reader = self._reader()
        self.pooling = MaxPooling(dtype=self.dtype_policy, name="pooling")
        self.dropout_layer = sequence_dropout(self.dropout, self.dtype_policy)
        self.supports_masking = True

    def _table(self, name: str, size: int, width: int) -> keras.layers.Embedding:
        return keras.layers.Embedding(
            size,
            width,
            dtype=self.dtype_policy,
            name=name,
        )

    def _reader(self) -> keras.layers.Layer:
        options = {"dtype": self.dtype_policy, "name": "reader"}
        if self.network == "convolution":
            return keras.layers.Conv1D(
                self.character_units,
                self.kernel_size,
                padding="same",
                activation="tanh",
                **options,
            )
        return RecurrentEncoder(
            self.network,
            self.character_units,
            bidirectional=True,
            merge_mode="ave",
            **options,
        )

    def symbolic_input(self, name: str) -> keras.KerasTensor:
        return keras.Input((None, None), dtype="int32", name=name)

    def build(self, token_ids_shape: Shape) -> None:
        self.words.build((None, None))
        self.characters.build((None, None))
        self.reader.build((None, None, self.character_width))
        self.pooling.build((None, None, self.character_units))
        freeze_parts(self)

    def compute_output_shape(self, token_ids_shape: Shape) -> Shape:
        return (*token_ids_shape[:-1], self.width)

    def compute_mask(
        self, token_ids: Tensor, previous_mask: Tensor | None = None
    ) -> Tensor:
        return padding_mask(token_ids[..., 0])

    def call(self, token_ids: Tensor, training: bool = False) -> Tensor:
        if len(token_ids.shape) != 3 or token_ids.shape[-1] in (0, 1):
            raise ValueError(
                "`token_ids` must be a row of ids for each word, shape (B, S, 1 + C). "
                f"Received: token_ids of shape {tuple(token_ids.shape)}. Encode texts "
                "with `kseq.text.WordCharacterVocabulary`."
            )
        words, characters = token_ids[..., 0], token_ids[..., 1:]
        words = known_ids("token_ids", words, self.vocabulary_size)
        vectors = self.words(words)  # B S D-U
        characters = known_ids("token_ids", characters, self.num_characters)
        characters = ops.reshape(characters, (-1, ops.shape(characters)[-1]))  # N C
        is_real = padding_mask(characters)
        spelled = apply_mask(self.characters(characters), is_real)
        if self.network == "convolution":
            spelled = self.reader(spelled)  # N C U
        else:
            spelled = self.reader(spelled, mask=is_real)
        spelled = self.pooling(spelled, mask=is_real)  # N U
        spelled = ops.reshape(spelled, (*ops.shape(words), self.character_units))
        vectors = ops.concatenate([vectors, spelled], axis=-1)
        return self.dropout_layer(vectors, training=training)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "num_characters": self.num_characters,
            "width": self.width,
            "character_units": self.character_units,
            "character_width": self.character_width,
            "network": self.network,
            "kernel_size": self.kernel_size,
            "dropout": self.dropout,
        }
