"""Tokenizers: texts to symbols and back.

Axes in shape comments: B texts, L symbols of a text. An L in brackets is ragged.
"""

import itertools

from kseq.text.arguments import shortened, strings

SPLITS = ("character", "word", None)
COMPOSED = {None: None, "NFC": "NFC", "NFD": "NFC", "NFKC": "NFKC", "NFKD": "NFKC"}
UNICODE_SPACES = r"[\pZ\x{85}]"  # what tf.strings.split does not take for a space


def split_texts(texts, split):
    """Cuts texts `(B,)` into symbols, `B (L)`; ready symbols lose the empty ones."""
    import tensorflow as tf

    if split is None:
        return tf.ragged.boolean_mask(texts, texts != "")
    if split == "character":
        return tf.strings.unicode_split(texts, "UTF-8")
    return tf.strings.split(tf.strings.regex_replace(texts, UNICODE_SPACES, " "))


def join_symbols(symbols, split):
    """Puts the symbols of one text together again."""
    return (" " if split == "word" else "").join(symbols)


def normalize(texts, normalization, lowercase):
    """Texts, or ready symbols, in a Unicode form and in lower case, if wanted."""
    import tensorflow as tf

    if isinstance(texts, tf.RaggedTensor):
        return texts.with_values(normalize(texts.values, normalization, lowercase))
    if normalization is not None:
        texts = tensorflow_text().normalize_utf8(texts, normalization)
    return tf.strings.lower(texts, encoding="utf-8") if lowercase else texts


def tensorflow_text():
    """The package that normalizes and cuts; it has no wheel for every system."""
    try:
        import tensorflow_text
    except ImportError as error:
        raise ImportError(
            "This vocabulary needs tensorflow-text. Install it with "
            "`pip install tensorflow-text`."
        ) from error
    return tensorflow_text


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
