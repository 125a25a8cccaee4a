"""Token ids of a corpus in a folder, read once and then mapped into memory.

Axes in shape comments: N rows, L ids of all rows.
"""

import hashlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from kseq.corpora.lines import Lines
from kseq.corpora.output import read_json, write_json
from kseq.token_rows import TokenRows

CHUNK = 10_000  # lines that are in memory at a time
IDS, LIMITS, REPORT = "ids.bin", "limits.bin", "report.json"


def encode_file(vocabulary, source, target, start=False, end=False, overwrite=False):
    """Writes the token ids of each line to a folder, once, and maps it into memory.

    What is mapped is read from disk as it is needed, and kept as long as there is room:
    a corpus may be larger than the memory. `kseq.training.teacher_forcing` and
    `batches` take it for rows. The same call finds the folder, in any process, and
    encodes nothing.

    Args:
        vocabulary: A `kseq.text.Vocabulary`, or whatever has `encode`, `save` and
            `size` as it has.
        source: A file, a pattern of files, or `Lines` of several; or texts, any
            iterable that begins anew each time.
        target: The folder to write, which appears when it is whole: two bytes for an
            id, four where the vocabulary has more than 65,536, and eight for a row.
        start: Whether to begin each row with the start token.
        end: Whether to finish each row with the end token.
        overwrite: Whether to replace a folder that another call has written.

    Returns:
        `kseq.token_rows.TokenRows`, which read like a list of lists of ids.

    Raises:
        ValueError: The folder is of another call, by its vocabulary, the size and the
            time of its files, or its texts; or is another folder, which nothing
            replaces; or a file or a line cannot be read.

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
            "`source` must be files, or texts that can be gone through more than once. "
            f"Received: source={source!r}. Use `Lines(paths)`, a list, or an object "
            "whose `__iter__` begins anew."
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
            "`target` must be new, or what the same call has written. Received: "
            f"target={str(target)!r}, of another vocabulary, source or option, or no "
            "such folder at all. Name another, or pass `overwrite=True`, which "
            "replaces what `encode_file` has written."
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


def write_rows(vocabulary, source, folder, start, end):
    """Writes the rows of all texts, and returns how many there are, and of what."""
    texts, rows, place, dtype = iter(source), 0, 0, "uint16"
    with open(folder / IDS, "wb") as ids, open(folder / LIMITS, "wb") as limits:
        limits.write(np.zeros(1, "int64").tobytes())
        while chunk := list(itertools.islice(texts, CHUNK)):
            try:
                part = vocabulary.encode(chunk, start=start, end=end)
            except ValueError as error:
                raise ValueError(
                    "Lines must be texts that the vocabulary takes. Received, counted "
                    f"from line {rows + 1:,} on: {error}"
                ) from error
            dtype = part.flat.dtype
            ids.write(part.flat.tobytes())
            limits.write((place + np.asarray(part.limits[1:])).tobytes())
            rows, place = rows + len(chunk), place + len(part.flat)
        for file in (ids, limits):
            file.flush()
            os.fsync(file.fileno())
    return {"rows": rows, "dtype": str(dtype)}


def mapped(folder, report):
    """The rows in a folder, of which nothing is read yet."""
    if not report["rows"]:
        return TokenRows.join([])
    limits = np.memmap(folder / LIMITS, "int64", "r", shape=report["rows"] + 1)
    flat = np.zeros(0, report["dtype"])
    if limits[-1]:
        flat = np.memmap(folder / IDS, report["dtype"], "r", shape=int(limits[-1]))
    return TokenRows(flat, limits)


def checksum(vocabulary):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocabulary.json")
        vocabulary.save(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()


def identity(source):
    """What tells a source from others: files by size and time, texts by all of them."""
    if isinstance(source, Lines):
        stats = [(os.path.abspath(path), os.stat(path)) for path in source.paths]
        return [[path, stat.st_size, stat.st_mtime_ns] for path, stat in stats]
    digest = hashlib.sha256()
    for text in source:
        digest.update(repr(text).encode())
    return digest.hexdigest()
