"""Words with their characters: a row of ids for each word.

Axes in shape comments: B texts, L words of a text, N words of all texts, C characters.
An axis in brackets is ragged.
"""

import keras
import numpy as np

from kseq.text.tokenizers import FIXED, chunks
from kseq.text.validation import at_least, one_of, shortened
from kseq.text.vocabulary import OPTIONS, Vocabulary
from kseq.token_rows import TokenRows, smallest

SPELLINGS = ("character", *FIXED)
SPLITS = ("word", "word_and_mark", None)


@keras.saving.register_keras_serializable(package="kseq")
class WordCharacterVocabulary(Vocabulary):
    """Texts to ids of words and of the characters of each word.

    Each word becomes a row of numbers: its own, which is 1 if the word is unknown, and
    those of its characters, filled up with 0. So a new word reaches the model by its
    spelling. `kseq.layers.WordCharacterEmbedding` reads such rows, and `TextToLabels`
    takes this vocabulary like any other.

    Args:
        split: `"word"`, `"word_and_mark"`, or None if each text is already a list of
            words, as for `Vocabulary`.
        normalization: As for `Vocabulary`.
        lowercase: As for `Vocabulary`. The characters are lowercased too.
        max_tokens: Greatest number of word ids.
        min_count: How often a word must be seen to have a number of its own. With 2 or
            more, the model learns to read unknown words.
        spelling: How words are spelled: `"character"` by the characters of the words
            that have a number; `"byte"` by the bytes of UTF-8, and `"jamo"` by these
            and the jamo of Hangul, none of which is ever unknown.
        max_characters: The greatest C. Of a longer word the middle is left out.
        **kwargs: `name` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        texts: As for `Vocabulary`.

    Returns:
        Ids `(B, L, 1 + C)`, int32, filled up with 0.

    Raises:
        ValueError: An option is not one of those above, or texts are as for
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
        split="word",
        normalization=None,
        lowercase=False,
        max_tokens=None,
        min_count=1,
        spelling="character",
        max_characters=20,
        **kwargs,
    ):
        one_of("split", split, SPLITS)
        spelling = one_of("spelling", spelling, SPELLINGS)
        # Not a part that is saved, as it follows from the words.
        self.__dict__["characters"] = Vocabulary(spelling)
        super().__init__(
            split, normalization, lowercase, max_tokens, min_count, **kwargs
        )
        self.spelling = spelling
        self.max_characters = at_least("max_characters", max_characters, 2)

    @property
    def num_characters(self):
        """How many ids of characters there are, the special ones included."""
        self._known()
        return self.characters.size

    def encode(self, texts):
        """Turns texts into rows of ids for each word, without padding.

        Args:
            texts: As in a call, or any iterable of texts.

        Returns:
            For each text a list with a list of `1 + C` integers for each word, in a
            sequence that `kseq.training.batches` takes.

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

    def call(self, texts):
        import tensorflow as tf

        ids = self._rows(texts).to_tensor()  # B L 1+C
        if tf.is_tensor(texts) or not tf.executing_eagerly():
            return ids
        return keras.ops.convert_to_tensor(ids.numpy())

    def compute_output_spec(self, texts):
        shape = (texts.shape[0], None, 1 + self.max_characters)
        return keras.KerasTensor(shape, dtype="int32")

    def spell(self, ids):
        """Lists the words that one row of ids stands for; an unknown one is U+FFFD.

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

    def resources(self):
        return [*super().resources(), *self.characters.resources()]

    def _rows(self, texts, first=0):
        """Ids `B (L) 1+C` of texts, each word with its characters."""
        import tensorflow as tf

        table = self._known()
        words = self._tokenizer.symbols(texts, first)  # B (L)
        letters = self.characters._tokenizer.symbols(words.values)
        letters = self.characters._known().numbers(letters)  # N (C)
        letters = without_middle(letters, self.max_characters)  # N C
        ids = table.numbers(words).values[:, None]  # N 1
        return words.with_values(tf.concat([ids, letters], axis=1))

    def _use(self, table):
        super()._use(table)
        self.characters.adapt(table.tokens)

    def _options(self):
        names = (*OPTIONS, "spelling", "max_characters")
        return {name: getattr(self, name) for name in names}


def without_middle(rows, most):
    """Rows `N (C)` as a tensor `(N, most)`; of longer ones both ends are kept."""
    import tensorflow as tf

    first, last = most - most // 2, most // 2
    whole = rows[:, :most].to_tensor(shape=[None, most])
    ends = [
        rows[:, :first].to_tensor(shape=[None, first]),
        rows[:, -last:].to_tensor(shape=[None, last]),
    ]
    is_longer = rows.row_lengths() > most
    return tf.where(is_longer[:, None], tf.concat(ends, axis=1), whole)
