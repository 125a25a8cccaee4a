"""Checks of arguments, so that every search and constraint complains alike."""

import math
import numbers

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
