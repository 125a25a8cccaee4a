"""Checks of arguments, so that every part of the room complains in the same words."""

import collections.abc
import numbers


def strings(name, values):
    """Returns the values as a list, if they are several strings."""
    is_single = isinstance(values, (str, bytes))
    if is_single or not isinstance(values, collections.abc.Iterable):
        raise ValueError(
            f"`{name}` must be a list of strings. Received: {name}={shortened(values)}."
            + f" Wrap it in a list: [{shortened(values)}]." * is_single
        )
    values = list(values)
    for i, value in enumerate(values):
        if not isinstance(value, (str, bytes)):
            raise ValueError(
                f"`{name}` must be a list of strings. "
                f"Received: {name}[{i}]={shortened(value)}."
            )
    return values


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


def shortened(value):
    """A value for an error message, of a length that can be read."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
