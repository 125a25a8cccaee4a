"""Tokenizers: split texts into symbols, and join symbols into texts.

Axes in shape comments: B texts, L symbols of a text. An L in parentheses is ragged.
"""

import collections
import itertools
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from kseq.text.pieces import (
    join_pieces,
    learn_pieces,
    piece_tokenizer,
    tensorflow_text,
)
from kseq.text.punctuation import SPACING, join_marks, split_marks
from kseq.text.token_ids import Ids, by_frequency
from kseq.text.validation import is_list, shortened, strings, utf8
from kseq.typing import Texts

if TYPE_CHECKING:
    import tensorflow as tf

Split: TypeAlias = (
    Literal[
        "character",
        "word",
        "word_and_mark",
        "word_piece",
        "sentence_piece",
        "byte",
        "jamo",
    ]
    | None
)
Normalization: TypeAlias = Literal["NFC", "NFD", "NFKC", "NFKD"] | None

FIXED = ("byte", "jamo")  # their tokens are fixed, not learned
WHOLE = ("sentence_piece", *FIXED)  # texts become ids without symbols in between
SPLITS = ("character", "word", "word_and_mark", "word_piece", *WHOLE, None)
MARKED = ("word_and_mark", "word_piece")  # marks are symbols; spaces are kept
COMPOSED: dict[str | None, Normalization] = {
    None: None,
    "NFC": "NFC",
    "NFD": "NFC",
    "NFKC": "NFKC",
    "NFKD": "NFKC",
}
MOST_WORDS = 1_000_000  # counted at the same time
UNICODE_SPACES = r"[\pZ\x{85}]"  # tf.strings.split does not split at these


class Tokenizer:
    """A tokenizer, which splits texts into symbols and joins symbols into texts.

    Args:
        split: One of `SPLITS`.
        normalization: One of `COMPOSED`.
        lowercase: Whether to lowercase the texts.
    """

    def __init__(
        self, split: str | None, normalization: str | None, lowercase: bool
    ) -> None:
        self.split, self.lowercase = split, lowercase
        self.normalization = normalization
        # Splits words into pieces; None before the pieces are known.
        self.cut: Callable[[Any], Any] | None = None
        self.table: Ids | None = None

    def learn(
        self, texts: Texts, limit: int | None, min_count: int
    ) -> tuple[list[str], int]:
        """Learn tokens from texts; return them and the number of distinct symbols."""
        counts: Any = collections.Counter()
        for first, chunk in chunks(texts, 10_000):
            counts.update(self.words(chunk, first).values.numpy().tolist())
            counts = most_frequent(counts, MOST_WORDS)
        counts = {word.decode(): count for word, count in counts.items()}
        spacing = SPACING if self.split in MARKED else ()  # tokens that all texts need
        limit = None if limit is None else limit - len(spacing)
        different = len(counts)
        counts = {word: counts[word] for word in counts if word not in spacing}
        if self.split == "word_piece":
            tokens = learn_pieces(counts, limit, min_count)  # type: ignore[arg-type]
        else:
            seen = by_frequency(counts)
            tokens = [word for word in seen if counts[word] >= min_count][:limit]
        return [*spacing, *tokens] if tokens else [], different

    def use(self, table: Ids) -> None:
        """Use the tokens of a table; for word pieces, to split words."""
        self.table = table
        if self.split == "word_piece":
            self.cut = piece_tokenizer(table.tokens)

    def lines(self, texts: Texts) -> Iterator[bytes]:
        """Yield normalized texts in UTF-8, with few of them in memory at a time."""
        for first, chunk in chunks(texts, 10_000):
            yield from self.encoded(chunk, first)

    def encoded(self, texts: Texts, first: int = 0) -> list[bytes]:
        """Return normalized texts in UTF-8, without TensorFlow if nothing changes."""
        is_list = not hasattr(texts, "numpy")
        if is_list and self.normalization is None and not self.lowercase:
            return utf8("texts", strings("texts", texts, first), first)
        return self.words(texts, first).numpy().tolist()

    def words(self, texts: Texts, first: int = 0) -> Any:
        """Return the symbols of texts, `B (L)`, with words not yet split into pieces.

        With a split of `WHOLE`, return normalized texts, `(B,)`.
        """
        import tensorflow as tf

        texts = self._normalized(as_tensor(texts, self.split, first))
        if self.split in WHOLE:
            return texts
        if self.split is None:
            return tf.ragged.boolean_mask(texts, texts != "")
        if self.split == "character":
            return tf.strings.unicode_split(texts, "UTF-8")
        if self.split == "word":
            texts = tf.strings.regex_replace(texts, UNICODE_SPACES, " ")
            return tf.strings.split(texts)
        return split_marks(texts)

    def symbols(self, texts: Texts, first: int = 0) -> Any:
        """Return the symbols of texts, `B (L)`; with a split of `WHOLE`, texts."""
        words = self.words(texts, first)
        return words if self.cut is None else self.cut(words)

    def join(self, symbols: list[str]) -> str | list[str]:
        """Return the composed text of symbols; the symbols if `split=None`."""
        form = COMPOSED[self.normalization]

        def compose(text):
            return text if form is None else unicodedata.normalize(form, text)

        if self.split is None:
            return [compose(symbol) for symbol in symbols]
        if self.split in WHOLE:
            return compose(self.table.join(symbols))  # type: ignore[union-attr]
        if self.split == "word_piece":
            symbols = join_pieces(symbols)
        if self.split in MARKED:
            return compose(join_marks(symbols))
        return compose((" " if self.split == "word" else "").join(symbols))

    def _normalized(self, texts: Any) -> Any:
        import tensorflow as tf

        if isinstance(texts, tf.RaggedTensor):
            return texts.with_values(self._normalized(texts.values))
        if self.normalization is not None:
            texts = tensorflow_text().normalize_utf8(texts, self.normalization)
        return lowercased(texts) if self.lowercase else texts


def most_frequent(
    counts: "collections.Counter[bytes]", most: int
) -> "collections.Counter[bytes]":
    """Return the counts; drop the rarest if there are more than `most` of them.

    Half of `most` are kept, so that dropping is seldom needed. A dropped symbol that
    occurs again is counted from zero. So a count is too low by at most the greatest
    count that was ever dropped (Manku and Motwani, 2002).
    """
    if len(counts) <= most:
        return counts
    return collections.Counter(dict(counts.most_common(most // 2)))


def lowercased(texts: "tf.Tensor") -> "tf.Tensor":
    """Return texts `(B,)` in lower case, independent of the locale.

    TensorFlow follows the locale of the machine: in Turkish an I becomes a dotless i,
    and in Lithuanian an accented I keeps its dot below the accent. So these letters are
    lowercased first.
    """
    import tensorflow as tf

    texts = tf.strings.lower(texts)  # ASCII
    for letter in "\u00cc\u00cd\u0128\u012e\u0130":  # an I with some accent
        texts = tf.strings.regex_replace(texts, letter, letter.lower())
    return tf.strings.lower(texts, encoding="utf-8")


def as_tensor(texts: Any, split: str | None, first: int = 0) -> Any:
    """Return texts as a string tensor `(B,)`; with `split=None`, symbols `B (L)`.

    The first text has the number `first` in error messages.
    """
    import tensorflow as tf

    rank = 2 if split is None else 1
    if tf.is_tensor(texts):
        if texts.dtype != tf.string or texts.shape.rank != rank:
            raise ValueError(
                f"`texts` must be strings of rank {rank} with split={split!r}. "
                f"Received: a tensor of {texts.dtype.name}, shape {texts.shape}."
            )
        if rank == 2 and not isinstance(texts, tf.RaggedTensor):
            texts = tf.RaggedTensor.from_tensor(texts)
        if tf.executing_eagerly():  # in a graph the values are unknown
            rows = texts.numpy() if rank == 1 else texts.to_list()
            utf8_rows(rows, rank, first)
        return texts
    if rank == 1:
        return tf.constant(
            utf8_rows(strings("texts", texts, first), 1, first), "string"
        )
    rows = utf8_rows(symbol_rows(texts, first), 2, first)
    flat = tf.constant(list(itertools.chain.from_iterable(rows)), tf.string)
    lengths = tf.constant([len(row) for row in rows], tf.int64)
    return tf.RaggedTensor.from_row_lengths(flat, lengths)


def utf8_rows(rows: Iterable[Any], rank: int, first: int) -> list[Any]:
    """Return texts, or lists of symbols, in UTF-8."""
    if rank == 1:
        return utf8("texts", rows, first)
    return [utf8(f"texts[{i}]", row) for i, row in enumerate(rows, first)]


def symbol_rows(texts: Any, first: int) -> list[list[str | bytes]]:
    """Return the texts as lists of symbols; raise unless they are lists of symbols."""
    is_single = isinstance(texts, (str, bytes)) or not is_list(texts)
    rows = [texts] if is_single else list(texts)
    for i, row in enumerate(rows, first):
        is_text = isinstance(row, (str, bytes))
        if is_text or not is_list(row):
            name = "texts" if is_single else f"texts[{i}]"
            hint = "[texts.split()]" if is_single else "[x.split() for x in texts]"
            raise ValueError(
                "`texts` must be a list of lists of symbols with split=None. Received: "
                f"{name}={shortened(row)}." + f" Split the texts: `{hint}`." * is_text
            )
    return [strings(f"texts[{i}]", row) for i, row in enumerate(rows, first)]


def chunks(texts: Any, size: int) -> Iterator[tuple[int, Any]]:
    """Split an iterable of texts into lists; keep a tensor or an array whole.

    Yields:
        The number of the first text of the chunk, and the chunk.
    """
    is_single = isinstance(texts, (str, bytes)) or not is_list(texts)
    if is_single or hasattr(texts, "shape"):
        yield 0, texts
        return
    iterator, first = iter(texts), 0
    while chunk := list(itertools.islice(iterator, size)):
        yield first, chunk
        first += size
