"""Pairs of texts: translations, questions and answers, words and pronunciations."""

import csv
import io
import zipfile

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

G2P = "https://raw.githubusercontent.com/sigmorphon/2021-task1/"
G2P_COMMIT = "821bcdece5a47820872215969f275004b0abe80c"
G2P_LANGUAGES = ("eng_us", "fre", "ice")
PARTS = {"train": "train", "validation": "dev", "test": "test"}


def read_pairs(path: PathLike) -> tuple[list[str], list[str]]:
    """Read pairs of texts from lines of `source TAB target` in UTF-8.

    Args:
        path: The file, which may be compressed with gzip. Columns after the second are
            ignored.

    Returns:
        `(sources, targets)`, two lists of strings.

    Raises:
        ValueError: The file cannot be read, is empty or is not in UTF-8, or a line has
            no source or no target.

    Example:

    >>> import pathlib, tempfile
    >>> from kseq.datasets import read_pairs
    >>> path = pathlib.Path(tempfile.mkdtemp(), "pairs.tsv")
    >>> size = path.write_text("Run!\\tLauf!\\nHi.\\tHallo!\\n", "utf-8")
    >>> read_pairs(path)
    (['Run!', 'Hi.'], ['Lauf!', 'Hallo!'])
    """
    return parse(read_own(path), path)


def parse(text: str, where: PathLike) -> tuple[list[str], list[str]]:
    sources, targets = [], []
    for number, line in lines_of(text):
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) < 2 or not columns[0] or not columns[1]:
            raise ValueError(
                "A line must be `source TAB target`. Received: "
                f"line {number} of {where}: {line[:60]!r}."
            )
        sources.append(columns[0])
        targets.append(columns[1])
    return not_empty(sources, "lines of `source TAB target`", where), targets


def load_multi30k(content: Content) -> dict[str, tuple[list[str], list[str]]]:
    def lines(name):
        return [line.strip() for _, line in lines_of(decoded(content(name), name))]

    names = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
    return {
        part: (lines(f"{name}.de"), lines(f"{name}.en")) for part, name in names.items()
    }


def load_tatoeba(content: Content) -> dict[str, tuple[list[str], list[str]]]:
    with zipfile.ZipFile(io.BytesIO(content("fra-eng.zip"))) as archive:
        return {"train": parse(decoded(archive.read("fra.txt"), "fra.txt"), "fra.txt")}


def load_korean_chatbot(content: Content) -> dict[str, tuple[list[str], list[str]]]:
    text = decoded(content("ChatbotData.csv"), "ChatbotData.csv")
    _, *rows = csv.reader(io.StringIO(text, newline=""))
    return {"train": ([row[0] for row in rows], [row[1] for row in rows])}


def load_sigmorphon(
    content: Content, language: str = "eng_us"
) -> dict[str, tuple[list[str], list[str]]]:
    check_language(language, G2P_LANGUAGES)
    return {
        part: parse(decoded(content(f"{language}_{end}.tsv"), end), end)
        for part, end in PARTS.items()
    }


MULTI30K_FILES = pinned(
    """
2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72  train.de
460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6  train.en
660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660  val.de
1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227  val.en
4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16  test_2016_flickr.de
399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182  test_2016_flickr.en
    """,
    "https://raw.githubusercontent.com/multi30k/dataset/"
    "a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw/{}.gz",
)
TATOEBA_FILES = pinned(
    "16c4f7d0df9e7c5e6c54cdb0447f3f4a18a55052ff5e2e0b27dd4a06c0e49d04  fra-eng.zip",
    "https://raw.githubusercontent.com/genimind/seq2seq/"
    "4f3f8eb0adde54fcc8b89394336b002e7961244c/{}",
)
KOREAN_CHATBOT_FILES = pinned(
    "287eb129695b577321c80ad397bb3c2279164d4ca577874d129fd3db5b30afe2  ChatbotData.csv",
    "https://raw.githubusercontent.com/songys/Chatbot_data/"
    "4cf20d13fc46f5037fd1c531cd566e2dd9f72974/{}",
)
SIGMORPHON_FILES = (
    *pinned(
        """
bbe76f57ee799ef9094b1ed1fecf8861e754ac57c6aa4db7d5b18892c5401f7f  eng_us_train.tsv
dcce99504c5f8a00ebf13499aa4d4c2b7fc37614b65127c98aa871855e77080e  eng_us_dev.tsv
726192932a69a7197348ee64898613e94968234ce426cfc67d984baf5ddd317c  eng_us_test.tsv
        """,
        f"{G2P}{G2P_COMMIT}/data/high/{{}}",
    ),
    *pinned(
        """
e9de4f5125d2478e50506c5ed278f69d5fb17d8d213f99f845305c24e28a55c2  fre_train.tsv
3b42f14f318367dd94faa6d59e8fafabd845a3998800b6ce71a7c67e999490da  fre_dev.tsv
6202c2b7b8d5fbd76a4d40373f9564a9946671dab617438b534bd47c64071c92  fre_test.tsv
        """,
        f"{G2P}{G2P_COMMIT}/data/medium/{{}}",
    ),
    *pinned(
        """
0b2fc9e25ca4282887215f5206f55f753fd3fc79952cfd272db261a25f83ac9f  ice_train.tsv
50ce56fdb4c244fa6e47cd4e9a14e9833b8d359a7dc92a0200489c5f9d514c17  ice_dev.tsv
7ce4b846908bdb80f01ec063ab1ad2175a37ff10092612e011a5427c4dbb6e29  ice_test.tsv
        """,
        f"{G2P}{G2P_COMMIT}/data/low/{{}}",
    ),
)
