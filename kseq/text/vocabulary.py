"""Vocabularies: texts to token ids and back.

`tokenizers.py` cuts texts into symbols, and `token_ids.py` numbers them;
`sentence_pieces.py` and `byte_tokens.py` do both. `vocabulary_files.py` saves them.

Axes in shape comments: B texts, L tokens of a text. An L in brackets is ragged.
"""

import keras

from kseq.text.byte_tokens import ByteIds
from kseq.text.detokenizing import check_split, detokenized
from kseq.text.encoding import encoded_rows
from kseq.text.sentence_pieces import (
    PIECE_OPTIONS,
    checked_piece_options,
    learn_sentence_pieces,
)
from kseq.text.token_ids import END, PADDING, START, UNKNOWN, TokenIds, rows_of
from kseq.text.tokenizers import COMPOSED, FIXED, MARKED, SPLITS, WHOLE, Tokenizer
from kseq.text.validation import at_least, checked_share, one_of
from kseq.text.vocabulary_files import VocabularyFiles

OPTIONS = ("split", "normalization", "lowercase", "max_tokens", "min_count")
CUT = ("word_piece", "sentence_piece")  # which end where they are told to


@keras.saving.register_keras_serializable(package="kseq")
class Vocabulary(VocabularyFiles, keras.layers.Layer):
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
            both give the text back with its spaces, runs of white space as one;
            `"sentence_piece"` for pieces that the package `sentencepiece` learns, of
            any script and with their spaces, which give every text back exactly;
            `"byte"` for the bytes of UTF-8 and `"jamo"` for these and the jamo of
            Hangul, both of which need no `adapt` and give every text back; None if each
            text is already a list of symbols. An empty symbol is no symbol:
            rows of a dense tensor may be padded with it.
        normalization: None or the Unicode form `"NFC"`, `"NFD"`, `"NFKC"` or `"NFKD"`.
            Needs tensorflow-text.
        lowercase: Whether to lowercase the texts, in the same way in every locale.
        max_tokens: Greatest `size`, the special tokens included. None for no limit;
            pieces need one.
        min_count: How often a symbol must be seen to become a token. 1 for splits that
            do not count: `"sentence_piece"`, `"byte"`, `"jamo"`.
        model: For `"sentence_piece"`: `"unigram"`, the default, or `"bpe"`.
        byte_fallback: For `"sentence_piece"`: whether what has no piece is cut into
            bytes, the default, so that nothing is unknown and texts come back exactly.
        character_coverage: For `"sentence_piece"`: the share of all letters that have
            pieces of their own, the rarest left out; 0.98 to 1, 0.9995 by default.
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
        model=None,
        byte_fallback=None,
        character_coverage=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.split = one_of("split", split, SPLITS)
        self.normalization = one_of("normalization", normalization, COMPOSED)
        self.lowercase = one_of("lowercase", lowercase, (True, False))
        self.model, self.byte_fallback, self.character_coverage = checked_piece_options(
            split, model, byte_fallback, character_coverage
        )
        self.min_count = at_least("min_count", min_count, 1)
        if split in WHOLE and self.min_count > 1:
            raise ValueError(
                f"`min_count` must be 1 with split={split!r}, which does not count. "
                f"Received: min_count={min_count}."
            )
        self.built = True
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self._tokenizer = Tokenizer(split, normalization, lowercase)
        self._table = None  # `Ids`, once there are tokens
        if split in FIXED:
            self._use(ByteIds(split))
        self.max_tokens = None
        if max_tokens is not None:
            least = self._least_tokens()
            self.max_tokens = at_least("max_tokens", max_tokens, least)
        elif split in CUT:
            raise ValueError(
                "Pieces need `max_tokens`, as there is no end to what can be cut. "
                "Received: max_tokens=None. 8000 suits many languages."
            )

    def adapt(self, texts):
        """Learns the tokens from texts, and forgets those it had.

        Memory is bounded: `"sentence_piece"` learns from 400,000 texts at most, drawn
        from all; other splits forget the rarest of more than a million different
        symbols. `"byte"` and `"jamo"` have their tokens already.

        Args:
            texts: Any iterable of texts, or of lists of symbols with `split=None`; a
                file as `open(path, encoding="utf-8")`, a `tf.data.Dataset` as
                `dataset.as_numpy_iterator()`.

        Returns:
            The vocabulary itself.

        Raises:
            ImportError: `"sentence_piece"` needs `kseq[pieces]`.
            ValueError: No symbol is left to become a token, `max_tokens` leaves no room
                for the letters, or a text is no UTF-8 or holds a NUL.

        Example:

        >>> Vocabulary("word", min_count=2).adapt(["b a", "a b", "c"]).tokens
        ['a', 'b']
        >>> pieces = Vocabulary("word_piece", max_tokens=33).adapt(["low, lower, slow"])
        >>> pieces.spell(pieces.encode(["lower, slower"])[0])
        ['lower', ',', 'slow', '##er']
        """
        if self.split in FIXED:
            return self
        if self.split == "sentence_piece":
            options = {name: getattr(self, name) for name in PIECE_OPTIONS}
            lines = self._tokenizer.lines(texts)
            self._use(learn_sentence_pieces(lines, self.max_tokens, **options))
            return self
        limit = None if self.max_tokens is None else self.max_tokens - END - 1
        tokens, seen = self._tokenizer.learn(texts, limit, self.min_count)
        if not tokens:
            room = f", max_tokens={self.max_tokens}. Letters need room: 8000 suits many"
            is_cut = self.split == "word_piece" and seen
            raise ValueError(
                f"`texts` must hold a symbol that is seen at least {self.min_count} "
                f"times. Received: {seen} different symbols{room * is_cut}."
            )
        self._use(TokenIds(tokens))
        return self

    def sampler(self, texts, start=False, end=False, alpha=0.1, seed=0):
        """Returns a function that cuts texts anew for each epoch, by chance.

        A model that sees a text cut in several ways learns what pieces are made of
        (subword regularization). `kseq.training.teacher_forcing` and `batches` take the
        function in place of rows.

        Args:
            texts: List of texts.
            start: As for `encode`.
            end: As for `encode`.
            alpha: With `"unigram"`, how much a probable cut is preferred: 0 not at all;
                with `"bpe"`, the probability with which a merge is left out.
            seed: Non-negative integer that the cuts of all epochs follow from.

        Returns:
            A function of the number of an epoch, which gives lists of ids.

        Raises:
            ValueError: The split is another than `"sentence_piece"`, or `alpha` is not
                from 0 to 1.

        Example:

        >>> texts = ["a large hotel, a larger hotel, the largest hotels"] * 9
        >>> vocabulary = Vocabulary("sentence_piece", max_tokens=300, model="bpe")
        >>> rows = vocabulary.adapt(texts).sampler(texts, alpha=0.3)
        >>> rows(0) == rows(0), rows(0) == rows(1)
        (True, False)
        >>> vocabulary.decode(rows(0)) == vocabulary.decode(rows(1)) == texts
        True

        References:
            - [Kudo, 2018](https://arxiv.org/abs/1804.10959), 3.3 (sampling)
            - [Provilkov et al., 2020](https://arxiv.org/abs/1910.13267), 3 (dropout)
        """
        if self.split != "sentence_piece":
            raise ValueError(
                'Texts are cut by chance with split="sentence_piece" alone. Received: '
                f"split={self.split!r}. Use `encode`."
            )
        table, alpha = self._known(), checked_share("alpha", alpha)
        seed, encoded = at_least("seed", seed, 0), self._tokenizer.encoded(texts)
        return lambda epoch: table.sampled_rows(
            encoded, start, end, alpha, (seed, epoch)
        )

    def encode(self, texts, start=False, end=False):
        """Turns texts into rows of token ids, without padding.

        Args:
            texts: As in a call, or any iterable of texts, such as an open file; few of
                them are in memory at a time.
            start: Whether to begin each list with the start token.
            end: Whether to finish each list with the end token.

        Returns:
            One list of integers for each text, in a sequence that reads like a list of
            them, but takes two or four bytes for an id.

        Example:

        >>> vocabulary = Vocabulary("word").adapt(["HH AH0 L OW1"])
        >>> vocabulary.encode(["L OW1", "OW2"], start=True, end=True)
        [[2, 6, 7, 3], [2, 1, 3]]
        """
        return encoded_rows(self._known(), self._tokenizer, texts, start, end)

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
        return [self.join(self.spell(row)) for row in rows_of(ids)]

    def detokenize(self, ids):
        """Turns token ids back into texts as `decode` does, in a graph of TensorFlow.

        Args:
            ids: Integers `(B, L)`, a tensor, each of them an id of this vocabulary.

        Returns:
            A string tensor `(B,)`.

        Raises:
            ValueError: The vocabulary has `split=None`, so that a text is a list.

        Example:

        >>> letters = Vocabulary("character").adapt(["hey"])
        >>> letters.detokenize(letters(["hey"], end=True)).numpy()[0]
        b'hey'
        """
        check_split(self)
        import tensorflow as tf

        ids = tf.cast(tf.convert_to_tensor(ids), "int32")
        return detokenized(ids, self._known(), self.split, self.normalization)

    def spell(self, ids):
        """Lists the symbols that one row of ids stands for, as `decode` reads them.

        Example:

        >>> Vocabulary("character").adapt(["ba"]).spell([2, 5, 1, 4, 3, 4])
        ['b', '�', 'a']
        """
        return self._known().spell(ids)

    def join(self, symbols):
        """Puts symbols together to a text, as `decode` does."""
        return self._tokenizer.join(symbols)

    def unknown(self, text):
        """Lists the different symbols of one text that the vocabulary lacks.

        Example:

        >>> Vocabulary("character").adapt(["abc"]).unknown("a1b22")
        ['1', '2']
        """
        symbols = self._known().unknown(self._split([text]))
        return [symbol.decode() for symbol in dict.fromkeys(symbols)]

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
        return self._known().resources()

    def get_config(self):
        return {**super().get_config(), **self._options()}

    def _options(self):
        is_sentence_piece = self.split == "sentence_piece"
        names = OPTIONS + PIECE_OPTIONS * is_sentence_piece
        return {name: getattr(self, name) for name in names}

    def _least_tokens(self):
        """The least `max_tokens` that can be."""
        if self.split in FIXED:
            return self.size
        if self.split == "sentence_piece" and self.byte_fallback:
            return END + 2 + 256
        return END + (4 if self.split in MARKED else 2)

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

    def _use(self, table):
        self._table = table
        self._tokenizer.use(table)

    def _split(self, texts):
        self._known()
        return self._tokenizer.symbols(texts)  # B (L), or B if numbered as they are
