"""Atomic writing of files: complete or absent, even if the process is killed."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

from kseq.typing import PathLike


@contextlib.contextmanager
def replacing(path: PathLike, suffix: str = "") -> Iterator[str]:
    """Yield the path of a temporary file, which replaces `path` at the end.

    The file is flushed to disk before it is renamed. `suffix` is a file ending that the
    writer requires.
    """
    temporary = f"{path}.{os.getpid()}.tmp{suffix}"
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


def write_text(path: PathLike, text: str) -> None:
    """Write a text atomically: readers see the old file or the new one."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)


def write_json(path: PathLike, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value))


def read_json(path: PathLike) -> Any:
    """Return the content of a JSON file, or None if it is absent or damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return None
