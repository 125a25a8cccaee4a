"""Rows of data: what kinds there are, and how a batch of them becomes one array.

Axes in shape comments: N rows, B batch, L steps, D features.
"""

import numpy as np

FORMS = {
    "class": "classes, integers",
    "number": "numbers, floats",
    "ids": "token ids, integers of shape (steps,)",
    "vector": "vectors, floats of shape (D,)",
    "features": "features, of shape (steps, D)",
    "picture": "pictures, of shape (H, W, C)",
}


def checked_rows(name, data, kinds, pad_token_id=None):
    """Rows of one of the kinds: ids and classes as int32, other numbers as float32.

    Padding behind the ids is cut off if `pad_token_id` says which id that is.
    """
    if hasattr(data, "to_list"):  # ragged
        data = data.to_list()
    has_rows = hasattr(data, "__len__") and getattr(data, "ndim", 1)
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
    is_integer = kind in ("ids", "class")
    rows = [row.astype("int32" if is_integer else "float32") for row in rows]
    if kind == "ids" and pad_token_id is not None:
        return [_trim(row, pad_token_id) for row in rows]
    return rows


def kind_of(row):
    """What a row is, or None if it is nothing that a model reads."""
    if row.dtype.kind not in "biuf":
        return None
    is_integer = row.dtype.kind in "iu" or not row.size
    if row.ndim < 2 and is_integer:
        return ("class", "ids")[row.ndim]
    return {0: "number", 1: "vector", 2: "features", 3: "picture"}.get(row.ndim)


def is_sequence(row):
    """Whether rows like this one may have different lengths."""
    return kind_of(row) in ("ids", "features")


def stacked(rows, length, padding):
    """One array of B rows; sequences are filled up with `padding` to `length` steps."""
    if not is_sequence(rows[0]):
        return np.stack(rows)
    features = rows[0].shape[1:]
    padded = np.full((len(rows), length, *features), padding, rows[0].dtype)  # B L ...
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def _trim(row, pad_token_id):
    real = np.flatnonzero(row != pad_token_id)
    return row[: real[-1] + 1] if real.size else row[:0]
