"""Where a program writes what it makes."""

import argparse
import os
import pathlib


def output_folder(path):
    """A path that is a folder, or may become one: a `type` for `argparse`.

    Looked at before hours of training, not after them. Nothing is made here.

    Args:
        path: A string or a path.

    Returns:
        `pathlib.Path`.

    Raises:
        argparse.ArgumentTypeError: Something else has this name, or you may not write
            there.

    Example:

    >>> import argparse
    >>> from kseq.training import output_folder
    >>> parser = argparse.ArgumentParser()
    >>> action = parser.add_argument("--output", type=output_folder, default="made")
    >>> parser.parse_args([]).output.name
    'made'
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
