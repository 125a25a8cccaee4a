"""Read files of word vectors of word2vec, GloVe and fastText, text or binary.

Words are read one by one, so files of any size need little memory.

Axes in shape comments: D width.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kseq.text.files import opened
from kseq.text.validation import shortened
from kseq.typing import PathLike

FASTTEXT = b"\xba\x16\x4f\x2f"  # the first bytes of a whole model
LONGEST_LINE, LONGEST_WORD = 1 << 20, 1 << 12  # bytes


def read_words(
    path: PathLike, is_wanted: Callable[[bytes], bool]
) -> Iterator[tuple[bytes, np.ndarray]]:
    """Yield the wanted words of a file, as bytes, and their vectors `(D,)`.

    Args:
        path: Path of a file, which may be compressed with gzip: a text file with a word
            and D numbers in each line (GloVe), after a first line `N D` (word2vec,
            fastText); or a binary file of word2vec.
        is_wanted: Function of a word in bytes.

    Raises:
        ValueError: The file is of another kind, damaged or truncated.
    """
    try:
        with opened(path) as file:
            yield from _read(file, path, is_wanted)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, f"gzip that is truncated or damaged: {error}") from error


def is_fasttext(path: PathLike) -> bool:
    """Tell whether a file is a whole fastText model, which may also end in `.bin`."""
    with open(path, "rb") as file:
        return file.read(len(FASTTEXT)) == FASTTEXT


def _read(
    file: Any, path: PathLike, is_wanted: Callable[[bytes], bool]
) -> Iterator[tuple[bytes, np.ndarray]]:
    """Detect the format of an open file, and yield its wanted words."""
    first = file.readline(LONGEST_LINE)
    header = first.split()
    if len(header) == 2 and all(map(bytes.isdigit, header)):
        number, width = map(int, header)
        begin = file.tell()
        is_text = _vector(file.readline(LONGEST_LINE).rsplit(maxsplit=width)[1:], width)
        file.seek(begin)
        if is_text is None:
            yield from _binary_words(file, path, number, width, is_wanted)
        else:
            yield from _text_words(file, path, width, is_wanted, number)
        return
    width = len(header) - 1
    if width < 1 or _vector(header[1:], width) is None:
        raise _damaged(path, f"{shortened(first)} as its first line")
    file.seek(0)
    yield from _text_words(file, path, width, is_wanted)


def _text_words(
    file: Any,
    path: PathLike,
    width: int,
    is_wanted: Callable[[bytes], bool],
    number: int | None = None,
) -> Iterator[tuple[bytes, np.ndarray]]:
    """Yield the wanted words of a text file of `number` words, if that is known."""
    count = 0
    for line in file:
        count += 1
        line = line.rstrip()
        is_plain = line.count(b" ") == width  # some words of GloVe have spaces
        if is_plain and not is_wanted(line[: line.index(b" ")]):
            continue  # the common case
        word, *parts = line.rsplit(maxsplit=width) or [b""]
        if is_wanted(word) or len(parts) != width:
            vector = _vector(parts, width)
            if vector is None:
                raise _damaged(path, f"{shortened(line)} as the line of word {count}")
            yield word, vector
    if number is not None and count != number:
        raise _damaged(path, f"{count} words where its first line says {number}")


def _binary_words(
    file: Any,
    path: PathLike,
    number: int,
    width: int,
    is_wanted: Callable[[bytes], bool],
) -> Iterator[tuple[bytes, np.ndarray]]:
    """Yield the wanted words of a binary file of `number` words."""
    size = 4 * width
    for count in range(number):
        read = bytearray()
        while (letter := file.read(1)) not in (b" ", b"") and len(read) < LONGEST_WORD:
            read += letter
        vector = np.frombuffer(file.read(size) if letter == b" " else b"", "<f4")
        if len(vector) != width:
            raise _damaged(path, f"{count} words where its first line says {number}")
        word = bytes(read).lstrip(b"\n")
        if is_wanted(word):
            yield word, vector


def _vector(parts: Sequence[bytes], width: int) -> np.ndarray | None:
    """Return numbers `(D,)`, or None if there are not D parts, or not numbers."""
    try:
        return np.array(parts, "float32") if len(parts) == width else None
    except ValueError:
        return None


def _damaged(path: PathLike, received: str) -> ValueError:
    """Return the error for a file that cannot be read."""
    return ValueError(
        "A file of vectors must have a word and its numbers in each line, or be a "
        f"binary file of word2vec. Received: {path}, with {received}. It is damaged, "
        "truncated or of another kind."
    )
