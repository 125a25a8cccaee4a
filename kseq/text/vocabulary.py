"""Vocabularies: texts to token ids and back.

`tokenizers.py` splits texts into symbols and `token_ids.py` maps symbols to ids;
`sentence_pieces.py` and `byte_tokens.py` do both. `detokenizing.py` decodes ids in
graphs, and `vocabulary_files.py` saves and loads vocabularies.

Axes in shape comments: B texts, L tokens of a text. An L in parentheses is ragged.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self

import keras

from kseq.text.byte_tokens import ByteIds
from kseq.text.detokenizing import check_split, detokenized
from kseq.text.encoding import encoded_rows
from kseq.text.sentence_pieces import (
    PIECE_OPTIONS,
    checked_piece_options,
    learn_sentence_pieces,
)
from kseq.text.token_ids import END, Ids, TokenIds, rows_of
from kseq.text.tokenizers import (
    COMPOSED,
    FIXED,
    MARKED,
    SPLITS,
    WHOLE,
    Normalization,
    Split,
    Tokenizer,
)
from kseq.text.validation import at_least, checked_share, one_of
from kseq.text.vocabulary_files import VocabularyFiles
from kseq.token_rows import TokenRows
from kseq.typing import Config, Tensor, TensorLike, Text, Texts

if TYPE_CHECKING:
    import tensorflow as tf

OPTIONS = ("split", "normalization", "lowercase", "max_tokens", "min_count")
SUBWORDS = ("word_piece", "sentence_piece")  # they need `max_tokens`


@keras.saving.register_keras_serializable(package="kseq")
class Vocabulary(VocabularyFiles, keras.layers.Layer):
    """A vocabulary of any script, which converts texts to token ids and back.

    A text is normalized, lowercased and split, in this order, and each symbol becomes
    an id. The ids 0 to 3 are padding, unknown, start and end. The tokens follow by
    falling frequency, ties by code point; two tokens for spaces come first in splits
    with marks, and word pieces are in the order of their merges. The four special ids
    have no spelling, so no text can be confused with them. A saved model contains the
    tokens.

    Args:
        split: The symbols of a text.

            - `"character"`: code points. With `"NFD"`, Hangul is split into jamo.
            - `"word"`: strings between white space, as in `"HH AH0 L OW1"`.
            - `"word_and_mark"`: words and punctuation marks.
            - `"word_piece"`: frequent words and marks; other words in pieces.
            - None: each text is a list of symbols. Empty symbols are ignored, so rows
              of a dense tensor may be padded with them.
            - `"sentence_piece"`: pieces with their spaces, learned by `sentencepiece`.
            - `"byte"`: bytes of UTF-8. Needs no `adapt`.
            - `"jamo"`: jamo of Hangul, and bytes for the rest. Needs no `adapt`.

            `decode` restores texts exactly with the last three of these splits. With
            `"word_and_mark"` and `"word_piece"`, runs of white space become one space.
        normalization: None or the Unicode form `"NFC"`, `"NFD"`, `"NFKC"` or `"NFKD"`.
            Needs tensorflow-text.
        lowercase: Whether to lowercase the texts, independent of the locale.
        max_tokens: Greatest `size`, including the special tokens; None for no limit.
            Required for `"word_piece"` and `"sentence_piece"`.
        min_count: Number of occurrences that a symbol needs to become a token. Must be
            1 for splits that do not count: `"sentence_piece"`, `"byte"`, `"jamo"`.
        model: For `"sentence_piece"`: `"unigram"`, the default, or `"bpe"`.
        byte_fallback: For `"sentence_piece"`: whether to split characters without a
            piece into bytes, so that no text is unknown; True by default.
        character_coverage: For `"sentence_piece"`: the fraction of all letters that are
            covered by pieces, leaving out the rarest; 0.98 to 1, 0.9995 by default.
        **kwargs: `name` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        texts: B texts in a list, an array or a string tensor `(B,)`, also inside
            `tf.data.Dataset.map`. With `split=None`, symbols: a list of lists or a
            string tensor `(B, L)`, ragged or dense.
        start: Whether to begin each row with the start token.
        end: Whether to end each row with the end token.

    Returns:
        Token ids `(B, L)`, int32, padded on the right with 0: `encode` as a tensor.

    Raises:
        ValueError: An option is not one of those above, `texts` is a single string, a
            text is not UTF-8 or holds a NUL (not checked inside `Dataset.map`), or the
            vocabulary has no tokens yet.

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
    >>> words = Vocabulary("word_and_mark").adapt(["Hey, yellow!"])
    >>> words.decode(words.encode(["yellow, Hey, red"]))
    ['yellow, Hey, �']
    >>> jamo = Vocabulary("jamo")  # needs no `adapt`
    >>> jamo.spell(jamo.encode(["한a"])[0]), jamo.size
    (['ᄒ', 'ᅡ', 'ᆫ', 'a'], 327)

    References:
        - [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215), 3.1 (unknown token)
        - [Sennrich et al., 2016](https://arxiv.org/abs/1508.07909), 3.2 (pieces)
        - [Unicode Standard Annex 15](https://unicode.org/reports/tr15/) (normalization)
    """

    def __init__(
        self,
        split: Split = "character",
        normalization: Normalization = None,
        lowercase: bool = False,
        max_tokens: int | None = None,
        min_count: int = 1,
        model: Literal["unigram", "bpe"] | None = None,
        byte_fallback: bool | None = None,
        character_coverage: float | None = None,
        **kwargs: Any,
    ) -> None:
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
        self._table = None
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self._tokenizer = Tokenizer(split, normalization, lowercase)
        if split in FIXED:
            self._use(ByteIds(split))
        self.max_tokens: int | None = None
        if max_tokens is not None:
            self.max_tokens = at_least("max_tokens", max_tokens, self._least_tokens())
        elif split in SUBWORDS:
            raise ValueError(
                f"`max_tokens` must be an integer with split={split!r}. Received: "
                "max_tokens=None. 8000 suits many languages."
            )

    def adapt(self, texts: Texts) -> Self:
        """Learn the tokens from texts, replacing those it had.

        Memory is bounded: `"sentence_piece"` learns from a random sample of at most
        400,000 texts; other splits drop the rarest of more than a million distinct
        symbols. `"byte"` and `"jamo"` keep their tokens.

        Args:
            texts: Any iterable of texts, or of lists of symbols with `split=None`. Pass
                a file as `open(path, encoding="utf-8")`, and a `tf.data.Dataset` as
                `dataset.as_numpy_iterator()`.

        Returns:
            The vocabulary itself.

        Raises:
            ImportError: `"sentence_piece"` needs `kseq[pieces]`.
            ValueError: No symbol can become a token, `max_tokens` is too small for the
                letters, or a text is invalid.

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
            size: Any = self.max_tokens  # never None with this split
            self._use(learn_sentence_pieces(lines, size, **options))
            return self
        limit = None if self.max_tokens is None else self.max_tokens - END - 1
        tokens, seen = self._tokenizer.learn(texts, limit, self.min_count)
        if not tokens:
            hint = f", max_tokens={self.max_tokens}. Letters need room: 8000 suits many"
            has_pieces = self.split == "word_piece" and seen > 0
            raise ValueError(
                f"`texts` must hold a symbol that occurs at least {self.min_count} "
                f"times. Received: {seen} different symbols{hint * has_pieces}."
            )
        self._use(TokenIds(tokens))
        return self

    def sampler(
        self,
        texts: Texts,
        start: bool = False,
        end: bool = False,
        alpha: float = 0.1,
        seed: int = 0,
    ) -> Callable[[int], list[list[int]]]:
        """Return a function that splits texts randomly, differently in each epoch.

        A model that sees several splits of a text learns how pieces are composed
        (subword regularization). `kseq.training.teacher_forcing` and `batches` accept
        the function in place of rows.

        Args:
            texts: List of texts.
            start: As for `encode`.
            end: As for `encode`.
            alpha: With `"unigram"`, the preference for probable splits, 0 for none.
                With `"bpe"`, the probability of skipping a merge.
            seed: Non-negative integer that determines the splits of all epochs.

        Returns:
            A function of the epoch number that returns lists of ids.

        Raises:
            ValueError: Another split, or `alpha` is not from 0 to 1.

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
                'Only split="sentence_piece" can split texts randomly. Received: '
                f"split={self.split!r}. Use `encode`."
            )
        table, alpha = self._known(), checked_share("alpha", alpha)
        seed, encoded = at_least("seed", seed, 0), self._tokenizer.encoded(texts)
        return lambda epoch: table.sampled_rows(  # type: ignore[attr-defined]
            encoded, start, end, alpha, (seed, epoch)
        )

    def encode(self, texts: Texts, start: bool = False, end: bool = False) -> TokenRows:
        """Encode texts as rows of token ids, without padding.

        Args:
            texts: As in a call, or any iterable of texts, such as an open file, which
                is read in small chunks.
            start: Whether to begin each row with the start token.
            end: Whether to end each row with the end token.

        Returns:
            One list of integers for each text, in a sequence that behaves like a list
            but stores an id in two or four bytes.

        Example:

        >>> vocabulary = Vocabulary("word").adapt(["HH AH0 L OW1"])
        >>> vocabulary.encode(["L OW1", "OW2"], start=True, end=True)
        [[2, 6, 7, 3], [2, 1, 3]]
        """
        return encoded_rows(self._known(), self._tokenizer, texts, start, end)

    def call(self, texts: Texts, start: bool = False, end: bool = False) -> Tensor:
        import tensorflow as tf

        ids = self._known().ids(self._split(texts), start, end).to_tensor()  # B L
        if tf.is_tensor(texts) or not tf.executing_eagerly():
            return ids
        return keras.ops.convert_to_tensor(ids.numpy())

    def compute_output_spec(
        self, texts: Tensor, start: bool = False, end: bool = False
    ) -> Tensor:
        return keras.KerasTensor((texts.shape[0], None), dtype="int32")

    def decode(self, ids: TensorLike) -> list[str | list[str]]:
        """Decode token ids to texts.

        A text ends at the first end token; padding and start are skipped; an unknown
        token becomes U+FFFD. Decomposed texts (NFD, NFKD) are composed again.

        Args:
            ids: Integers `(B, L)`: a list of lists, an array or a tensor.

        Returns:
            One string for each row; one list of symbols with `split=None`.

        Raises:
            ValueError: An id is not in this vocabulary, or `ids` are not rows.

        Example:

        >>> vocabulary = Vocabulary("character", normalization="NFD").adapt(["한국어"])
        >>> vocabulary.size, vocabulary.decode(vocabulary.encode(["한국어"]))
        (12, ['한국어'])
        """
        return [self.join(self.spell(row)) for row in rows_of(ids)]

    def detokenize(self, ids: TensorLike) -> "tf.Tensor":
        """Decode token ids to texts in a TensorFlow graph, as `decode` does.

        Args:
            ids: Tensor of integers `(B, L)`, ids of this vocabulary.

        Returns:
            A string tensor `(B,)`.

        Raises:
            ValueError: The vocabulary has `split=None`, so a text is a list.

        Example:

        >>> letters = Vocabulary("character").adapt(["hey"])
        >>> letters.detokenize(letters(["hey"], end=True)).numpy()[0]
        b'hey'
        """
        check_split(self)
        import tensorflow as tf

        ids = tf.cast(tf.convert_to_tensor(ids), "int32")
        return detokenized(ids, self._known(), self.split, self.normalization)

    def spell(self, ids: TensorLike) -> list[str]:
        """Return the symbols of one row of ids, with the rules of `decode`.

        Example:

        >>> Vocabulary("character").adapt(["ba"]).spell([2, 5, 1, 4, 3, 4])
        ['b', '�', 'a']
        """
        return self._known().spell(ids)

    def join(self, symbols: list[str]) -> str | list[str]:
        """Join symbols into a text, as `decode` does."""
        return self._tokenizer.join(symbols)

    def unknown(self, text: Text) -> list[str]:
        """Return the distinct symbols of one text that the vocabulary lacks.

        Example:

        >>> Vocabulary("character").adapt(["abc"]).unknown("a1b22")
        ['1', '2']
        """
        symbols = self._known().unknown(self._split([text]))
        return [symbol.decode() for symbol in dict.fromkeys(symbols)]

    def resources(self) -> list[Any]:
        """Return the tables of an exported graph, for `ExportArchive.track`."""
        return self._known().resources()

    def get_config(self) -> Config:
        return {**super().get_config(), **self._options()}

    def _options(self) -> Config:
        names = OPTIONS + PIECE_OPTIONS * (self.split == "sentence_piece")
        return {name: getattr(self, name) for name in names}

    def _least_tokens(self) -> int:
        """Return the smallest valid `max_tokens`."""
        if self.split in FIXED:
            return self.size
        if self.split == "sentence_piece" and self.byte_fallback:
            return END + 2 + 256
        return END + (4 if self.split in MARKED else 2)

    def _use(self, table: Ids) -> None:
        self._table = table
        self._tokenizer.use(table)

    def _split(self, texts: Texts) -> Any:
        self._known()
        return self._tokenizer.symbols(texts)  # B (L), or B with a split of `WHOLE`
