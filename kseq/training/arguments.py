"""What a program that trains takes from its command line: a `type` for `argparse` each.

Bad values end the program in one sentence, before hours of training and not after them.
"""

import argparse
import math
import os
import pathlib


def count(text):
    """A whole number of at least 1: units, layers, epochs, rows of a batch.

    Args:
        text: What was typed.

    Returns:
        `int`.

    Raises:
        argparse.ArgumentTypeError: It is no such number.

    Example:

    >>> import argparse
    >>> from kseq.training import arguments
    >>> parser = argparse.ArgumentParser()
    >>> action = parser.add_argument("--epochs", type=arguments.count)
    >>> parser.parse_args(["--epochs", "12"]).epochs
    12
    """
    return _number(text, int, "a whole number of at least 1", lambda x: x >= 1)


def positive(text):
    """A number above 0: a learning rate, a temperature.

    Args:
        text: What was typed.

    Returns:
        `float`, finite.

    Raises:
        argparse.ArgumentTypeError: It is no such number.

    Example:

    >>> from kseq.training import arguments
    >>> arguments.positive("2e-3")
    0.002
    """
    return _number(text, float, "a number above 0", lambda x: 0 < x < math.inf)


def share(text):
    """A number from 0 to below 1: a dropout.

    Args:
        text: What was typed.

    Returns:
        `float`.

    Raises:
        argparse.ArgumentTypeError: It is no such number.

    Example:

    >>> from kseq.training import arguments
    >>> arguments.share("0.3")
    0.3
    """
    return _number(text, float, "a number from 0 to below 1", lambda x: 0 <= x < 1)


def probability(text):
    """A number above 0 and up to 1: the share of the likeliest tokens to draw from.

    Args:
        text: What was typed.

    Returns:
        `float`.

    Raises:
        argparse.ArgumentTypeError: It is no such number.

    Example:

    >>> from kseq.training import arguments
    >>> arguments.probability("1")
    1.0
    """
    return _number(text, float, "a number above 0, up to 1", lambda x: 0 < x <= 1)


def seed(text):
    """A seed that Python, NumPy and Keras all take: 0 to 2^32 - 1.

    Args:
        text: What was typed.

    Returns:
        `int`.

    Raises:
        argparse.ArgumentTypeError: It is no such number.

    Example:

    >>> from kseq.training import arguments
    >>> arguments.seed("7")
    7
    """
    what = f"a whole number from 0 to {2**32 - 1}"
    return _number(text, int, what, lambda x: 0 <= x < 2**32)


def _number(text, kind, what, is_right):
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if not is_right(number):
        raise argparse.ArgumentTypeError(f"must be {what}. Received: {text}.")
    return number


def folder(path):
    """A path that is a folder, or may become one. Nothing is made here.

    Args:
        path: A string or a path.

    Returns:
        `pathlib.Path`.

    Raises:
        argparse.ArgumentTypeError: Something else has this name, or you may not write
            there.

    Example:

    >>> from kseq.training import arguments
    >>> arguments.folder("made/here").name
    'here'
    """
    path = pathlib.Path(path)
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir():
        problem = f"{there} is a file"
    elif not os.access(there, os.W_OK):
        problem = f"you may not write in {there}"
    else:
        return path
    raise argparse.ArgumentTypeError(
        f"must be a folder, or be free for a new one. Received: {path}, but {problem}."
    )
