"""Tokenizers: texts to symbols and back.

Axes in shape comments: B texts, L symbols of a text. An L in brackets is ragged.
"""

import collections
import itertools
import unicodedata

from kseq.text.arguments import shortened, strings
from kseq.text.marks import SPACING, join_marks, split_marks
from kseq.text.pieces import (
    join_pieces,
    learn_pieces,
    piece_tokenizer,
    tensorflow_text,
)
from kseq.text.token_table import by_frequency

SPLITS = ("character", "word", "word_and_mark", "word_piece", None)
MARKED = ("word_and_mark", "word_piece")  # the marks apart, the spaces kept
COMPOSED = {None: None, "NFC": "NFC", "NFD": "NFC", "NFKC": "NFKC", "NFKD": "NFKC"}
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

    def learn(self, texts, limit, min_count):
        """Learns tokens from texts: `(tokens, number of different symbols)`."""
        counts = collections.Counter()
        for chunk in chunks(texts, 10_000):
            counts.update(self.words(chunk).values.numpy().tolist())
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

    def use(self, tokens):
        """Cuts words into these tokens, if they are pieces."""
        if self.split == "word_piece":
            self.cut = piece_tokenizer(tokens)

    def words(self, texts):
        """Texts as symbols, `B (L)`, words not yet cut into pieces."""
        import tensorflow as tf

        texts = self._normalized(as_tensor(texts, self.split))
        if self.split is None:
            return tf.ragged.boolean_mask(texts, texts != "")
        if self.split == "character":
            return tf.strings.unicode_split(texts, "UTF-8")
        if self.split == "word":
            texts = tf.strings.regex_replace(texts, UNICODE_SPACES, " ")
            return tf.strings.split(texts)
        return split_marks(texts)

    def symbols(self, texts):
        """Texts as symbols, `B (L)`."""
        words = self.words(texts)
        return words if self.cut is None else self.cut(words)

    def join(self, symbols):
        """The text of symbols, composed; or they themselves with `split=None`."""
        form = COMPOSED[self.normalization]

        def compose(text):
            return text if form is None else unicodedata.normalize(form, text)

        if self.split is None:
            return [compose(symbol) for symbol in symbols]
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
        return tf.strings.lower(texts, encoding="utf-8") if self.lowercase else texts


def as_tensor(texts, split):
    """Texts as a string tensor `(B,)`, ready symbols as a ragged one, `B (L)`."""
    import tensorflow as tf

    rank = 2 if split is None else 1
    if tf.is_tensor(texts):
        if texts.dtype != tf.string or texts.shape.rank != rank:
            raise ValueError(
                f"`texts` must be strings of rank {rank} with split={split!r}. "
                f"Received: a tensor of {texts.dtype.name}, shape {texts.shape}."
            )
        if rank == 2 and not isinstance(texts, tf.RaggedTensor):
            return tf.RaggedTensor.from_tensor(texts)
        return texts
    if rank == 1:
        return tf.constant(strings("texts", texts), tf.string)
    if isinstance(texts, (str, bytes)):
        raise ValueError(
            "`texts` must be a list of lists of symbols with split=None. "
            f"Received: texts={shortened(texts)}."
        )
    rows = [strings(f"texts[{i}]", row) for i, row in enumerate(texts)]
    flat = tf.constant(list(itertools.chain.from_iterable(rows)), tf.string)
    lengths = tf.constant([len(row) for row in rows], tf.int64)
    return tf.RaggedTensor.from_row_lengths(flat, lengths)


def chunks(texts, size):
    """Cuts any iterable into lists; a tensor or an array stays in one piece."""
    if hasattr(texts, "shape") or isinstance(texts, (str, bytes)):
        yield texts
        return
    iterator = iter(texts)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
