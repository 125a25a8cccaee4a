"""Files of text: vocabularies as JSON, readable in any script, and what gzip packs."""

import gzip
import json
import os
import pathlib

GZIP = b"\x1f\x8b"  # how every such file begins


def opened(path):
    """A file to read bytes from, unpacked if it is packed with gzip."""
    with open(path, "rb") as file:
        is_packed = file.read(len(GZIP)) == GZIP
    return gzip.open(path) if is_packed else open(path, "rb")


def write_json(path, content):
    """Writes a JSON file with one entry in a line."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=0)


def replace_json(path, content):
    """Writes a JSON file whole, or leaves what was there."""
    temporary = pathlib.Path(f"{path}.{os.getpid()}.tmp")
    try:
        write_json(temporary, content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path):
    """Reads a JSON file; one that is none is a ValueError that names it."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"A vocabulary must be a JSON file. Received: {path}, which is damaged or "
            f"foreign: {error}"
        ) from error
