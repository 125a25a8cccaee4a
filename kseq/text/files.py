"""Read and write JSON files, readable in any script, and read gzip files."""

import gzip
import io
import json
import os
import pathlib
from typing import Any

from kseq.typing import PathLike

GZIP = b"\x1f\x8b"  # the first bytes of a gzip file


def opened(path: PathLike) -> gzip.GzipFile | io.BufferedReader:
    """Open a file for reading bytes; decompress it if it is compressed with gzip."""
    with open(path, "rb") as file:
        is_packed = file.read(len(GZIP)) == GZIP
    return gzip.open(path) if is_packed else open(path, "rb")


def write_json(path: PathLike, content: Any) -> None:
    """Write a JSON file with one entry per line."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=0)


def replace_json(path: PathLike, content: Any) -> None:
    """Write a JSON file atomically: on failure the old file is kept."""
    temporary = pathlib.Path(f"{path}.{os.getpid()}.tmp")
    try:
        write_json(temporary, content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: PathLike) -> Any:
    """Read a JSON file; if it is not valid JSON, raise a `ValueError` that names it."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"A vocabulary must be a JSON file. Received: {path}, which is damaged or "
            f"not JSON: {error}"
        ) from error
