"""Assignment of rows to batches.

Axes in shape comments: N rows, B batch.
"""

import numpy as np


def by_rows(
    lengths: np.ndarray,
    rows: np.ndarray,
    batch_size: int,
    pool: int,
    random: np.random.Generator,
) -> list[np.ndarray]:
    """Make batches of a number of rows, of similar length within a pool, shuffled.

    Args:
        lengths: Steps of each kind and row, `(kinds, N)`.
        rows: The numbers of the rows, in random order.
        batch_size: Number of rows in a batch.
        pool: Number of rows that are sorted by length together.
        random: Generator that shuffles the batches.

    Returns:
        A list of arrays `(B,)`, numbers of rows.
    """
    batches: list[np.ndarray] = []
    for part in cut(rows, pool):
        batches += cut(part[np.lexsort(lengths[:, part])], batch_size)
    random.shuffle(batches)
    return batches


def by_tokens(
    lengths: np.ndarray,
    rows: np.ndarray,
    batch_tokens: int,
    multiple: int,
    random: np.random.Generator,
) -> list[np.ndarray]:
    """Make batches of at most a number of tokens, padding included, shuffled.

    The longer kind of a row determines its tokens. All rows are sorted by that length.
    Rows of equal length are sorted by the difference between the last and the first
    kind, alternately ascending and descending, so that neighbors are similar in both
    kinds. Rows that are equal in both remain in random order.

    Args:
        lengths: As for `by_rows`, rounded up to the padded lengths.
        rows: As for `by_rows`.
        batch_tokens: Maximum number of tokens in a batch; no row is longer.
        multiple: The number of rows of a batch is a multiple of this.
        random: As for `by_rows`.

    Returns:
        A list of arrays `(B,)`, numbers of rows.
    """
    longest = lengths.max(axis=0)[rows]  # N
    rank = np.cumsum(np.bincount(longest) > 0, dtype="int32")[longest]
    key = (lengths[-1] - lengths[0])[rows].astype("int64")
    key[rank % 2 == 0] *= -1
    key += rank.astype("int64") * (2 * (int(longest.max()) + 1))
    order = np.argsort(key, kind="stable")
    del key, rank  # large arrays if there are many rows
    rows, longest = rows[order], longest[order]
    batches: list[np.ndarray] = []
    first = 0
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


def fitting(length: int, batch_tokens: int, multiple: int) -> int:
    """Return how many rows of a length fit in a batch."""
    return max(batch_tokens // length // multiple, 1) * multiple


def in_order(
    lengths: np.ndarray, rows: np.ndarray, batch_tokens: int, multiple: int
) -> list[np.ndarray]:
    """Make batches of at most a number of tokens, keeping the order of the rows."""
    longest = lengths.max(axis=0)[rows].tolist()  # N
    batches: list[np.ndarray] = []
    first, widest = 0, 0
    for number, length in enumerate(longest):
        widest = max(widest, length)
        size = number + 1 - first
        if size > multiple and size * widest > batch_tokens:
            last = first + (size - 1) // multiple * multiple
            batches.append(rows[first:last])
            first, widest = last, max(longest[last : number + 1])
    return [*batches, rows[first:]]


def cut(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
