"""Lines of text files, which can be iterated repeatedly."""

import glob
import gzip
import os
import zlib
from collections.abc import Iterable, Iterator

from kseq.text.files import opened
from kseq.typing import PathLike

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Lines:
    """The lines of text files in UTF-8, read from disk in each iteration.

    Lines are read one by one, so the files may be larger than the memory. Pass them to
    `Vocabulary.adapt` or `encode_file`.

    Args:
        paths: A path, a list of paths, or a pattern such as `"train-*.de.gz"`, whose
            files are sorted by name. Files compressed with gzip are decompressed.

    Raises:
        ValueError: A file does not exist; or, in an iteration, a line is not UTF-8, or
            a file is damaged.

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

    def __init__(self, paths: PathLike | Iterable[PathLike]) -> None:
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        self.paths: list[str] = []
        for path in [os.fspath(path) for path in given]:
            found = [path] if os.path.isfile(path) else sorted(glob.glob(path))
            if not found or not all(map(os.path.isfile, found)):
                raise ValueError(
                    "`paths` must be files, or a pattern that matches files. "
                    f"Received: {path!r}, which is neither."
                )
            self.paths += found

    def __iter__(self) -> Iterator[str]:
        for path in self.paths:
            yield from lines_of(path)

    def __repr__(self) -> str:
        return f"Lines({self.paths})"


def lines_of(path: str) -> Iterator[str]:
    """Yield the lines of one file, which may be compressed."""
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
            f"A file compressed with gzip must be complete. Received: {path}, of which "
            f"{number} lines could be read: {error}."
        ) from error


def text_of(line: bytes) -> str:
    """Return a line of bytes as text, without its line break."""
    return line.rstrip(b"\r\n").decode("utf-8")
