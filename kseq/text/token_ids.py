"""The ids of tokens: four special ones, then one for each token in its order.

Axes in shape comments: B texts, L tokens of a text. An L in brackets is ragged.
"""

import collections
import numbers

import keras
import numpy as np

from kseq.text.validation import shortened
from kseq.token_rows import TokenRows

PADDING, UNKNOWN, START, END = range(4)
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
HINTS = {  # by the number of axes
    0: " Wrap an id in two lists: `[[ids]]`.",
    1: " Wrap a row in a list: `[ids]`.",
    3: " Choose one of several hypotheses: `[row[0] for row in ids]`.",
    "result": " Choose one of several hypotheses: `ids.token_ids[:, 0]`.",
}


class Ids:
    """Numbers for symbols: the special ones, and one for each token in its order.

    What texts are numbered by, `numbers` and `unknown`, is up to each subclass.

    Args:
        tokens: Different strings, in the order of their ids.
    """

    def __init__(self, tokens):
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
        self.symbols = (REPLACEMENT,) * (END + 1) + tuple(tokens)  # of every id

    @property
    def tokens(self):
        """The tokens in the order of their ids, without the special ones."""
        return list(self.symbols[END + 1 :])

    def __len__(self):
        return len(self.symbols)

    def resources(self):
        """What an exported graph must keep besides its constants."""
        return []

    def ids(self, texts, start=False, end=False):
        """Numbers of texts as the tokenizer gives them, with start and end around."""
        import tensorflow as tf

        ids = self.numbers(texts)  # B (L)
        column = tf.ones([ids.nrows(), 1], "int32")
        if start:
            ids = tf.concat([START * column, ids], axis=1)
        if end:
            ids = tf.concat([ids, END * column], axis=1)
        return ids

    def spell(self, ids):
        """Lists the symbols of one row of ids, as far as its end."""
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
    """Symbols to ids and back, by a table."""

    def __init__(self, tokens):
        super().__init__(tokens)
        import tensorflow as tf

        with tf.init_scope():
            ids = tf.range(END + 1, END + 1 + len(tokens))
            table = tf.lookup.KeyValueTensorInitializer(tf.constant(tokens), ids)
            self.table = tf.lookup.StaticHashTable(table, UNKNOWN)

    def resources(self):
        return [self.table]

    def numbers(self, symbols):
        """Ids `B (L)` of ragged symbols."""
        return self.table.lookup(symbols)

    def unknown(self, symbols):
        """The symbols, in UTF-8, that have no id of their own."""
        lacking = self.numbers(symbols).values == UNKNOWN
        return symbols.values[lacking].numpy().tolist()


def rows_of(ids):
    """Returns the rows of ids, if they have two axes."""
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


def rank_of(ids):
    if hasattr(ids, "shape"):
        return len(ids.shape)
    if not isinstance(ids, (list, tuple, TokenRows)):
        return 0
    return 1 + (rank_of(ids[0]) if ids else 0)


def by_frequency(counts):
    """Words by falling count, equals by code point."""
    return sorted(counts, key=lambda word: (-counts[word], word))


def text_positions(ids):
    """The places of a row that are read: up to the end, no padding and no start."""
    ids = np.asarray(ids)
    ended = np.cumsum(ids == END) > 0
    return np.flatnonzero(~ended & (ids != PADDING) & (ids != START))
