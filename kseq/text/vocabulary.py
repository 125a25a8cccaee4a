"""Vocabularies: texts to token ids and back.

Axes in shape comments: B texts, L tokens of a text. An L in brackets is ragged.
"""

import collections
import itertools
import json
import os
import pathlib
import unicodedata

import keras
import numpy as np

from kseq.text.arguments import at_least, one_of, shortened, strings

PADDING, UNKNOWN, START, END = range(4)
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
SPLITS = ("character", "word", None)
COMPOSED = {None: None, "NFC": "NFC", "NFD": "NFC", "NFKC": "NFKC", "NFKD": "NFKC"}
UNICODE_SPACES = r"[\pZ\x{85}]"  # what tf.strings.split does not take for a space
ASSET = "tokens.json"


@keras.saving.register_keras_serializable(package="kseq")
class Vocabulary(keras.layers.Layer):
    """Texts to token ids and back, for any script.

    A text is normalized, lowercased and split, in this order, and each symbol becomes
    a number: 0 is padding, 1 unknown, 2 start, 3 end, and the tokens follow by falling
    frequency, equals by code point. The four special numbers have no spelling, so no
    text can be mistaken for them. The words travel with a saved model as an asset.

    Args:
        split: `"character"` for one symbol per code point (with `"NFD"`, Hangul comes
            apart into jamo); `"word"` for symbols between white space, as in words or
            `"HH AH0 L OW1"`; None if each text is already a list of symbols. An empty
            symbol is no symbol: rows of a dense tensor may be padded with it.
        normalization: None or the Unicode form `"NFC"`, `"NFD"`, `"NFKC"` or `"NFKD"`.
            Needs tensorflow-text.
        lowercase: Whether to lowercase the texts.
        max_tokens: Greatest `size`, the special tokens included. None for no limit.
        min_count: How often a symbol must be seen to become a token.
        **kwargs: `name` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        texts: B texts in a list, an array or a string tensor `(B,)`, also inside
            `tf.data.Dataset.map`. With `split=None`, symbols: a list of lists or a
            string tensor `(B, L)`, ragged or dense.
        start: Whether to begin each row with the start token.
        end: Whether to finish each row with the end token.

    Returns:
        Token ids `(B, L)`, int32, padded on the right with 0: `encode` as a tensor.

    Raises:
        ValueError: An option is not one of those above, a single string came where a
            list of texts is needed, or the vocabulary has no tokens yet.

    Example:

    >>> from kseq.text import Vocabulary
    >>> vocabulary = Vocabulary("character").adapt(["hello", "yellow"])
    >>> vocabulary.tokens
    ['l', 'e', 'o', 'h', 'w', 'y']
    >>> vocabulary.encode(["hey", "low"], end=True)
    [[7, 5, 9, 3], [4, 6, 8, 3]]
    >>> vocabulary.decode([[7, 5, 9, 3, 0, 0]])
    ['hey']
    >>> tuple(vocabulary(["yo", "yellow"]).shape)
    (2, 6)

    References:
        - [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215), 3.1 (unknown token)
        - [Unicode Standard Annex 15](https://unicode.org/reports/tr15/) (normalization)
    """

    def __init__(
        self,
        split="character",
        normalization=None,
        lowercase=False,
        max_tokens=None,
        min_count=1,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.split = one_of("split", split, SPLITS)
        self.normalization = one_of("normalization", normalization, COMPOSED)
        self.lowercase = one_of("lowercase", lowercase, (True, False))
        self.max_tokens = None
        if max_tokens is not None:
            self.max_tokens = at_least("max_tokens", max_tokens, END + 2)
        self.min_count = at_least("min_count", min_count, 1)
        self.built = True
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self._symbols = ()  # of every id, once there are tokens
        self._table = None

    def adapt(self, texts):
        """Learns the tokens from texts, and forgets those it had.

        Args:
            texts: Any iterable of texts, or of lists of symbols with `split=None`;
                a `tf.data.Dataset` goes in as `dataset.as_numpy_iterator()`.

        Returns:
            The vocabulary itself.

        Raises:
            ValueError: No symbol is left to become a token.

        Example:

        >>> Vocabulary("word", min_count=2).adapt(["b a", "a b", "c"]).tokens
        ['a', 'b']
        """
        counts = collections.Counter()
        for chunk in chunks(texts, 10_000):
            counts.update(self._split(chunk).values.numpy().tolist())
        words = [word for word, count in counts.items() if count >= self.min_count]
        words.sort(key=lambda word: (-counts[word], word))  # UTF-8 sorts as code points
        if not words:
            raise ValueError(
                f"`texts` must hold a symbol that is seen at least {self.min_count} "
                f"times. Received: {len(counts)} different symbols."
            )
        limit = None if self.max_tokens is None else self.max_tokens - END - 1
        self._set_tokens([word.decode() for word in words[:limit]])
        return self

    def encode(self, texts, start=False, end=False):
        """Turns texts into lists of token ids, without padding.

        Args:
            texts: As in a call.
            start: Whether to begin each list with the start token.
            end: Whether to finish each list with the end token.

        Returns:
            One list of integers for each text.

        Example:

        >>> vocabulary = Vocabulary("word").adapt(["HH AH0 L OW1"])
        >>> vocabulary.encode(["L OW1", "OW2"], start=True, end=True)
        [[2, 6, 7, 3], [2, 1, 3]]
        """
        ids = self._ids(self._split(texts), start, end)
        flat, limits = ids.values.numpy().tolist(), ids.row_splits.numpy().tolist()
        return [flat[first:last] for first, last in itertools.pairwise(limits)]

    def call(self, texts, start=False, end=False):
        import tensorflow as tf

        ids = self._ids(self._split(texts), start, end).to_tensor()  # B L
        if tf.is_tensor(texts) or not tf.executing_eagerly():
            return ids
        return keras.ops.convert_to_tensor(ids.numpy())

    def compute_output_spec(self, texts, start=False, end=False):
        return keras.KerasTensor((texts.shape[0], None), dtype="int32")

    def decode(self, ids):
        """Turns token ids back into texts.

        A text ends at the first end token; padding and start are skipped; an unknown
        token reads U+FFFD. What was decomposed (NFD, NFKD) comes back composed.

        Args:
            ids: Integers `(B, L)`: a list of lists, an array or a tensor.

        Returns:
            One string for each row; one list of symbols with `split=None`.

        Raises:
            ValueError: An id is not one of this vocabulary.

        Example:

        >>> vocabulary = Vocabulary("character", normalization="NFD").adapt(["한국어"])
        >>> vocabulary.size, vocabulary.decode(vocabulary.encode(["한국어"]))
        (12, ['한국어'])
        """
        form = COMPOSED[self.normalization]

        def compose(text):
            return text if form is None else unicodedata.normalize(form, text)

        rows = [self.spell(row) for row in ids]
        if self.split is None:
            return [[compose(symbol) for symbol in row] for row in rows]
        return [compose((" " if self.split == "word" else "").join(r)) for r in rows]

    def spell(self, ids):
        """Lists the symbols that one row of ids stands for, as `decode` reads them.

        Example:

        >>> Vocabulary("character").adapt(["ba"]).spell([2, 5, 1, 4, 3, 4])
        ['b', '�', 'a']
        """
        ids = keras.ops.convert_to_numpy(ids)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise ValueError(
                "`ids` must be integers, one row for each text. Received a row "
                f"{ids.tolist()!r}. Wrap a single row in a list: [[4, 5, 3]]."
            )
        wrong = ids[(ids < 0) | (ids >= self.size)]
        if wrong.size:
            raise ValueError(
                f"`ids` must be from 0 to {self.size - 1}, as this vocabulary has "
                f"{self.size} tokens. Received: {wrong[0]}. Decode with the "
                "vocabulary that the model was trained with."
            )
        return [self._symbols[i] for i in ids[text_positions(ids)]]

    def unknown(self, text):
        """Lists the different symbols of one text that the vocabulary lacks.

        Example:

        >>> Vocabulary("character").adapt(["abc"]).unknown("a1b22")
        ['1', '2']
        """
        symbols = self._split([text])
        lacking = self._ids(symbols).values == UNKNOWN
        words = symbols.values[lacking].numpy().tolist()
        return [word.decode() for word in dict.fromkeys(words)]

    @property
    def tokens(self):
        """The tokens in the order of their ids, without the special ones."""
        return list(self._symbols[END + 1 :])

    @property
    def size(self):
        """How many ids there are, the special ones included."""
        self._require_tokens()
        return len(self._symbols)

    def __len__(self):
        return self.size

    def __bool__(self):
        return True  # Keras asks `if layer`, also before there are tokens

    pad_token_id = property(lambda self: PADDING)
    unknown_token_id = property(lambda self: UNKNOWN)
    start_token_id = property(lambda self: START)
    end_token_id = property(lambda self: END)

    def save(self, path):
        """Writes options and tokens to one JSON file, whole or not at all.

        Example:

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "letters.json")
        >>> Vocabulary("character").adapt(["abc"]).save(path)
        >>> Vocabulary.load(path).encode(["cab"])
        [[6, 4, 5]]
        """
        self._require_tokens()
        content = {"kseq": "Vocabulary", **self._options(), "tokens": self.tokens}
        temporary = pathlib.Path(f"{path}.{os.getpid()}.tmp")
        try:
            write_json(temporary, content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path):
        """Reads a vocabulary that `save` wrote.

        Raises:
            ValueError: The file is damaged, or is no vocabulary.

        Example: see `save`.
        """
        content = read_json(path)
        if not isinstance(content, dict) or content.pop("kseq", None) != "Vocabulary":
            raise ValueError(
                f"`path` must be a file that `Vocabulary.save` wrote. Received: {path}."
            )
        tokens = content.pop("tokens", None)
        try:
            vocabulary = cls(**content)
            vocabulary._set_tokens(tokens)
        except (TypeError, ValueError) as error:
            raise ValueError(f"The vocabulary in {path} is damaged: {error}") from error
        return vocabulary

    def save_assets(self, directory):
        write_json(os.path.join(directory, ASSET), self.tokens)

    def load_assets(self, directory):
        tokens = read_json(os.path.join(directory, ASSET))
        if tokens != []:  # what a vocabulary without tokens leaves
            self._set_tokens(tokens)

    def get_config(self):
        return {**super().get_config(), **self._options()}

    def _options(self):
        return {
            "split": self.split,
            "normalization": self.normalization,
            "lowercase": self.lowercase,
            "max_tokens": self.max_tokens,
            "min_count": self.min_count,
        }

    def _require_tokens(self):
        if not self._symbols:
            raise ValueError(
                "A vocabulary must have tokens before it is used. Received: "
                f"{self.name}, which has none. Call `adapt(texts)` first."
            )

    def _set_tokens(self, tokens):
        is_list = isinstance(tokens, list) and tokens
        if not is_list or not all(isinstance(t, str) and t for t in tokens):
            raise ValueError(
                "`tokens` must be a list of strings that are not empty. "
                f"Received: tokens={shortened(tokens)}."
            )
        token, count = collections.Counter(tokens).most_common(1)[0]
        if count > 1:
            raise ValueError(
                f"`tokens` must be different. Received: {token!r}, {count} times."
            )
        import tensorflow as tf

        with tf.init_scope():
            ids = tf.range(END + 1, END + 1 + len(tokens))
            table = tf.lookup.KeyValueTensorInitializer(tf.constant(tokens), ids)
            self._table = tf.lookup.StaticHashTable(table, UNKNOWN)
        self._symbols = (REPLACEMENT,) * (END + 1) + tuple(tokens)

    def _split(self, texts):
        import tensorflow as tf

        texts = self._tensor(texts)
        if self.split is None:
            symbols = texts.with_values(self._normalize(texts.values))
            return tf.ragged.boolean_mask(symbols, symbols != "")  # B (L)
        texts = self._normalize(texts)  # B
        if self.split == "character":
            return tf.strings.unicode_split(texts, "UTF-8")  # B (L)
        return tf.strings.split(tf.strings.regex_replace(texts, UNICODE_SPACES, " "))

    def _normalize(self, texts):
        import tensorflow as tf

        if self.normalization is not None:
            try:
                import tensorflow_text
            except ImportError as error:
                raise ImportError(
                    f"normalization={self.normalization!r} needs tensorflow-text. "
                    "Install it with `pip install tensorflow-text`."
                ) from error
            texts = tensorflow_text.normalize_utf8(texts, self.normalization)
        return tf.strings.lower(texts, encoding="utf-8") if self.lowercase else texts

    def _ids(self, symbols, start=False, end=False):
        import tensorflow as tf

        self._require_tokens()
        ids = self._table.lookup(symbols)  # B (L)
        column = tf.ones([ids.nrows(), 1], "int32")
        if start:
            ids = tf.concat([START * column, ids], axis=1)
        if end:
            ids = tf.concat([ids, END * column], axis=1)
        return ids

    def _tensor(self, texts):
        """Texts as a string tensor (B,), symbols as a ragged one, B (L)."""
        import tensorflow as tf

        rank = 2 if self.split is None else 1
        if tf.is_tensor(texts):
            if texts.dtype != tf.string or texts.shape.rank != rank:
                raise ValueError(
                    f"`texts` must be strings of rank {rank} with split={self.split!r}."
                    f" Received: a tensor of {texts.dtype.name}, shape {texts.shape}."
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


def text_positions(ids):
    """The places of a row that are read: up to the end, no padding and no start."""
    ids = np.asarray(ids)
    ended = np.cumsum(ids == END) > 0
    return np.flatnonzero(~ended & (ids != PADDING) & (ids != START))


def chunks(texts, size):
    """Cuts any iterable into lists; a tensor or an array stays in one piece."""
    if hasattr(texts, "shape") or isinstance(texts, (str, bytes)):
        yield texts
        return
    iterator = iter(texts)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def write_json(path, content):
    """Writes a JSON file with one entry in a line, readable in any script."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=0)


def read_json(path):
    """Reads a JSON file; one that is none is a ValueError that names it."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except ValueError as error:
        raise ValueError(
            f"A vocabulary must be a JSON file. Received: {path}, which is damaged or "
            f"foreign: {error}"
        ) from error
