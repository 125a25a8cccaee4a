"""What a program that trains takes from its command line: a `type` for `argparse` each.

Bad values end the program in one sentence, before hours of training and not after them.
"""

import argparse
import contextlib
import importlib.util
import math
import os
import pathlib
import sys
import tempfile


class Help(argparse.RawDescriptionHelpFormatter):
    """A help that shows the description as it is written, and every default.

    Give it as `formatter_class` to `argparse.ArgumentParser`. A default stands in
    brackets behind the help of its flag, unless that shows it already.

    Example:

    >>> import argparse
    >>> from kseq.training import cli
    >>> parser = argparse.ArgumentParser(formatter_class=cli.Help)
    >>> action = parser.add_argument("--epochs", default=3, help="of a training")
    >>> print(parser.format_help().splitlines()[-1].strip())
    --epochs EPOCHS  of a training (3)
    """

    def add_argument(self, action):
        has_default = action.default not in (None, False, argparse.SUPPRESS)
        if has_default and "%(default)" not in (action.help or ""):
            action.help = f"{action.help or ''} (%(default)s)".strip()
        super().add_argument(action)


def require(*packages):
    """End the program in one line if a package is not installed.

    Call it before what takes long, so that nothing is lost for a picture.

    Args:
        *packages: Names of packages that the extra `recipes` brings.

    Raises:
        SystemExit: A package is not installed.

    Example:

    >>> from kseq.training import cli
    >>> cli.require("numpy")
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"This program needs {' and '.join(missing)}. Get what recipes need: "
            "pip install kseq[recipes]"
        )


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
    >>> from kseq.training import cli
    >>> parser = argparse.ArgumentParser()
    >>> action = parser.add_argument("--epochs", type=cli.count)
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

    >>> from kseq.training import cli
    >>> cli.positive("2e-3")
    0.002
    """
    return _number(text, float, "a number above 0", lambda x: 0 < x < math.inf)


def not_negative(text):
    """A number of at least 0: a scale of guidance, a weight.

    Args:
        text: What was typed.

    Returns:
        `float`, finite.

    Raises:
        argparse.ArgumentTypeError: It is no such number.

    Example:

    >>> from kseq.training import cli
    >>> cli.not_negative("0")
    0.0
    """
    return _number(text, float, "a number of at least 0", lambda x: 0 <= x < math.inf)


def share(text):
    """A number from 0 to below 1: a dropout.

    Args:
        text: What was typed.

    Returns:
        `float`.

    Raises:
        argparse.ArgumentTypeError: It is no such number.

    Example:

    >>> from kseq.training import cli
    >>> cli.share("0.3")
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

    >>> from kseq.training import cli
    >>> cli.probability("1")
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

    >>> from kseq.training import cli
    >>> cli.seed("7")
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
    """A path that is a folder, or may become one. Nothing that is made here stays.

    Args:
        path: A string or a path.

    Returns:
        `pathlib.Path`.

    Raises:
        argparse.ArgumentTypeError: Something else has this name, or nothing can be
            written there.

    Example:

    >>> from kseq.training import cli
    >>> cli.folder("made/here").name
    'here'
    """
    if not str(path):  # which `Path` takes for the folder at hand
        raise argparse.ArgumentTypeError("must be a folder. Received: nothing.")
    path = pathlib.Path(path)
    missing = [p for p in (path, *path.parents) if not os.path.lexists(p)]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        problem = f"nothing can be written there: {error.strerror}"
        for there in (path, *path.parents):
            if os.path.lexists(there) and not there.is_dir():
                problem = f"{there} is a file"
    finally:
        for made in missing:
            with contextlib.suppress(OSError):
                made.rmdir()
    raise argparse.ArgumentTypeError(
        f"must be a folder, or be free for a new one. Received: {path}, but {problem}."
    )
