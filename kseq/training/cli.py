"""Argument types for the command line of training programs, to use with `argparse`.

A bad value ends the program with one sentence before training begins.
"""

import argparse
import contextlib
import importlib.util
import math
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from kseq.typing import PathLike


class Help(argparse.RawDescriptionHelpFormatter):
    """A help formatter that keeps the description as written and shows all defaults.

    Pass it as `formatter_class` to `argparse.ArgumentParser`. The default of a flag is
    added to its help in parentheses, unless the help shows it already.

    Example:

    >>> import argparse
    >>> from kseq.training import cli
    >>> parser = argparse.ArgumentParser(formatter_class=cli.Help)
    >>> action = parser.add_argument("--epochs", default=3, help="of a training")
    >>> print(parser.format_help().splitlines()[-1].strip())
    --epochs EPOCHS  of a training (3)
    """

    def add_argument(self, action: argparse.Action) -> None:
        has_default = action.default not in (None, False, argparse.SUPPRESS)
        if has_default and "%(default)" not in (action.help or ""):
            action.help = f"{action.help or ''} (%(default)s)".strip()
        super().add_argument(action)


def require(*packages: str) -> None:
    """Exit with a one-line message if a package is not installed.

    Call it before long computations, so that no result is lost for want of a package.

    Args:
        *packages: Names of packages that the extra `recipes` installs.

    Raises:
        SystemExit: A package is not installed.

    Example:

    >>> from kseq.training import cli
    >>> cli.require("numpy")
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"This program needs {' and '.join(missing)}. Install the packages of the "
            "recipes: pip install kseq[recipes]"
        )


def count(text: str) -> int:
    """Parse an integer of at least 1: units, layers, epochs, rows of a batch.

    Args:
        text: The argument.

    Returns:
        `int`.

    Raises:
        argparse.ArgumentTypeError: The argument is not such a number.

    Example:

    >>> import argparse
    >>> from kseq.training import cli
    >>> parser = argparse.ArgumentParser()
    >>> action = parser.add_argument("--epochs", type=cli.count)
    >>> parser.parse_args(["--epochs", "12"]).epochs
    12
    """
    return _number(text, int, "a whole number of at least 1", lambda x: x >= 1)


def positive(text: str) -> float:
    """Parse a number above 0: a learning rate, a temperature.

    Args:
        text: The argument.

    Returns:
        `float`, finite.

    Raises:
        argparse.ArgumentTypeError: The argument is not such a number.

    Example:

    >>> from kseq.training import cli
    >>> cli.positive("2e-3")
    0.002
    """
    return _number(text, float, "a number above 0", lambda x: 0 < x < math.inf)


def not_negative(text: str) -> float:
    """Parse a non-negative number: a guidance scale, a weight.

    Args:
        text: The argument.

    Returns:
        `float`, finite.

    Raises:
        argparse.ArgumentTypeError: The argument is not such a number.

    Example:

    >>> from kseq.training import cli
    >>> cli.not_negative("0")
    0.0
    """
    return _number(text, float, "a non-negative number", lambda x: 0 <= x < math.inf)


def share(text: str) -> float:
    """Parse a number from 0 to below 1: a dropout rate.

    Args:
        text: The argument.

    Returns:
        `float`.

    Raises:
        argparse.ArgumentTypeError: The argument is not such a number.

    Example:

    >>> from kseq.training import cli
    >>> cli.share("0.3")
    0.3
    """
    return _number(text, float, "a number from 0 to below 1", lambda x: 0 <= x < 1)


def probability(text: str) -> float:
    """Parse a number above 0 and up to 1: the `p` of top-p sampling.

    Args:
        text: The argument.

    Returns:
        `float`.

    Raises:
        argparse.ArgumentTypeError: The argument is not such a number.

    Example:

    >>> from kseq.training import cli
    >>> cli.probability("1")
    1.0
    """
    return _number(text, float, "a number above 0, up to 1", lambda x: 0 < x <= 1)


def seed(text: str) -> int:
    """Parse a seed that Python, NumPy and Keras all accept: 0 to 2^32 - 1.

    Args:
        text: The argument.

    Returns:
        `int`.

    Raises:
        argparse.ArgumentTypeError: The argument is not such a number.

    Example:

    >>> from kseq.training import cli
    >>> cli.seed("7")
    7
    """
    what = f"a whole number from 0 to {2**32 - 1}"
    return _number(text, int, what, lambda x: 0 <= x < 2**32)


def _number(
    text: str,
    kind: Callable[[str], Any],
    what: str,
    is_right: Callable[[float], bool],
) -> Any:
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if not is_right(number):
        raise argparse.ArgumentTypeError(f"must be {what}. Received: {text}.")
    return number


def folder(path: PathLike) -> pathlib.Path:
    """Check a path of a folder that exists or can be created.

    Folders that are created for the check are removed again.

    Args:
        path: A string or a path.

    Returns:
        `pathlib.Path`.

    Raises:
        argparse.ArgumentTypeError: The path is a file, or the folder cannot be written
            to.

    Example:

    >>> from kseq.training import cli
    >>> cli.folder("made/here").name
    'here'
    """
    if not str(path):  # `Path("")` would be the current folder
        raise argparse.ArgumentTypeError("must be a folder. Received: nothing.")
    path = pathlib.Path(path)
    missing = [p for p in (path, *path.parents) if not os.path.lexists(p)]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        problem = f"it cannot be written to: {error.strerror}"
        for there in (path, *path.parents):
            if os.path.lexists(there) and not there.is_dir():
                problem = f"{there} is a file"
    finally:
        for made in missing:
            with contextlib.suppress(OSError):
                made.rmdir()
    raise argparse.ArgumentTypeError(
        f"must be a folder, or a path for a new one. Received: {path}, but {problem}."
    )
