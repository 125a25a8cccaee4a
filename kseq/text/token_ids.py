"""Token ids: four special ids, then one for each token in its order.

Axes in shape comments: B texts, L tokens of a text. An L in parentheses is ragged.
"""

import collections
import numbers
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kseq.text.validation import shortened
from kseq.token_rows import TokenRows
from kseq.typing import TensorLike

if TYPE_CHECKING:
    import tensorflow as tf

PADDING, UNKNOWN, START, END = range(4)
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
HINTS: dict[int | str, str] = {  # by the number of axes
    0: " Wrap an id in two lists: `[[ids]]`.",
    1: " Wrap a row in a list: `[ids]`.",
    3: " Choose one of several hypotheses: `[row[0] for row in ids]`.",
    "result": " Choose one of several hypotheses: `ids.token_ids[:, 0]`.",
}


class Ids:
    """Base of the tables that map symbols to ids: special ids first, then the tokens.

    A subclass defines `numbers`, the ids of texts, and `unknown`, the symbols that have
    no id.

    Args:
        tokens: Distinct, non-empty strings in the order of their ids.
    """

    def __init__(self, tokens: list[str]) -> None:
        is_list = isinstance(tokens, list) and tokens
        if not is_list or not all(isinstance(t, str) and t for t in tokens):
            raise ValueError(
                "`tokens` must be a list of strings that are not empty. "
                f"Received: tokens={shortened(tokens)}."
            )
        token, count = collections.Counter(tokens).most_common(1)[0]
        if count > 1:
            raise ValueError(
                f"`tokens` must be unique. Received: {token!r}, {count} times."
            )
        self.symbols = (REPLACEMENT,) * (END + 1) + tuple(tokens)  # of every id

    if TYPE_CHECKING:  # in subclasses

        def numbers(self, texts: Any) -> "tf.RaggedTensor": ...

        def unknown(self, texts: Any) -> list[bytes]: ...

    @property
    def tokens(self) -> list[str]:
        """The tokens in the order of their ids, without the special tokens."""
        return list(self.symbols[END + 1 :])

    def __len__(self) -> int:
        return len(self.symbols)

    def resources(self) -> list[Any]:
        """Return what an exported graph must track besides its constants."""
        return []

    def ids(self, texts: Any, start: bool = False, end: bool = False) -> Any:
        """Return ids `B (L)` of tokenized texts, with start and end tokens if asked."""
        import tensorflow as tf

        ids = self.numbers(texts)  # B (L)
        column = tf.ones([ids.nrows(), 1], "int32")
        if start:
            ids = tf.concat([START * column, ids], axis=1)
        if end:
            ids = tf.concat([ids, END * column], axis=1)
        return ids

    def spell(self, ids: TensorLike) -> list[str]:
        """Return the symbols of one row of ids, up to its end token."""
        ids = keras.ops.convert_to_numpy(ids)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise ValueError(
                "`ids` must be integers, one row for each text. Received: a row of "
                f"{shortened(ids.tolist())}."
            )
        wrong = ids[(ids < 0) | (ids >= len(self))]
        if wrong.size:
            raise ValueError(
                f"`ids` must be from 0 to {len(self) - 1}, as this vocabulary has "
                f"{len(self)} tokens. Received: {wrong[0]}. Decode with the "
                "vocabulary that the model was trained with."
            )
        return [self.symbols[i] for i in ids[text_positions(ids)]]


class TokenIds(Ids):
    """A lookup table from symbols to ids."""

    def __init__(self, tokens: list[str]) -> None:
        super().__init__(tokens)
        import tensorflow as tf

        with tf.init_scope():
            ids = tf.range(END + 1, END + 1 + len(tokens))
            table = tf.lookup.KeyValueTensorInitializer(tf.constant(tokens), ids)
            self.table = tf.lookup.StaticHashTable(table, UNKNOWN)

    def resources(self) -> list[Any]:
        return [self.table]

    def numbers(self, symbols: "tf.RaggedTensor") -> "tf.RaggedTensor":
        """Return ids `B (L)` of ragged symbols."""
        return self.table.lookup(symbols)

    def unknown(self, symbols: "tf.RaggedTensor") -> list[bytes]:
        """Return the symbols, in UTF-8, that have no id of their own."""
        lacking = self.numbers(symbols).values == UNKNOWN
        return symbols.values[lacking].numpy().tolist()


class VocabularyIds:
    """A mixin of vocabularies: their table of ids, and the ids of special tokens."""

    _table: Ids | None  # None before there are tokens

    if TYPE_CHECKING:  # of the Keras layer
        name: str

    @property
    def tokens(self) -> list[str]:
        """The tokens in the order of their ids, without the special tokens."""
        return [] if self._table is None else self._table.tokens

    @property
    def size(self) -> int:
        """The number of ids, including the special ones."""
        return len(self._known())

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        return True  # Keras tests `if layer`, even before there are tokens

    @property
    def pad_token_id(self) -> int:
        """The id of padding, 0."""
        return PADDING

    @property
    def unknown_token_id(self) -> int:
        """The id of every symbol that the vocabulary lacks, 1."""
        return UNKNOWN

    @property
    def start_token_id(self) -> int:
        """The id of the start token, 2."""
        return START

    @property
    def end_token_id(self) -> int:
        """The id of the end token, 3."""
        return END

    def _known(self) -> Ids:
        if self._table is None:
            raise ValueError(
                "A vocabulary must have tokens before it is used. Received: "
                f"{self.name}, which has none. Call `adapt(texts)` first. A clone "
                "is made from a config, which holds no tokens. Clone the model alone: "
                "`TextToText(keras.models.clone_model(old.model), "
                "old.source_vocabulary, old.target_vocabulary)`."
            )
        return self._table


def rows_of(ids: Any) -> Iterable[Any]:
    """Return the ids; raise unless they have two axes, or are empty."""
    rank = rank_of(ids)
    if rank == 2 or rank == 1 and not len(ids):
        return ids
    hint = HINTS.get(rank, "")
    if not rank and not isinstance(ids, numbers.Integral):
        hint = HINTS["result"] if hasattr(ids, "token_ids") else ""
    raise ValueError(
        "`ids` must be integers, one row for each text. Received: ids="
        f"{shortened(ids)}, of {rank} axes.{hint}"
    )


def rank_of(ids: Any) -> int:
    """Return the number of axes of a tensor, or the depth of nested lists."""
    if hasattr(ids, "shape"):
        return len(ids.shape)
    if not isinstance(ids, (list, tuple, TokenRows)):
        return 0
    return 1 + (rank_of(ids[0]) if ids else 0)


def by_frequency(counts: Mapping[str, int]) -> list[str]:
    """Sort words by falling count; break ties by code point."""
    return sorted(counts, key=lambda word: (-counts[word], word))


def text_positions(ids: TensorLike) -> np.ndarray:
    """Return the positions of text tokens in a row.

    Positions from the end token on are left out, and so are padding and start tokens.
    """
    ids = np.asarray(ids)
    ended = np.cumsum(ids == END) > 0
    return np.flatnonzero(~ended & (ids != PADDING) & (ids != START))
