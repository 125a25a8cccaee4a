"""Files of word vectors: of word2vec, GloVe and fastText, text or binary.

Words are read one after another, so a file of any size takes little memory.

Axes in shape comments: D width.
"""

import gzip
import zlib

import numpy as np

from kseq.text.files import opened
from kseq.text.validation import shortened

FASTTEXT = b"\xba\x16\x4f\x2f"  # how such files begin
LONGEST_LINE, LONGEST_WORD = 1 << 20, 1 << 12  # bytes


def read_words(path, is_wanted):
    """Gives the words of a file that are wanted, as bytes, with their vectors `(D,)`.

    Args:
        path: Path of a text file with a word and D numbers in each line, as GloVe has
            it, with a line `N D` in front as word2vec and fastText write it, or of a
            binary file of word2vec; each may be packed with gzip.
        is_wanted: Function of a word in bytes.

    Raises:
        ValueError: The file is of another kind, is damaged, or ends too early.
    """
    try:
        with opened(path) as file:
            yield from _read(file, path, is_wanted)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damaged(path, f"gzip that is cut short or damaged: {error}") from error


def is_fasttext(path):
    """Tell whether a file is a whole model of fastText, which `.bin` may mean too."""
    with open(path, "rb") as file:
        return file.read(len(FASTTEXT)) == FASTTEXT


def _read(file, path, is_wanted):
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


def _text_words(file, path, width, is_wanted, number=None):
    count = 0
    for line in file:
        count += 1
        line = line.rstrip()
        is_plain = line.count(b" ") == width  # some words of GloVe have spaces
        if is_plain and not is_wanted(line[: line.index(b" ")]):
            continue  # as most are
        word, *parts = line.rsplit(maxsplit=width) or [b""]
        if is_wanted(word) or len(parts) != width:
            vector = _vector(parts, width)
            if vector is None:
                raise _damaged(path, f"{shortened(line)} as the line of word {count}")
            yield word, vector
    if number is not None and count != number:
        raise _damaged(path, f"{count} words where its first line says {number}")


def _binary_words(file, path, number, width, is_wanted):
    size = 4 * width
    for count in range(number):
        word = bytearray()
        while (letter := file.read(1)) not in (b" ", b"") and len(word) < LONGEST_WORD:
            word += letter
        vector = np.frombuffer(file.read(size) if letter == b" " else b"", "<f4")
        if len(vector) != width:
            raise _damaged(path, f"{count} words where its first line says {number}")
        word = bytes(word).lstrip(b"\n")
        if is_wanted(word):
            yield word, vector


def _vector(parts, width):
    """Numbers `(D,)`, or None if they are not so many or no numbers."""
    try:
        return np.array(parts, "float32") if len(parts) == width else None
    except ValueError:
        return None


def _damaged(path, received):
    return ValueError(
        "A file of vectors must have a word and its numbers in each line, or be a "
        f"binary file of word2vec. Received: {path}, with {received}. It is damaged, "
        "cut short or of another kind."
    )
