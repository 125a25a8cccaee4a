"""Checks of arguments that searches and constraints share."""

import math
import numbers
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from kseq.typing import Tensor, TensorLike

if TYPE_CHECKING:
    import numpy as np


def positive_integer(name: str, value: Any) -> int:
    """Return a positive integer. Raise for any other value."""
    if not is_integer(value) or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}."
        )
    return int(value)


def number(
    name: str, value: Any, what: str, is_in_range: Callable[[float], bool]
) -> float:
    """Return a finite number in a range. Raise otherwise.

    Args:
        name: Name of the argument.
        value: The value to check.
        what: Description of valid values for the message, such as "a positive number".
        is_in_range: Function that returns True for a number in the range.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not is_in_range(value):
        raise ValueError(f"`{name}` must be {what}. Received: {name}={value!r}.")
    return float(value)


def is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_token(value: Any) -> bool:
    return is_integer(value) and value >= 0


def token_tuple(name: str, token_ids: Any) -> tuple[int, ...]:
    """Return token ids as a tuple. Raise unless there is at least one."""
    ids = _listed(token_ids)
    if not ids or not all(is_token(token) for token in ids):
        raise ValueError(
            f"`{name}` must be token ids, at least one, such as [3, 5]. Received: "
            f"{name}={token_ids!r}."
        )
    return tuple(int(token) for token in ids)


def token_sequences(name: str, sequences: Any) -> tuple[tuple[int, ...], ...]:
    """Return lists of token ids as a tuple of tuples. Raise if one is empty."""
    rows = [_listed(row) for row in _listed(sequences)]
    if not rows or not all(row and all(map(is_token, row)) for row in rows):
        raise ValueError(
            f"`{name}` must be lists of token ids, at least one and none of them "
            f"empty, such as [[3, 5], [4]]. Received: {name}={sequences!r}."
        )
    return tuple(tuple(int(token) for token in row) for row in rows)


def _listed(values: Any) -> list[Any]:
    """Return the values of a list, tuple, array, set or range; else an empty list."""
    if hasattr(values, "tolist"):
        values = values.tolist()
    is_listed = isinstance(values, list | tuple | set | frozenset | range)
    return list(values) if is_listed else []


def is_among(
    constraint: object, token_ids: Collection[int], vocabulary_size: int
) -> Tensor:
    """Return a mask of fixed tokens in the vocabulary: booleans `(V,)`."""
    check_vocabulary(constraint, token_ids, vocabulary_size)
    found = set(token_ids)
    return ops.convert_to_tensor([v in found for v in range(vocabulary_size)], "bool")


def check_vocabulary(
    constraint: object, token_ids: Collection[int], vocabulary_size: int
) -> None:
    """Raise if a token is not in the model's vocabulary."""
    if max(token_ids) >= vocabulary_size:
        raise ValueError(
            "A constraint must use token ids of the model, which are below "
            f"{vocabulary_size}. Received: token {max(token_ids)} in {constraint}."
        )


def concrete_values(tensor: TensorLike) -> "np.ndarray | None":
    """Return a tensor as a NumPy array, or None while a function is compiled."""
    try:
        return ops.convert_to_numpy(tensor)
    except Exception:  # each backend raises its own error for a symbolic tensor
        return None


def integers(name: str, values: TensorLike, axes: str, least: int = 0) -> Tensor:
    """Return integers as a tensor of int32. Raise for other values or axes.

    Args:
        name: Name of the argument.
        values: The integers.
        axes: The required axes, such as "(B, P)".
        least: Minimum of the integers. It is not checked while a function is compiled.
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


def check_ends(end_token_id: Any, pad_token_id: Any) -> None:
    """Raise unless the end token and padding are different token ids."""
    if not is_token(end_token_id):
        raise ValueError(
            "`end_token_id` must be a token id, a non-negative integer. Received: "
            f"end_token_id={end_token_id!r}. To always generate up to `max_length`, "
            "ban the end token: `BannedTokens([end_token_id])`."
        )
    if not is_token(pad_token_id):
        raise ValueError(
            "`pad_token_id` must be a token id, a non-negative integer. Received: "
            f"pad_token_id={pad_token_id!r}."
        )
    if end_token_id == pad_token_id:
        raise ValueError(
            "`end_token_id` and `pad_token_id` must be different tokens, since padding "
            f"is never generated. Received: {end_token_id} for both."
        )


def check_prefix(
    prefix: Tensor, end_token_id: int, pad_token_id: int, max_length: int
) -> None:
    """Raise if no hypothesis can begin with a prefix.

    The prefix is not checked while a function is compiled.
    """
    seen = concrete_values(prefix)
    if seen is None:
        return
    for row in seen.tolist():
        while row and row[-1] == pad_token_id:
            row.pop()
        if len(row) > max_length:
            raise ValueError(
                "`max_length` must be at least the length of the prefix. Received: "
                f"max_length={max_length} for a prefix of {len(row)} tokens."
            )
        if end_token_id in row[:-1]:
            raise ValueError(
                f"Only padding may follow the end token, {end_token_id}, in a prefix. "
                f"Received: {row}."
            )
