"""Checks of arguments, so that every part of the room complains in the same words."""

import collections.abc
import numbers

NO_NUL = ('{}.replace(b"\\0", b"")', '{}.replace("\\0", "")')  # of bytes, of a string
NO_UTF8 = ('{}.decode("latin-1")', '{}.encode("utf-8", "replace").decode()')


def strings(name, values, first=0):
    """Returns the values as a list, if they are several strings.

    The first of them has the number `first`.
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
                hint = f" A data set gives strings by `{name}.as_numpy_iterator()`."
            raise ValueError(
                f"`{name}` must be a list of strings. "
                f"Received: {name}[{i}]={shortened(value)}.{hint}"
            )
    return values


def is_list(values):
    """Tell whether values come one after another, and not by names."""
    is_iterable = isinstance(values, collections.abc.Iterable)
    has_names = isinstance(values, collections.abc.Mapping)
    return is_iterable and not has_names and getattr(values, "shape", None) != ()


def utf8(name, texts, first=0):
    """Returns texts as UTF-8, if that is what each can be.

    A NUL ends a string in some of the functions that texts go through, so none is let
    in. The first of the texts has the number `first`.
    """
    encoded = []
    for i, text in enumerate(texts, first):
        is_text = isinstance(text, str)
        try:
            encoded.append(text.encode() if is_text else text)
            problem = b"\0" in encoded[-1] and ("a NUL", NO_NUL[is_text])
            encoded[-1].decode()
        except UnicodeError as error:
            problem = error.reason, NO_UTF8[is_text]
        if problem:
            raise ValueError(
                f"`{name}` must be texts in UTF-8 without a NUL. Received: {name}[{i}]="
                f"{shortened(text)}, with {problem[0]}. Mend it: `"
                f"{problem[1].format(f'{name}[{i}]')}`."
            )
    return encoded


def one_of(name, value, options):
    """Returns the value if it is one of the options."""
    if not isinstance(value, (str, bool, type(None))) or value not in options:
        names = ", ".join(repr(option) for option in options)
        raise ValueError(
            f"`{name}` must be one of {names}. Received: {name}={value!r}."
        )
    return value


def at_least(name, value, least):
    """Returns the value if it is an integer that is great enough."""
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or value < least:
        raise ValueError(
            f"`{name}` must be an integer of at least {least}. "
            f"Received: {name}={value!r}."
        )
    return int(value)


def checked_share(name, value, least=0):
    """Returns the value as a float if it is a number from the least to 1."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not least <= value <= 1:
        raise ValueError(
            f"`{name}` must be a number from {least} to 1. Received: {name}={value!r}."
        )
    return float(value)


def shortened(value):
    """A value for an error message, of a length that can be read."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
