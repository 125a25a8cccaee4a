"""Checks of arguments, so that every search and constraint complains alike."""

import math
import numbers

import keras
from keras import ops


def positive_integer(name, value):
    """Returns the value if it is an integer of at least 1."""
    if not is_integer(value) or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}."
        )
    return int(value)


def number(name, value, what, is_in_range):
    """Returns the value if it is a finite number that is in the range; else says so."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not is_in_range(value):
        raise ValueError(f"`{name}` must be {what}. Received: {name}={value!r}.")
    return float(value)


def is_integer(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_token(value):
    return is_integer(value) and value >= 0


def token_tuple(name, token_ids):
    """Returns token ids as a tuple, at least one."""
    ids = _listed(token_ids)
    if not ids or not all(is_token(token) for token in ids):
        raise ValueError(
            f"`{name}` must be token ids, at least one, such as [3, 5]. Received: "
            f"{name}={token_ids!r}."
        )
    return tuple(int(token) for token in ids)


def token_sequences(name, sequences):
    """Returns lists of token ids as a tuple of tuples."""
    rows = [_listed(row) for row in _listed(sequences)]
    if not rows or not all(row and all(map(is_token, row)) for row in rows):
        raise ValueError(
            f"`{name}` must be lists of token ids, at least one and none of them "
            f"empty, such as [[3, 5], [4]]. Received: {name}={sequences!r}."
        )
    return tuple(tuple(int(token) for token in row) for row in rows)


def _listed(values):
    """The values of a list, tuple, array or set as a list; else nothing."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    is_listed = isinstance(values, list | tuple | set | frozenset | range)
    return list(values) if is_listed else []


def is_among(constraint, token_ids, vocabulary_size):
    """Which words of the vocabulary are among fixed tokens: boolean `(V,)`."""
    check_vocabulary(constraint, token_ids, vocabulary_size)
    found = set(token_ids)
    return ops.convert_to_tensor([v in found for v in range(vocabulary_size)], "bool")


def check_vocabulary(constraint, token_ids, vocabulary_size):
    """Refuses a token that the model does not have."""
    if max(token_ids) >= vocabulary_size:
        raise ValueError(
            "A constraint must name tokens of the model, which are below "
            f"{vocabulary_size}. Received: token {max(token_ids)} in {constraint}."
        )


def concrete_values(tensor):
    """The values as a NumPy array, or None while a function is being compiled."""
    try:
        return ops.convert_to_numpy(tensor)
    except Exception:  # each backend has its own way to refuse a symbolic tensor
        return None


def integers(name, values, axes, least=0):
    """Returns numbers as a tensor of int32, with these axes, such as "(B, P)".

    Values that can be seen, which are all but those of a compiled function, must not be
    below the least.
    """
    rank = axes.count(",") + (axes[-2] != ",")  # "(B,)", "(B, P)"
    try:
        tensor = ops.convert_to_tensor(values)
    except (TypeError, ValueError):
        tensor = None  # rows of different lengths, None, strings
    if tensor is not None and len(tensor.shape) == rank:
        kind = keras.backend.standardize_dtype(tensor.dtype)
        seen = concrete_values(tensor)
        is_fine = kind.startswith(("int", "uint")) or 0 in tensor.shape
        if is_fine and (seen is None or (seen >= least).all()):
            return ops.cast(tensor, "int32")
    raise ValueError(
        f"`{name}` must be integers of at least {least}, shape {axes}. Received: "
        f"{name}={values!r}."
    )


def check_ends(end_token_id, pad_token_id):
    """Refuse an end that is no token, or that cannot be told from padding."""
    if not is_token(end_token_id):
        raise ValueError(
            "`end_token_id` must be a token id, an integer of at least 0. Received: "
            f"end_token_id={end_token_id!r}. To write up to `max_length` always, ban "
            "the end: `BannedTokens([end_token_id])`."
        )
    if not is_token(pad_token_id):
        raise ValueError(
            "`pad_token_id` must be a token id, an integer of at least 0. Received: "
            f"pad_token_id={pad_token_id!r}."
        )
    if end_token_id == pad_token_id:
        raise ValueError(
            "`end_token_id` and `pad_token_id` must be different tokens, since padding "
            f"is never written. Received: {end_token_id} for both."
        )


def check_prefix(prefix, end_token_id, pad_token_id, max_length):
    """Refuse a prefix that no hypothesis can begin with, where its values are seen."""
    seen = concrete_values(prefix)
    if seen is None:
        return
    for row in seen.tolist():
        while row and row[-1] == pad_token_id:
            row.pop()
        if len(row) > max_length:
            raise ValueError(
                "`max_length` must leave room for the prefix. Received: max_length="
                f"{max_length} for a prefix of {len(row)} tokens."
            )
        if end_token_id in row[:-1]:
            raise ValueError(
                f"Nothing but padding may stand behind the end token, {end_token_id}, "
                f"of a prefix. Received: {row}."
            )
