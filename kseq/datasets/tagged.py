"""Sentences with a label for each word: slots, parts of speech."""

import re

from kseq.datasets.files import decoded, not_empty, pinned, read_own, separator_of

ATIS = (
    "https://raw.githubusercontent.com/MiuLab/SlotGated-SLU/"
    "61f0307c729b1fad479ef1de94aa5ac5dee601b0/data/atis/{}"
)
EWT = (
    "https://raw.githubusercontent.com/UniversalDependencies/UD_English-EWT/"
    "15d613d8447b3478787d4c278730a1e48a945efb/{}"
)


def read_tagged(path):
    """Reads sentences with a label for each word, one word a line.

    A line holds a word first and its label last, with TABs between, or spaces in a file
    in which no line has a TAB; only beside TABs may a word hold spaces. A blank line
    ends a sentence. Of a file whose name ends in `.conllu` or `.conllu.gz`, as those of
    Universal Dependencies, the words and their parts of speech are read.

    Args:
        path: The file, in UTF-8, which may be packed with gzip.

    Returns:
        `(sentences, labels)`: two lists of lists of strings.

    Raises:
        ValueError: The file cannot be read, is empty or in another encoding, or a line
            has no word, no label, or no TAB although another one has.

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


def parse(text, where):
    separator = separator_of(text)

    def columns(line):
        cells = line.split(separator)
        return cells if separator == "\t" else [cell for cell in cells if cell.strip()]

    return sentences(text, where, columns)


def parse_conllu(text, where):
    def word_and_tag(line):
        columns = line.split("\t")
        if line.startswith("#") or re.fullmatch(r"\d+[-.]\d+", columns[0]):
            return None  # a comment; a contraction, 3-4, or an unspoken word, 3.1
        is_word = len(columns) == 10 and columns[0].isdecimal()
        return [columns[1], columns[3]] if is_word else [line]

    return sentences(text, where, word_and_tag)


def sentences(text, where, split):
    """Sentences and their labels.

    `split` gives the columns of a line, of which the first and the last are read, or
    None for a line that says nothing.
    """
    words, labels = [[]], [[]]
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            words.append([])
            labels.append([])
            continue
        columns = split(line)
        if columns is None:
            continue
        word, label = columns[0].strip(), columns[-1].strip()
        if len(columns) < 2 or not word or not label:
            raise ValueError(
                "A line must hold a word and its label, with TABs between them or, in "
                "a file without TABs, spaces; or nothing between sentences. Received: "
                f"line {number} of {where}: {line[:60]!r}."
            )
        words[-1].append(word)
        labels[-1].append(label)
    words, labels = [w for w in words if w], [row for row in labels if row]
    return not_empty(words, "words with their labels", where), labels


def load_atis(content):
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


def load_english_ewt(content):
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
