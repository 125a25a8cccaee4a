"""Encode a corpus into a folder of token ids that is mapped into memory.

Axes in shape comments: N rows, L ids of all rows.
"""

import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from kseq.corpora.lines import Lines
from kseq.corpora.output import read_json, write_json
from kseq.token_rows import TokenRows
from kseq.typing import PathLike, Text

CHUNK = 10_000  # lines in memory at a time
IDS, LIMITS, REPORT = "ids.bin", "limits.bin", "report.json"


def encode_file(
    vocabulary: Any,
    source: PathLike | Iterable[Text],
    target: PathLike,
    start: bool = False,
    end: bool = False,
    overwrite: bool = False,
) -> TokenRows:
    """Encode each line as token ids in a folder, once, and map it into memory.

    Mapped data is read from disk on demand, so a corpus may be larger than the memory.
    `kseq.training.teacher_forcing` and `batches` accept it as rows. A repeated call, in
    any process, finds the folder and encodes nothing.

    Args:
        vocabulary: A `kseq.text.Vocabulary`, or any object with the same `encode`,
            `save` and `size`.
        source: A file, a pattern of files, or `Lines` of several; or texts, in any
            iterable that can be iterated repeatedly.
        target: The folder to write, which appears once it is complete. It takes two
            bytes for an id, four if the vocabulary has more than 65,536 ids, and eight
            bytes for a row.
        start: Whether to begin each row with the start token.
        end: Whether to end each row with the end token.
        overwrite: Whether to replace a folder that a different call has written.

    Returns:
        `kseq.token_rows.TokenRows`, which behave like a list of lists of ids.

    Raises:
        ValueError: The folder is from a call with another vocabulary, other options, or
            another source (compared by the sizes and times of files, or by the texts);
            or it was not written by `encode_file`, and is never replaced; or a file or
            a line cannot be read.

    Example:

    >>> import pathlib, tempfile
    >>> from kseq.corpora import Lines, encode_file
    >>> from kseq.text import Vocabulary
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "words.txt").write_text("low\\nslow\\n")
    >>> letters = Vocabulary("character").adapt(Lines(folder / "words.txt"))
    >>> rows = encode_file(letters, folder / "words.txt", folder / "words.ids")
    >>> letters.tokens, rows
    (['l', 'o', 'w', 's'], [[4, 5, 6], [7, 4, 5, 6]])
    """
    target = Path(target)
    if isinstance(source, str | os.PathLike):
        source = Lines(source)
    if not hasattr(source, "__iter__") or iter(source) is source:
        raise ValueError(
            "`source` must be files, or texts that can be iterated more than once. "
            f"Received: source={source!r}. Use `Lines(paths)`, a list, or an object "
            "whose `__iter__` starts from the beginning."
        )
    settings = {
        "vocabulary": checksum(vocabulary),
        "start": bool(start),
        "end": bool(end),
        "source": identity(source),
    }
    report = (read_json(target / REPORT) or {}) if target.is_dir() else {}
    if report.get("settings") == settings:
        return mapped(target, report)
    if target.exists() and not (overwrite and report):
        raise ValueError(
            "`target` must be new, or written by the same call. Received: "
            f"target={str(target)!r}, of another vocabulary, source or option, or not "
            "written by `encode_file`. Use another name, or pass `overwrite=True`, "
            "which replaces a folder that `encode_file` has written."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        report = write_rows(vocabulary, source, temporary, start, end)
        write_json(temporary / REPORT, report | {"settings": settings})
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return mapped(target, report)


def write_rows(
    vocabulary: Any, source: Iterable[Text], folder: Path, start: bool, end: bool
) -> dict[str, Any]:
    """Write the rows of all texts; return their number and the dtype of their ids."""
    texts, rows, place, dtype = iter(source), 0, 0, "uint16"
    with open(folder / IDS, "wb") as ids, open(folder / LIMITS, "wb") as limits:
        limits.write(np.zeros(1, "int64").tobytes())
        while chunk := list(itertools.islice(texts, CHUNK)):
            try:
                part = vocabulary.encode(chunk, start=start, end=end)
            except ValueError as error:
                raise ValueError(
                    "Lines must be texts that the vocabulary can encode. Received, "
                    f"counted from line {rows + 1:,} on: {error}"
                ) from error
            dtype = part.flat.dtype
            ids.write(part.flat.tobytes())
            limits.write((place + np.asarray(part.limits[1:])).tobytes())
            rows, place = rows + len(chunk), place + len(part.flat)
        for file in (ids, limits):
            file.flush()
            os.fsync(file.fileno())
    return {"rows": rows, "dtype": str(dtype)}


def mapped(folder: Path, report: dict[str, Any]) -> TokenRows:
    """Return the rows of a folder, mapped into memory."""
    if not report["rows"]:
        return TokenRows.join([])
    limits = np.memmap(folder / LIMITS, "int64", "r", shape=report["rows"] + 1)
    flat: np.ndarray = np.zeros(0, report["dtype"])
    if limits[-1]:
        flat = np.memmap(folder / IDS, report["dtype"], "r", shape=int(limits[-1]))
    return TokenRows(flat, limits)


def checksum(vocabulary: Any) -> str:
    """Return the SHA-256 of the saved vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocabulary.json")
        vocabulary.save(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()


def identity(source: Iterable[Text]) -> Any:
    """Return what identifies a source: paths, sizes and times, or a hash of texts."""
    if isinstance(source, Lines):
        stats = [(os.path.abspath(path), os.stat(path)) for path in source.paths]
        return [[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats]
    digest = hashlib.sha256()
    for text in source:
        digest.update(repr(text).encode())
    return digest.hexdigest()
