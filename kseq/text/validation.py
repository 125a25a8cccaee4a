"""Argument checks with uniform error messages for the whole package."""

import collections.abc
import numbers
from collections.abc import Iterable
from typing import Any, TypeGuard, TypeVar

Value = TypeVar("Value")

# Code that removes the problem, for bytes and for a string.
NO_NUL = ('{}.replace(b"\\0", b"")', '{}.replace("\\0", "")')
NO_UTF8 = ('{}.decode("latin-1")', '{}.encode("utf-8", "replace").decode()')


def strings(name: str, values: object, first: int = 0) -> list[str | bytes]:
    """Return the values as a list; raise unless they are a list of strings.

    Args:
        name: The name of the argument.
        values: The values to check.
        first: The number of the first value, for error messages.
    """
    is_single = isinstance(values, (str, bytes))
    if is_single or not is_list(values):
        raise ValueError(
            f"`{name}` must be a list of strings. Received: {name}={shortened(values)}."
            + f" Wrap it in a list: `[{name}]`." * is_single
        )
    values = list(values)
    for i, value in enumerate(values, first):
        if not isinstance(value, (str, bytes)):
            hint = f' Join symbols: `[" ".join(x) for x in {name}]`.' * is_list(value)
            if hasattr(value, "numpy"):
                hint = f" For a data set, use `{name}.as_numpy_iterator()`."
            raise ValueError(
                f"`{name}` must be a list of strings. "
                f"Received: {name}[{i}]={shortened(value)}.{hint}"
            )
    return values


def is_list(values: object) -> TypeGuard[Iterable[Any]]:
    """Tell whether values are iterable, and neither a mapping nor a scalar."""
    is_iterable = isinstance(values, collections.abc.Iterable)
    has_names = isinstance(values, collections.abc.Mapping)
    return is_iterable and not has_names and getattr(values, "shape", None) != ()


def utf8(name: str, texts: Iterable[Any], first: int = 0) -> list[bytes]:
    """Return texts encoded in UTF-8; raise if one is not UTF-8 or holds a NUL.

    Some TensorFlow functions end a string at a NUL, so it is never allowed.

    Args:
        name: The name of the argument.
        texts: Strings or bytes.
        first: The number of the first text, for error messages.
    """
    encoded: list[bytes] = []
    for i, text in enumerate(texts, first):
        is_text = isinstance(text, str)
        problem = None
        try:
            encoded.append(text.encode() if is_text else text)
            if b"\0" in encoded[-1]:
                problem = "a NUL", NO_NUL[is_text]
            encoded[-1].decode()
        except (UnicodeEncodeError, UnicodeDecodeError) as error:
            problem = error.reason, NO_UTF8[is_text]
        if problem:
            raise ValueError(
                f"`{name}` must be texts in UTF-8 without a NUL. Received: {name}[{i}]="
                f"{shortened(text)}, with {problem[0]}. Fix it: `"
                f"{problem[1].format(f'{name}[{i}]')}`."
            )
    return encoded


def one_of(name: str, value: Value, options: Iterable[object]) -> Value:
    """Return the value; raise unless it is one of the options."""
    if not isinstance(value, (str, bool, type(None))) or value not in options:
        names = ", ".join(repr(option) for option in options)
        raise ValueError(
            f"`{name}` must be one of {names}. Received: {name}={value!r}."
        )
    return value


def at_least(name: str, value: int, least: int) -> int:
    """Return the value as an `int`; raise unless it is an integer >= `least`."""
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or value < least:
        raise ValueError(
            f"`{name}` must be an integer of at least {least}. "
            f"Received: {name}={value!r}."
        )
    return int(value)


def checked_share(name: str, value: float, least: float = 0) -> float:
    """Return the value as a `float`; raise unless it is from `least` to 1."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not least <= value <= 1:
        raise ValueError(
            f"`{name}` must be a number from {least} to 1. Received: {name}={value!r}."
        )
    return float(value)


def shortened(value: object) -> str:
    """Return the `repr` of a value, cut to 60 characters for an error message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
