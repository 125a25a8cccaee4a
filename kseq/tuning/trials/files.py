"""Files that are whole or absent, whatever kills the process that writes them."""

import contextlib
import json
import os


@contextlib.contextmanager
def replacing(path, suffix=""):
    """Gives the path of a temporary file, which takes the place of `path` at the end.

    The file is on the disk before it is renamed. `suffix` is the ending that a writer
    insists on.
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


def write_text(path, text):
    """Writes a text in one stroke: readers see the old file or the new one."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)


def write_json(path, value):
    """Writes JSON in one stroke."""
    write_text(path, json.dumps(value))


def read_json(path):
    """Returns what the file holds, or None if it is absent or damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return None
