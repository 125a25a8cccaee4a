"""Decode token ids in a TensorFlow graph, with the results of `Vocabulary.decode`.

Axes in shape comments: R rows, T tokens of a row, L tokens of its text. An L in
parentheses is ragged.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kseq.text.byte_tokens import (
    BYTES,
    FIRST_JAMO,
    FIRST_TAIL,
    FIRST_VOWEL,
    SYLLABLES,
    TAILS,
    VOWELS,
)
from kseq.text.pieces import CONTINUED, tensorflow_text
from kseq.text.punctuation import CLOSING, INNER, OPENING, SPACE, SPACING, is_mark
from kseq.text.sentence_pieces import SentencePieces
from kseq.text.token_ids import END, PADDING, START, Ids
from kseq.text.tokenizers import COMPOSED, FIXED, MARKED

if TYPE_CHECKING:
    import tensorflow as tf

    from kseq.text.vocabulary import Vocabulary


def detokenized(
    ids: "tf.Tensor", table: Ids, split: str | None, normalization: str | None
) -> "tf.Tensor":
    """Return the texts `(R,)` of token ids `(R, T)`.

    Args:
        ids: Integers `(R, T)`.
        table: The `Ids` of the vocabulary.
        split: The split of the vocabulary, which must not be None.
        normalization: The normalization of the vocabulary.
    """
    form, ids = COMPOSED[normalization], read_ids(ids)
    if isinstance(table, SentencePieces):
        texts = table.joined(ids)
    elif split in FIXED:
        texts = joined_bytes(table.symbols, ids)
    elif split in MARKED:
        texts = joined_marks(table.symbols, ids, split == "word_piece")
    else:
        texts = joined_symbols(table.symbols, ids, " " if split == "word" else "")
    return texts if form is None else tensorflow_text().normalize_utf8(texts, form)


def read_ids(ids: "tf.Tensor") -> "tf.RaggedTensor":
    """Return the ids of the texts, `R (L)`: before the end, no padding, no start."""
    import tensorflow as tf

    has_ended = tf.cumsum(tf.cast(ids == END, "int32"), axis=1) > 0
    is_read = ~has_ended & (ids != PADDING) & (ids != START)
    return tf.ragged.boolean_mask(ids, is_read)


def joined_symbols(
    symbols: Sequence[str], ids: "tf.RaggedTensor", separator: str
) -> "tf.Tensor":
    """Return texts of symbols with a separator between them."""
    import tensorflow as tf

    spelled = tf.ragged.map_flat_values(lambda i: tf.gather(symbols, i), ids)
    return tf.strings.reduce_join(spelled, axis=1, separator=separator)


def joined_bytes(symbols: Sequence[str], ids: "tf.RaggedTensor") -> "tf.Tensor":
    """Return texts of bytes and jamo, with jamo joined into syllables if possible."""
    import tensorflow as tf

    ids = ids.to_tensor(PADDING)  # R L
    before, two_before = beside(ids, -1), beside(ids, -2)
    after, two_after = beside(ids, 1), beside(ids, 2)

    def is_lead(ids):
        return (ids >= FIRST_JAMO) & (ids < FIRST_VOWEL)

    def is_vowel(ids):
        return (ids >= FIRST_VOWEL) & (ids < FIRST_TAIL)

    begins = is_lead(ids) & is_vowel(after)
    tail = tf.where(two_after >= FIRST_TAIL, two_after - FIRST_TAIL + 1, 0)
    number = (ids - FIRST_JAMO) * VOWELS + after - FIRST_VOWEL
    number = tf.where(begins, number * TAILS + tail, 0)
    syllables = [chr(code) for code in range(ord(SYLLABLES[0]), ord(SYLLABLES[1]) + 1)]
    has_begun = is_vowel(before) & is_lead(two_before)
    is_inside = is_vowel(ids) & is_lead(before) | (ids >= FIRST_TAIL) & has_begun
    parts = [b""] + [BYTES.get(s) or s.encode() for s in symbols[1:]]
    parts = tf.where(is_inside, "", tf.gather(tf.constant(parts), ids))
    parts = tf.where(begins, tf.gather(syllables, number), parts)
    texts = tf.strings.reduce_join(parts, axis=1)
    return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")


def joined_marks(
    symbols: Sequence[str], ids: "tf.RaggedTensor", has_pieces: bool
) -> "tf.Tensor":
    """Return texts of words (or pieces) and marks, as `punctuation.join_marks` does."""
    import tensorflow as tf

    symbols = ["", *symbols[1:]]  # padding is the empty string

    def where(is_so, ids):
        return tf.gather([bool(symbol) and is_so(symbol) for symbol in symbols], ids)

    ids = ids.to_tensor(PADDING)  # R L
    before = beside(ids, -1)
    is_told = where(lambda s: s in SPACING, ids)
    is_written = ~is_told & (ids != PADDING)
    is_first = tf.cumsum(tf.cast(is_written, "int32"), axis=1, exclusive=True) == 0
    is_expected = ~where(lambda s: s[-1] in OPENING + INNER, before)
    is_expected &= ~where(lambda s: s in CLOSING + INNER, ids)
    is_expected &= ~where(lambda s: s in SPACING, before)
    has_space = where(lambda s: s == SPACE, before) | is_expected
    has_space &= is_written & ~is_first
    texts = symbols
    if has_pieces:
        continues = where(lambda s: s.startswith(CONTINUED), ids)
        has_space &= ~(continues & ~where(is_mark, before))
        texts = [symbol.removeprefix(CONTINUED) for symbol in symbols]
    parts = tf.where(is_written, tf.gather(texts, ids), "")
    gaps = tf.where(has_space, " ", "")
    return tf.strings.reduce_join(gaps + parts, axis=1)


def beside(ids: "tf.Tensor", distance: int) -> "tf.Tensor":
    """Return the ids `(R, L)` at a distance after (or before) each; 0 at the ends."""
    import tensorflow as tf

    if distance < 0:
        return tf.pad(ids, [[0, 0], [-distance, 0]])[:, :distance]
    return tf.pad(ids, [[0, 0], [0, distance]])[:, distance:]


def check_split(vocabulary: "Vocabulary") -> None:
    """Raise if a graph cannot decode ids of the vocabulary to texts."""
    if vocabulary.split is None:
        raise ValueError(
            "A graph returns texts, so the vocabulary needs a `split`. Received: "
            "split=None, with which a text is a list of symbols. Train with "
            'split="word", which puts a space between symbols.'
        )
