"""Lines of files of text, one after another, as often as they are asked for."""

import glob
import gzip
import os
import zlib

from kseq.text.files import opened

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Lines:
    """The lines of text files, UTF-8, read anew whenever one goes through them.

    Few of them are in memory at a time, so they may be many: a vocabulary learns from
    them, and `encode_file` reads them.

    Args:
        paths: A path, a pattern such as `"train-*.de.gz"`, whose files come in the
            order of their names, or a list of paths. What is packed with gzip is
            unpacked.

    Raises:
        ValueError: There is no such file; while they are read, a line that is not
            UTF-8, or a damaged file.

    Example:

    >>> import pathlib, tempfile
    >>> from kseq.corpora import Lines
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name, text in {"a.txt": "Run!\\nHi.\\n", "b.txt": "Jump."}.items():
    ...     size = (folder / name).write_text(text, "utf-8")
    >>> lines = Lines(folder / "*.txt")
    >>> list(lines), list(lines) == list(lines)
    (['Run!', 'Hi.', 'Jump.'], True)
    """

    def __init__(self, paths):
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        self.paths = []
        for path in map(os.fspath, given):
            found = [path] if os.path.isfile(path) else sorted(glob.glob(path))
            if not found or not all(map(os.path.isfile, found)):
                raise ValueError(
                    "`paths` must be files, or a pattern that some files have. "
                    f"Received: {path!r}, which is none."
                )
            self.paths += found

    def __iter__(self):
        for path in self.paths:
            yield from lines_of(path)

    def __repr__(self):
        return f"Lines({self.paths})"


def lines_of(path):
    """An iterator of the lines of one file, which may be packed."""
    number = 0
    try:
        with opened(path) as file:
            for number, line in enumerate(file, 1):
                if number == 1:
                    line = line.removeprefix(BYTE_ORDER_MARK)
                yield text_of(line)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Lines must be UTF-8. Received: line {number} of {path}: {error}."
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"What is packed with gzip must be whole. Received: {path}, of which "
            f"{number} lines could be read: {error}."
        ) from error


def text_of(line):
    """The text of a line of bytes, without its end."""
    return line.rstrip(b"\r\n").decode("utf-8")
