"""Vocabularies of words and their characters, with a row of ids for each word.

Axes in shape comments: B texts, L words of a text, N words of all texts, C characters.
An axis in parentheses is ragged.
"""

from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from kseq.text.token_ids import Ids
from kseq.text.tokenizers import FIXED, Normalization, chunks
from kseq.text.validation import at_least, one_of, shortened
from kseq.text.vocabulary import OPTIONS, Vocabulary
from kseq.token_rows import TokenRows, smallest
from kseq.typing import Config, Tensor, TensorLike, Texts

if TYPE_CHECKING:
    import tensorflow as tf

SPELLINGS = ("character", *FIXED)
SPLITS = ("word", "word_and_mark", None)


@keras.saving.register_keras_serializable(package="kseq")
class WordCharacterVocabulary(Vocabulary):
    """A vocabulary of words and of the characters of each word.

    Each word becomes a row of ids: that of the word, 1 if it is unknown, then those of
    its characters, padded with 0. So the model sees the spelling of unknown words.
    `kseq.layers.WordCharacterEmbedding` takes such rows, and `TextToLabels` takes this
    vocabulary like any other.

    Args:
        split: `"word"`, `"word_and_mark"`, or None if each text is already a list of
            words, as for `Vocabulary`.
        normalization: As for `Vocabulary`.
        lowercase: As for `Vocabulary`. The characters are lowercased too.
        max_tokens: Greatest number of word ids, including the special ones.
        min_count: Number of occurrences that a word needs to have an id. With 2 or
            more, the model learns to handle unknown words.
        spelling: Units of the spelling: `"character"`, the characters of the words that
            have an id; `"byte"`, the bytes of UTF-8; or `"jamo"`, the jamo of Hangul
            and bytes for the rest. Bytes and jamo are never unknown.
        max_characters: Greatest number C of characters. The middle of a longer word is
            left out.
        **kwargs: `name` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        texts: As for `Vocabulary`.

    Returns:
        Ids `(B, L, 1 + C)`, int32, padded with 0.

    Raises:
        ValueError: An option is not one of those above, or the texts are invalid as for
            `Vocabulary`.

    Example:

    >>> from kseq.text import WordCharacterVocabulary
    >>> words = WordCharacterVocabulary(min_count=2, max_characters=5)
    >>> words = words.adapt(["the cat the cat the hat"])
    >>> words.tokens, words.size, words.num_characters
    (['the', 'cat'], 6, 9)
    >>> words.encode(["the that"])
    [[[4, 4, 8, 7, 0, 0], [1, 4, 8, 5, 4, 0]]]

    References:
        - [Lample et al., 2016](https://arxiv.org/abs/1603.01360), 4.1, 4.3
    """

    def __init__(
        self,
        split: Literal["word", "word_and_mark"] | None = "word",
        normalization: Normalization = None,
        lowercase: bool = False,
        max_tokens: int | None = None,
        min_count: int = 1,
        spelling: Literal["character", "byte", "jamo"] = "character",
        max_characters: int = 20,
        **kwargs: Any,
    ) -> None:
        one_of("split", split, SPLITS)
        spelling = one_of("spelling", spelling, SPELLINGS)
        # Not tracked, as it is derived from the words and needs no saving.
        self.__dict__["characters"] = Vocabulary(spelling)
        super().__init__(
            split, normalization, lowercase, max_tokens, min_count, **kwargs
        )
        self.spelling = spelling
        self.max_characters = at_least("max_characters", max_characters, 2)

    @property
    def num_characters(self) -> int:
        """The number of character ids, including the special ones."""
        self._known()
        return self.characters.size

    def encode(self, texts: Texts) -> TokenRows:  # type: ignore[override]
        """Encode texts as a row of ids for each word, without padding the texts.

        Args:
            texts: As in a call, or any iterable of texts.

        Returns:
            For each text a list with a list of `1 + C` integers for each word, in a
            sequence that `kseq.training.batches` accepts.

        Example: see the class.
        """
        self._known()
        dtype = smallest(max(self.size, self.num_characters))
        parts = []
        for first, chunk in chunks(texts, 10_000):
            ids = self._rows(chunk, first)
            limits = ids.row_splits.numpy()
            parts.append(TokenRows(ids.values.numpy().astype(dtype), limits))
        return TokenRows.join(parts)

    def call(self, texts: Texts) -> Tensor:  # type: ignore[override]
        import tensorflow as tf

        ids = self._rows(texts).to_tensor()  # B L 1+C
        if tf.is_tensor(texts) or not tf.executing_eagerly():
            return ids
        return keras.ops.convert_to_tensor(ids.numpy())

    def compute_output_spec(self, texts: Tensor) -> Tensor:  # type: ignore[override]
        shape = (texts.shape[0], None, 1 + self.max_characters)
        return keras.KerasTensor(shape, dtype="int32")

    def spell(self, ids: TensorLike) -> list[str]:
        """Return the words of one row of ids; an unknown one is U+FFFD.

        Example:

        >>> words = WordCharacterVocabulary().adapt(["the cat"])
        >>> words.spell(words.encode(["the hat"])[0])
        ['the', '�']
        """
        ids = np.asarray(keras.ops.convert_to_numpy(ids))
        if ids.ndim != 2:
            raise ValueError(
                "`ids` must be a row of ids for each word, shape (L, 1 + C). Received: "
                f"ids={shortened(ids.tolist())}."
            )
        return super().spell(ids[:, 0])

    def resources(self) -> list[Any]:
        return [*super().resources(), *self.characters.resources()]

    def _rows(self, texts: Texts, first: int = 0) -> "tf.RaggedTensor":
        """Return the ids `B (L) 1+C` of texts, each word with its characters."""
        import tensorflow as tf

        table = self._known()
        words = self._tokenizer.symbols(texts, first)  # B (L)
        letters = self.characters._tokenizer.symbols(words.values)
        letters = self.characters._known().numbers(letters)  # N (C)
        letters = without_middle(letters, self.max_characters)  # N C
        ids = table.numbers(words).values[:, None]  # N 1
        return words.with_values(tf.concat([ids, letters], axis=1))

    def _use(self, table: Ids) -> None:
        super()._use(table)
        self.characters.adapt(table.tokens)

    def _options(self) -> Config:
        names = (*OPTIONS, "spelling", "max_characters")
        return {name: getattr(self, name) for name in names}


def without_middle(rows: "tf.RaggedTensor", most: int) -> "tf.Tensor":
    """Return rows `N (C)` as a tensor `(N, most)`; of longer rows keep both ends."""
    import tensorflow as tf

    first, last = most - most // 2, most // 2
    whole = rows[:, :most].to_tensor(shape=[None, most])
    ends = [
        rows[:, :first].to_tensor(shape=[None, first]),
        rows[:, -last:].to_tensor(shape=[None, last]),
    ]
    is_longer = rows.row_lengths() > most
    return tf.where(is_longer[:, None], tf.concat(ends, axis=1), whole)
