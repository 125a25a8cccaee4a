"""Tokenizers: texts to symbols and back.

Axes in shape comments: B texts, L symbols of a text. An L in brackets is ragged.
"""

import collections
import itertools
import unicodedata

from kseq.text.pieces import (
    join_pieces,
    learn_pieces,
    piece_tokenizer,
    tensorflow_text,
)
from kseq.text.punctuation import SPACING, join_marks, split_marks
from kseq.text.token_ids import by_frequency
from kseq.text.validation import is_list, shortened, strings, utf8

FIXED = ("byte", "jamo")  # whose tokens need no texts
WHOLE = ("sentence_piece", *FIXED)  # numbered without symbols in between
SPLITS = ("character", "word", "word_and_mark", "word_piece", *WHOLE, None)
MARKED = ("word_and_mark", "word_piece")  # the marks apart, the spaces kept
COMPOSED = {None: None, "NFC": "NFC", "NFD": "NFC", "NFKC": "NFKC", "NFKD": "NFKC"}
MOST_WORDS = 1_000_000  # that are counted
UNICODE_SPACES = r"[\pZ\x{85}]"  # what tf.strings.split does not take for a space


class Tokenizer:
    """Cuts texts into symbols and puts symbols together, by a vocabulary's options.

    Args:
        split: One of `SPLITS`.
        normalization: One of `COMPOSED`.
        lowercase: Whether to lowercase the texts.
    """

    def __init__(self, split, normalization, lowercase):
        self.split, self.lowercase = split, lowercase
        self.normalization = normalization
        self.cut = None  # what cuts words into pieces, once there are pieces
        self.table = None

    def learn(self, texts, limit, min_count):
        """Learns tokens from texts: `(tokens, number of different symbols)`."""
        counts = collections.Counter()
        for first, chunk in chunks(texts, 10_000):
            counts.update(self.words(chunk, first).values.numpy().tolist())
            counts = most_frequent(counts, MOST_WORDS)
        counts = {word.decode(): count for word, count in counts.items()}
        spacing = SPACING if self.split in MARKED else ()  # always, as any text has it
        limit = None if limit is None else limit - len(spacing)
        different = len(counts)
        counts = {word: counts[word] for word in counts if word not in spacing}
        if self.split == "word_piece":
            tokens = learn_pieces(counts, limit, min_count)
        else:
            seen = by_frequency(counts)
            tokens = [word for word in seen if counts[word] >= min_count][:limit]
        return [*spacing, *tokens] if tokens else [], different

    def use(self, table):
        """Cuts words into the tokens of this table, if they are pieces."""
        self.table = table
        if self.split == "word_piece":
            self.cut = piece_tokenizer(table.tokens)

    def lines(self, texts):
        """An iterator of texts in UTF-8, normalized, of which few are in memory."""
        for first, chunk in chunks(texts, 10_000):
            yield from self.encoded(chunk, first)

    def encoded(self, texts, first=0):
        """Texts as a list in UTF-8, normalized; without TensorFlow if nothing is."""
        is_list = not hasattr(texts, "numpy")
        if is_list and self.normalization is None and not self.lowercase:
            return utf8("texts", strings("texts", texts, first), first)
        return self.words(texts, first).numpy().tolist()

    def words(self, texts, first=0):
        """Texts as symbols, `B (L)`, words not yet cut into pieces.

        What is numbered without symbols stays texts, `(B,)`.
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

    def symbols(self, texts, first=0):
        """Texts as symbols, `B (L)`, or as `words` leaves them."""
        words = self.words(texts, first)
        return words if self.cut is None else self.cut(words)

    def join(self, symbols):
        """The text of symbols, composed; or they themselves with `split=None`."""
        form = COMPOSED[self.normalization]

        def compose(text):
            return text if form is None else unicodedata.normalize(form, text)

        if self.split is None:
            return [compose(symbol) for symbol in symbols]
        if self.split in WHOLE:
            return compose(self.table.join(symbols))
        if self.split == "word_piece":
            symbols = join_pieces(symbols)
        if self.split in MARKED:
            return compose(join_marks(symbols))
        return compose((" " if self.split == "word" else "").join(symbols))

    def _normalized(self, texts):
        import tensorflow as tf

        if isinstance(texts, tf.RaggedTensor):
            return texts.with_values(self._normalized(texts.values))
        if self.normalization is not None:
            texts = tensorflow_text().normalize_utf8(texts, self.normalization)
        return lowercased(texts) if self.lowercase else texts


def most_frequent(counts, most):
    """Counts without the rarest, where more than `most` different things are counted.

    Half of them are kept, so that it is seldom to be done. What comes back later is
    counted anew: so a count is too low by no more than was once the count of something
    dropped (Manku and Motwani, 2002).
    """
    if len(counts) <= most:
        return counts
    return collections.Counter(dict(counts.most_common(most // 2)))


def lowercased(texts):
    """Texts `(B,)` in lower case, the same in every locale.

    TensorFlow follows the locale of the machine, which makes the Turkish letter without
    a dot of an I, and puts a dot under the accents of a Lithuanian one. So the letters
    in question are lowercased before.
    """
    import tensorflow as tf

    texts = tf.strings.lower(texts)  # ASCII
    for letter in "\u00cc\u00cd\u0128\u012e\u0130":  # an I with some accent
        texts = tf.strings.regex_replace(texts, letter, letter.lower())
    return tf.strings.lower(texts, encoding="utf-8")


def as_tensor(texts, split, first=0):
    """Texts as a string tensor `(B,)`, ready symbols as a ragged one, `B (L)`.

    The first of them has the number `first`, for what is said of a wrong one.
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
        if tf.executing_eagerly():  # in a graph nothing is known yet
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


def utf8_rows(rows, rank, first):
    """Texts, or lists of symbols, in UTF-8."""
    if rank == 1:
        return utf8("texts", rows, first)
    return [utf8(f"texts[{i}]", row) for i, row in enumerate(rows, first)]


def symbol_rows(texts, first):
    """Returns the texts as a list of lists of symbols, if that is what they are."""
    is_single = isinstance(texts, (str, bytes)) or not is_list(texts)
    rows = [texts] if is_single else list(texts)
    for i, row in enumerate(rows, first):
        is_text = isinstance(row, (str, bytes))
        if is_text or not is_list(row):
            name = "texts" if is_single else f"texts[{i}]"
            hint = "[texts.split()]" if is_single else "[x.split() for x in texts]"
            raise ValueError(
                "`texts` must be a list of lists of symbols with split=None. Received: "
                f"{name}={shortened(row)}." + f" Cut texts: `{hint}`." * is_text
            )
    return [strings(f"texts[{i}]", row) for i, row in enumerate(rows, first)]


def chunks(texts, size):
    """Cuts any iterable into lists; a tensor or an array stays in one piece.

    Each comes with the number of its first text.
    """
    is_single = isinstance(texts, (str, bytes)) or not is_list(texts)
    if is_single or hasattr(texts, "shape"):
        yield 0, texts
        return
    iterator, first = iter(texts), 0
    while chunk := list(itertools.islice(iterator, size)):
        yield first, chunk
        first += size
