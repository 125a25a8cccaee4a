"""Vocabularies: texts to token ids and back.

`tokenizers.py` cuts texts into symbols, and `token_ids.py` numbers them.

Axes in shape comments: B texts, L tokens of a text. An L in brackets is ragged.
"""

import itertools
import os

import keras

from kseq.text.files import read_json, replace_json, write_json
from kseq.text.token_ids import END, PADDING, START, UNKNOWN, TokenIds, rows_of
from kseq.text.tokenizers import COMPOSED, MARKED, SPLITS, Tokenizer
from kseq.text.validation import at_least, one_of

ASSET = "tokens.json"
OPTIONS = ("split", "normalization", "lowercase", "max_tokens", "min_count")


@keras.saving.register_keras_serializable(package="kseq")
class Vocabulary(keras.layers.Layer):
    """Texts to token ids and back, for any script.

    A text is normalized, lowercased and split, in this order, and each symbol becomes
    a number: 0 is padding, 1 unknown, 2 start, 3 end, and the tokens follow by falling
    frequency, equals by code point; splits with marks begin with two for spaces, and
    word pieces are in the order in which they were merged. The four special numbers
    have no spelling, so no text can be mistaken for them. The words travel with a saved
    model as an asset.

    Args:
        split: `"character"` for one symbol per code point (with `"NFD"`, Hangul comes
            apart into jamo); `"word"` for symbols between white space, as in words or
            `"HH AH0 L OW1"`; `"word_and_mark"` for words and punctuation marks, and
            `"word_piece"` for frequent words and marks whole, other words in pieces:
            both give the text back with its spaces, runs of white space as one; None
            if each text is already a list of symbols. An empty symbol is no symbol:
            rows of a dense tensor may be padded with it.
        normalization: None or the Unicode form `"NFC"`, `"NFD"`, `"NFKC"` or `"NFKD"`.
            Needs tensorflow-text.
        lowercase: Whether to lowercase the texts, in the same way in every locale.
        max_tokens: Greatest `size`, the special tokens included. None for no limit,
            which word pieces need.
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
            list of texts is needed, a text is no UTF-8 or holds a NUL (which cannot be
            known inside `Dataset.map`), or the vocabulary has no tokens yet.

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
        - [Sennrich et al., 2016](https://arxiv.org/abs/1508.07909), 3.2 (pieces)
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
            least = END + (4 if split in MARKED else 2)
            self.max_tokens = at_least("max_tokens", max_tokens, least)
        elif split == "word_piece":
            raise ValueError(
                "Word pieces need `max_tokens`, as there is no end to what can be cut. "
                "Received: max_tokens=None. 8000 suits many languages."
            )
        self.min_count = at_least("min_count", min_count, 1)
        self.built = True
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self._tokenizer = Tokenizer(split, normalization, lowercase)
        self._table = None  # `TokenIds`, once there are tokens

    def adapt(self, texts):
        """Learns the tokens from texts, and forgets those it had.

        Args:
            texts: Any iterable of texts, or of lists of symbols with `split=None`;
                a `tf.data.Dataset` goes in as `dataset.as_numpy_iterator()`.

        Returns:
            The vocabulary itself.

        Raises:
            ValueError: No symbol is left to become a token, or a text is no UTF-8 or
                holds a NUL.

        Example:

        >>> Vocabulary("word", min_count=2).adapt(["b a", "a b", "c"]).tokens
        ['a', 'b']
        >>> pieces = Vocabulary("word_piece", max_tokens=33).adapt(["low, lower, slow"])
        >>> pieces.spell(pieces.encode(["lower, slower"])[0])
        ['lower', ',', 'slow', '##er']
        """
        limit = None if self.max_tokens is None else self.max_tokens - END - 1
        tokens, seen = self._tokenizer.learn(texts, limit, self.min_count)
        if not tokens:
            room = f", max_tokens={self.max_tokens}. Letters need room: 8000 suits many"
            is_cut = self.split == "word_piece" and seen
            raise ValueError(
                f"`texts` must hold a symbol that is seen at least {self.min_count} "
                f"times. Received: {seen} different symbols{room * is_cut}."
            )
        self._set_tokens(tokens)
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
        ids = self._known().ids(self._split(texts), start, end)
        flat, limits = ids.values.numpy().tolist(), ids.row_splits.numpy().tolist()
        return [flat[first:last] for first, last in itertools.pairwise(limits)]

    def call(self, texts, start=False, end=False):
        import tensorflow as tf

        ids = self._known().ids(self._split(texts), start, end).to_tensor()  # B L
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
            ValueError: An id is not one of this vocabulary, or `ids` are no rows.

        Example:

        >>> vocabulary = Vocabulary("character", normalization="NFD").adapt(["한국어"])
        >>> vocabulary.size, vocabulary.decode(vocabulary.encode(["한국어"]))
        (12, ['한국어'])
        """
        return [self._tokenizer.join(self.spell(row)) for row in rows_of(ids)]

    def spell(self, ids):
        """Lists the symbols that one row of ids stands for, as `decode` reads them.

        Example:

        >>> Vocabulary("character").adapt(["ba"]).spell([2, 5, 1, 4, 3, 4])
        ['b', '�', 'a']
        """
        return self._known().spell(ids)

    def unknown(self, text):
        """Lists the different symbols of one text that the vocabulary lacks.

        Example:

        >>> Vocabulary("character").adapt(["abc"]).unknown("a1b22")
        ['1', '2']
        """
        symbols = self._split([text])
        lacking = self._known().ids(symbols).values == UNKNOWN
        words = symbols.values[lacking].numpy().tolist()
        return [word.decode() for word in dict.fromkeys(words)]

    @property
    def tokens(self):
        """The tokens in the order of their ids, without the special ones."""
        return [] if self._table is None else self._table.tokens

    @property
    def size(self):
        """How many ids there are, the special ones included."""
        return len(self._known())

    def __len__(self):
        return self.size

    def __bool__(self):
        return True  # Keras asks `if layer`, also before there are tokens

    pad_token_id = property(lambda self: PADDING)
    unknown_token_id = property(lambda self: UNKNOWN)
    start_token_id = property(lambda self: START)
    end_token_id = property(lambda self: END)

    def resources(self):
        """The tables that an exported graph must keep: for `ExportArchive.track`."""
        return [self._known().table]

    def save(self, path):
        """Writes options and tokens to one JSON file, whole or not at all.

        Example:

        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "letters.json")
        >>> Vocabulary("character").adapt(["abc"]).save(path)
        >>> Vocabulary.load(path).encode(["cab"])
        [[6, 4, 5]]
        """
        content = {"kseq": "Vocabulary", **self._options()}
        replace_json(path, {**content, "tokens": self._known().tokens})

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
        return {name: getattr(self, name) for name in OPTIONS}

    def _known(self):
        if self._table is None:
            raise ValueError(
                "A vocabulary must have tokens before it is used. Received: "
                f"{self.name}, which has none. Call `adapt(texts)` first. What "
                "was made from a config, as a clone is, has none of its own: make "
                "`TextToText(keras.models.clone_model(old.model), "
                "old.source_vocabulary, old.target_vocabulary)` and the like."
            )
        return self._table

    def _set_tokens(self, tokens):
        self._table = TokenIds(tokens)
        self._tokenizer.use(tokens)

    def _split(self, texts):
        self._known()
        return self._tokenizer.symbols(texts)  # B (L)
