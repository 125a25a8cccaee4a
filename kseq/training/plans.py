"""Plans of an epoch: which rows share a batch.

Axes in shape comments: N rows, B batch.
"""

import numpy as np


def by_rows(lengths, rows, batch_size, pool, random):
    """Batches of so many rows, of like length within a pool, in any order.

    Args:
        lengths: Steps of each kind and row, `(kinds, N)`.
        rows: The numbers of the rows, in an order drawn by chance.
        batch_size: Number of rows in a batch.
        pool: Number of rows that are sorted by length together.
        random: What draws the order of the batches, a `np.random.Generator`.

    Returns:
        A list of arrays `(B,)`, numbers of rows.
    """
    batches = []
    for part in cut(rows, pool):
        batches += cut(part[np.lexsort(lengths[:, part])], batch_size)
    random.shuffle(batches)
    return batches


def by_tokens(lengths, rows, batch_tokens, multiple, random):
    """Batches of so many tokens at most, padding counted, in any order.

    The tokens of a batch are those of its longer kind. All rows are sorted by the
    length of that, and equals by how much the last kind is longer than the first, up
    and down by turns, so that neighbours are alike in both. Which of the rows of equal
    lengths share a batch is drawn anew.

    Args:
        lengths: As for `by_rows`, rounded up as they will be padded.
        rows: As for `by_rows`.
        batch_tokens: Number of tokens; no row is longer.
        multiple: What the number of rows of a batch is a multiple of.
        random: As for `by_rows`.

    Returns:
        As `by_rows`.
    """
    longest = lengths.max(axis=0)[rows]  # N
    rank = np.cumsum(np.bincount(longest) > 0, dtype="int32")[longest]
    key = (lengths[-1] - lengths[0])[rows].astype("int64")
    key[rank % 2 == 0] *= -1
    key += rank.astype("int64") * (2 * (int(longest.max()) + 1))
    order = np.argsort(key, kind="stable")
    del key, rank  # of many rows, each is large
    rows, longest = rows[order], longest[order]
    batches, first = [], 0
    while first < len(rows):
        size = fitting(longest[first], batch_tokens, multiple)
        while size > multiple and size * longest[first : first + size][-1] > (
            batch_tokens
        ):
            size = fitting(longest[first : first + size][-1], batch_tokens, multiple)
        batches.append(rows[first : first + size])
        first += size
    random.shuffle(batches)
    return batches


def fitting(length, batch_tokens, multiple):
    """How many rows of a length a batch has room for."""
    return max(batch_tokens // length // multiple, 1) * multiple


def in_order(lengths, rows, batch_tokens, multiple):
    """Batches of so many tokens at most, of rows in their own order."""
    longest = lengths.max(axis=0)[rows].tolist()  # N
    batches, first, widest = [], 0, 0
    for number, length in enumerate(longest):
        widest = max(widest, length)
        size = number + 1 - first
        if size > multiple and size * widest > batch_tokens:
            last = first + (size - 1) // multiple * multiple
            batches.append(rows[first:last])
            first, widest = last, max(longest[last : number + 1])
    return [*batches, rows[first:]]


def cut(rows, size):
    return [rows[start : start + size] for start in range(0, len(rows), size)]
