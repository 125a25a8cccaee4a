"""Sentences with a label for each word, such as slots or parts of speech."""

import json
import re
from collections.abc import Callable
from typing import TypeAlias

from kseq.datasets.files import (
    Content,
    decoded,
    not_empty,
    pinned,
    read_own,
    separator_of,
)
from kseq.typing import PathLike

# The words and the labels of sentences.
Sentences: TypeAlias = tuple[list[list[str]], list[list[str]]]

ATIS = (
    "https://raw.githubusercontent.com/MiuLab/SlotGated-SLU/"
    "61f0307c729b1fad479ef1de94aa5ac5dee601b0/data/atis/{}"
)
EWT = (
    "https://raw.githubusercontent.com/UniversalDependencies/UD_English-EWT/"
    "15d613d8447b3478787d4c278730a1e48a945efb/{}"
)


def read_tagged(path: PathLike) -> Sentences:
    """Read sentences with a label for each word, from lines of one word each.

    The first column of a line is the word, and the last is its label; columns between
    them are ignored. Columns are separated by TABs or, in a file without TABs, by
    spaces. Words may contain spaces only in a file with TABs. A blank line ends a
    sentence. If the name of the file ends in `.conllu` or `.conllu.gz`, the format of
    Universal Dependencies, the labels are the parts of speech.

    Args:
        path: The file in UTF-8, which may be compressed with gzip.

    Returns:
        `(sentences, labels)`: two lists of lists of strings.

    Raises:
        ValueError: The file cannot be read, is empty or is not in UTF-8, or a line has
            no word, no label, or no TAB although another line has one, or is JSON.

    Example:

    >>> import pathlib, tempfile
    >>> from kseq.datasets import read_tagged
    >>> path = pathlib.Path(tempfile.mkdtemp(), "slots.txt")
    >>> size = path.write_text("to O\\nNew B-city\\nYork I-city\\n\\nhi O\\n", "utf-8")
    >>> read_tagged(path)
    ([['to', 'New', 'York'], ['hi']], [['O', 'B-city', 'I-city'], ['O']])
    """
    text = read_own(path)
    is_conllu = str(path).removesuffix(".gz").endswith(".conllu")
    return (parse_conllu if is_conllu else parse)(text, path)


def parse(text: str, where: PathLike) -> Sentences:
    separator = separator_of(text)

    def columns(line):
        cells = line.split(separator)
        return cells if separator == "\t" else [cell for cell in cells if cell.strip()]

    return sentences(text, where, columns)


def parse_conllu(text: str, where: PathLike) -> Sentences:
    def word_and_tag(line):
        columns = line.split("\t")
        if line.startswith("#") or re.fullmatch(r"\d+[-.]\d+", columns[0]):
            return None  # a comment; a contraction, 3-4; an empty node, 3.1
        is_word = len(columns) == 10 and columns[0].isdecimal()
        return [columns[1], columns[3]] if is_word else [line]

    return sentences(text, where, word_and_tag)


def sentences(
    text: str, where: PathLike, split: Callable[[str], list[str] | None]
) -> Sentences:
    """Return sentences and their labels.

    `split` returns the columns of a line, of which the first and the last are used, or
    None for a line to skip.
    """
    words: list[list[str]] = [[]]
    labels: list[list[str]] = [[]]
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            words.append([])
            labels.append([])
            continue
        if is_json(line):
            raise ValueError(
                "A line must hold one word and its label, not JSON. Received: line "
                f"{number} of {where}: {line[:60]!r}. Write a line `word<TAB>label` "
                "for each word, and a blank line after each sentence."
            )
        columns = split(line)
        if columns is None:
            continue
        word, label = columns[0].strip(), columns[-1].strip()
        if len(columns) < 2 or not word or not label:
            raise ValueError(
                "A line must hold a word and its label, separated by TABs or, in a "
                "file without TABs, by spaces. Lines between sentences must be blank. "
                f"Received: line {number} of {where}: {line[:60]!r}."
            )
        words[-1].append(word)
        labels[-1].append(label)
    words, labels = [w for w in words if w], [row for row in labels if row]
    return not_empty(words, "words with their labels", where), labels


def is_json(line: str) -> bool:
    """Tell whether a line is a JSON object with entries; a word may also be `{`."""
    if not line.startswith("{"):
        return False
    try:
        return bool(json.loads(line))
    except (ValueError, RecursionError):
        return False


def load_atis(
    content: Content,
) -> dict[str, tuple[list[list[str]], list[list[str]], list[str]]]:
    folders = {"train": "train", "validation": "valid", "test": "test"}
    splits = {}
    for part, folder in folders.items():
        words, slots, intents = (
            decoded(content(f"{folder}/{name}"), name).splitlines()
            for name in ("seq.in", "seq.out", "label")
        )
        splits[part] = (
            [line.split() for line in words],
            [line.split() for line in slots],
            [intent.strip() for intent in intents],
        )
    return splits


def load_english_ewt(content: Content) -> dict[str, Sentences]:
    parts = {"train": "train", "validation": "dev", "test": "test"}
    return {
        part: parse_conllu(decoded(content(f"en_ewt-ud-{end}.conllu"), end), end)
        for part, end in parts.items()
    }


ATIS_FILES = pinned(
    """
3a670980841b21ab39088b2595efc17d487cdc45769c075a3e5f9458bba28c7f  train/seq.in
14c7131bd66562f797dbd7189bc7358f0cf354c6afb0785a9ab973c35b58f34c  train/seq.out
d0a771547665eecbdf9f96ea015ef07d1f6ee9f063e861020dafabb3c2a04377  train/label
c7435b96e7948393608c34819628e863c5338f11ca68e8f896d2cc041d8e17f8  valid/seq.in
83ccff3e36f83a993f8e5b5b82adf3256076f234abda4d784051381d7ac76922  valid/seq.out
06957cfe6fdffac84f8280bc3a1f8ca85c85631b363817aa4543aac611f8addf  valid/label
4b2119fc59c37f9398c6605db435d4f467505009e6ee3e5af04fed09f39dc397  test/seq.in
a4690d6bceadc06876d1ff99bc401744aa981cb321e598ae12a3859d7be53254  test/seq.out
ce4bfe6590d9498e1078f30b4137d3e8b3e94277b444b26360c0bf2e9e282761  test/label
    """,
    ATIS,
)
EWT_FILES = (
    *pinned(
        """
531a54ff90d6ab12201c5a50c3e78e6ddac4de69abc4bce5d275d3cd29efe2b6  en_ewt-ud-dev.conllu
e266e515a0a7547657ed3d90d9ba46487d6bd251f27ad4269d4e8a427c8555cd  en_ewt-ud-test.conllu
        """,
        EWT,
    ),
    # Copies differ in the order of the documents.
    *pinned(
        """
ef33699e7910bbbcae56cc8f7768bd823efce3ae43597b36913d2ad2514907d7  en_ewt-ud-train.conllu
        """,
        EWT,
        unordered=True,
    ),
)
