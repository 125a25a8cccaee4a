"""Inflected forms of words: lemma, grammatical features, and form."""

from kseq.datasets.files import (
    Content,
    check_language,
    decoded,
    lines_of,
    not_empty,
    pinned,
    read_own,
)
from kseq.typing import PathLike

INFLECTION = (
    "https://raw.githubusercontent.com/sigmorphon/2023InflectionST/"
    "e7f1b325b76b41e9ead998e449b17ec1cf536a9c/part1/data/{}"
)
LANGUAGES = ("eng", "spa", "tur")
PARTS = {"train": "trn", "validation": "dev", "test": "tst"}


def read_inflections(path: PathLike) -> tuple[list[str], list[str], list[str]]:
    """Read inflected forms from lines of `lemma TAB features TAB form` in UTF-8.

    This is the format of the SIGMORPHON shared tasks. UniMorph has its last two columns
    in the other order.

    Args:
        path: The file, which may be compressed with gzip.

    Returns:
        `(lemmas, features, forms)`, three lists of strings.

    Raises:
        ValueError: The file cannot be read, is empty or is not in UTF-8, or a line does
            not have these three columns.

    Example:

    >>> import pathlib, tempfile
    >>> from kseq.datasets import read_inflections
    >>> path = pathlib.Path(tempfile.mkdtemp(), "eng.trn")
    >>> size = path.write_text("run\\tV;PST\\tran\\nsee\\tV;PST\\tsaw\\n", "utf-8")
    >>> read_inflections(path)
    (['run', 'see'], ['V;PST', 'V;PST'], ['ran', 'saw'])
    """
    return parse(read_own(path), path)


def parse(text: str, where: PathLike) -> tuple[list[str], list[str], list[str]]:
    lemmas, features, forms = [], [], []
    for number, line in lines_of(text):
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) != 3 or not all(columns):
            raise ValueError(
                "A line must be `lemma TAB features TAB form`. Received: "
                f"line {number} of {where}: {line[:60]!r}."
            )
        lemma, feature, form = columns
        lemmas.append(lemma)
        features.append(feature)
        forms.append(form)
    lemmas = not_empty(lemmas, "lines of `lemma TAB features TAB form`", where)
    return lemmas, features, forms


def load_inflection(
    content: Content, language: str = "eng"
) -> dict[str, tuple[list[str], list[str], list[str]]]:
    check_language(language, LANGUAGES)
    return {
        part: parse(decoded(content(f"{language}.{end}"), end), end)
        for part, end in PARTS.items()
    }


INFLECTION_FILES = pinned(
    """
1c776ec11dae33062f967fa0d5118c3455af8a303cfd2d8f70a3af10f407f316  eng.trn
8831c9aa175f8d13b4507ac097ecb30a48b5cbbb68c8e9c97129eb4b86e29eb2  eng.dev
c56e1fda1806b0d044e6eea54652367fb9a2c517cac3dec522f940e54033f858  eng.tst
2af98d9d22f3fc4a236afa387080abd556cb837bede0f27c45ad239961bd961e  spa.trn
1c2fc9ab90909dd19f0fedabe6238fd17271b0ad02a7963b69bfdee821df9c7f  spa.dev
4de04d0b29bb4f61bce7cb5d96c9c20205d5e7cd1ebe5f8e84187e2f0b824b8e  spa.tst
f61f64416dedd8e5b6ec92e2050745438b74e05cefa6bd03abbd293bc4fafee9  tur.trn
50029acf7c0fd5931940ab6381ac20ebc9c9a7f32d8e72ffd0b0702e02565a97  tur.dev
7efbb6b2a1d5dd70dc90bba5f30e9c202bb8d187f82309e750e82cf11fab5c00  tur.tst
    """,
    INFLECTION,
)
