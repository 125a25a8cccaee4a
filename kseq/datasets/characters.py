"""Running text for character models."""

from kseq.datasets.files import Content, decoded, pinned, read_own
from kseq.typing import PathLike


def read_text(path: PathLike) -> str:
    """Read your own text file in UTF-8.

    Args:
        path: The file, which may be compressed with gzip.

    Returns:
        `str`, in which each line ends with a line feed only.

    Raises:
        ValueError: The file cannot be read, or is not in UTF-8.

    Example:

    >>> import pathlib, tempfile
    >>> from kseq.datasets import read_text
    >>> path = pathlib.Path(tempfile.mkdtemp(), "poem.txt")
    >>> size = path.write_text("나 보기가 역겨워", "utf-8")
    >>> read_text(path)
    '나 보기가 역겨워'
    """
    return read_own(path)


def load_tiny_shakespeare(content: Content) -> dict[str, str]:
    text = decoded(content("input.txt"), "input.txt")
    limit = len(text) * 9 // 10
    return {"train": text[:limit], "validation": text[limit:]}


TINY_SHAKESPEARE_FILES = pinned(
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed  input.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/"
    "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/{}",
)
