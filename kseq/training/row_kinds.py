"""Kinds of rows of data, and their padded arrays.

Axes in shape comments: N rows, B batch, L steps, D features.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from kseq.token_rows import TokenRows
from kseq.training.flat_rows import FlatRows
from kseq.typing import Tensor

# Rows of data as users pass them: lists, arrays or tensors.
Rows: TypeAlias = Sequence[Any] | np.ndarray | Tensor

FORMS = {
    "class": "classes, integers",
    "number": "numbers, floats",
    "ids": "token ids, integers of shape (steps,)",
    "vector": "vectors, floats of shape (D,)",
    "features": "features, of shape (steps, D)",
    "picture": "pictures, of shape (H, W, C)",
}


def checked_rows(
    name: str, data: Rows, kinds: Sequence[str], pad_token_id: int | None = None
) -> Sequence[np.ndarray]:
    """Return rows of one of the kinds: ids and classes as int32, others as float32.

    Ids become `FlatRows`, other rows a list of arrays. If `pad_token_id` is given,
    padding at the end of rows of ids is removed.
    """
    if isinstance(data, TokenRows) and len(data) and "ids" in kinds:
        return FlatRows.of(data, pad_token_id)
    if hasattr(data, "to_list"):  # a ragged tensor
        data = data.to_list()
    has_rows = hasattr(data, "__len__") and getattr(data, "ndim", 1) != 0
    if not has_rows or not len(data):
        raise ValueError(
            f"`{name}` must have at least one row. Received: {name}={data!r}."
        )
    rows = [np.asarray(row) for row in data]
    kind = kind_of(rows[0])
    fixed = 1 if is_sequence(rows[0]) else 0
    for index, row in enumerate(rows):
        is_like_first = row.shape[fixed:] == rows[0].shape[fixed:]
        if kind not in kinds or kind_of(row) != kind or not is_like_first:
            forms = "; or ".join(FORMS[kind] for kind in kinds)
            which = "one kind: " if len(kinds) > 1 else ""
            raise ValueError(
                f"`{name}` must be rows of {which}{forms}. Received: {name}[{index}]"
                f" of shape {row.shape} and dtype={row.dtype}."
            )
    if kind == "ids":
        return FlatRows.of(rows, pad_token_id)
    return [row.astype("int32" if kind == "class" else "float32") for row in rows]


def kind_of(row: np.ndarray) -> str | None:
    """Return the kind of a row, or None if it is of no known kind."""
    if row.dtype.kind not in "biuf":
        return None
    is_integer = row.dtype.kind in "iu" or not row.size
    if row.ndim < 2 and is_integer:
        return ("class", "ids")[row.ndim]
    return {0: "number", 1: "vector", 2: "features", 3: "picture"}.get(row.ndim)


def is_sequence(row: np.ndarray) -> bool:
    """Return whether rows of this kind may have different lengths."""
    return kind_of(row) in ("ids", "features")


def lengths_of(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Return the number of steps of each row, which is 1 for rows without steps."""
    if isinstance(rows, FlatRows):
        return rows.lengths
    is_steps = is_sequence(rows[0])
    return np.array([len(row) if is_steps else 1 for row in rows], "int32")


def stacked(
    rows: Sequence[np.ndarray],
    numbers: Iterable[int] | np.ndarray,
    length: int,
    padding: float,
) -> np.ndarray:
    """Return the B rows with these numbers as one array.

    Sequences are padded with `padding` to `length` steps.
    """
    if isinstance(rows, FlatRows):
        return rows.stacked(np.asarray(numbers), length, padding)
    chosen = [rows[number] for number in numbers]
    if not is_sequence(chosen[0]):
        return np.stack(chosen)
    features = chosen[0].shape[1:]
    padded = np.full((len(chosen), length, *features), padding, chosen[0].dtype)
    for index, row in enumerate(chosen):
        padded[index, : len(row)] = row
    return padded  # B L ...
