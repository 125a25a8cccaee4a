"""Two texts that belong together: translations, answers, pronunciations."""

import csv
import io

import numpy as np

from kseq.datasets.files import File, Source, github

MULTI30K_COMMIT = "a3d2e0d26b56f3846f66a952536ffed4e401d05a"
TATOEBA_COMMIT = "4f3f8eb0adde54fcc8b89394336b002e7961244c"
CHATBOT_COMMIT = "4cf20d13fc46f5037fd1c531cd566e2dd9f72974"
SIGMORPHON_COMMIT = "821bcdece5a47820872215969f275004b0abe80c"

MULTI30K_PARTS = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
SIGMORPHON_PARTS = {"train": "train", "validation": "dev", "test": "test"}
SIGMORPHON_FOLDERS = {"eng_us": "high", "fre": "medium", "ice": "low"}


def read_multi30k(content):
    return {
        part: tuple(_lines(content(f"{name}.{language}")) for language in ("de", "en"))
        for part, name in MULTI30K_PARTS.items()
    }


def read_tatoeba(content):
    return {"train": _columns(content("fra-eng.zip"))}


def read_sigmorphon(content, language="eng_us"):
    if language not in SIGMORPHON_FOLDERS:
        raise ValueError(
            f"`language` must be one of {list(SIGMORPHON_FOLDERS)}. "
            f"Received: language={language!r}."
        )
    return {
        part: _columns(content(f"{language}_{name}.tsv"))
        for part, name in SIGMORPHON_PARTS.items()
    }


def read_korean_chatbot(content):
    # csv needs the line ends as they are, "\r\n", to tell them from quoted ones.
    table = io.StringIO(content("ChatbotData.csv").decode("utf-8"), newline="")
    _, *rows = csv.reader(table)
    questions, answers, labels = zip(*rows, strict=True)
    labels = np.array([int(label) for label in labels], "int32")  # one has spaces
    return {"train": (_stripped(questions), _stripped(answers), labels)}


def _columns(data):
    """Reads lines of `text TAB text`."""
    rows = [line.split("\t") for line in _lines(data)]
    return tuple(_stripped(column) for column in zip(*rows, strict=True))


def _lines(data):
    # Not `splitlines`, for which many a character inside a text ends a line.
    return _stripped(data.decode("utf-8").rstrip("\n").split("\n"))


def _stripped(texts):
    return [text.strip() for text in texts]


def _multi30k_file(path, sha256):
    address = github("multi30k/dataset", MULTI30K_COMMIT, f"data/task1/raw/{path}.gz")
    return File(path, address, sha256)


def _sigmorphon_file(language, part, sha256):
    path = f"{language}_{part}.tsv"
    folder = f"data/{SIGMORPHON_FOLDERS[language]}"
    address = github("sigmorphon/2021-task1", SIGMORPHON_COMMIT, f"{folder}/{path}")
    return File(path, address, sha256)


SOURCES = (
    Source(
        name="multi30k",
        summary=(
            "captions of pictures in German and English, 29,000 to train, 1,014 and "
            "1,000 (test_2016_flickr)"
        ),
        licence="none stated: use it, do not pass it on",
        citation=(
            "Elliott et al., 2016, Multi30K: Multilingual English-German Image "
            "Descriptions"
        ),
        files=(
            _multi30k_file(
                "train.de",
                "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
            ),
            _multi30k_file(
                "train.en",
                "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
            ),
            _multi30k_file(
                "val.de",
                "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
            ),
            _multi30k_file(
                "val.en",
                "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
            ),
            _multi30k_file(
                "test_2016_flickr.de",
                "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
            ),
            _multi30k_file(
                "test_2016_flickr.en",
                "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
            ),
        ),
        read=read_multi30k,
    ),
    Source(
        name="tatoeba_fra_eng",
        summary="142,787 pairs of sentences in English and French, by length",
        licence="CC BY 2.0 FR",
        citation="tatoeba.org and manythings.org/anki, 2017-09-29",
        files=(
            File(
                "fra-eng.zip",
                github("genimind/seq2seq", TATOEBA_COMMIT, "fra-eng.zip"),
                "2546838ae46e0eac4c02ab7032ea0a02a006074a5340077a36a9444f41e02888",
                member="fra.txt",
            ),
        ),
        read=read_tatoeba,
    ),
    Source(
        name="korean_chatbot",
        summary="11,823 questions and answers of everyday life, in Korean",
        licence="MIT",
        citation="Song, 2018, Chatbot_data_for_Korean, github.com/songys/Chatbot_data",
        files=(
            File(
                "ChatbotData.csv",
                github("songys/Chatbot_data", CHATBOT_COMMIT, "ChatbotData.csv"),
                "287eb129695b577321c80ad397bb3c2279164d4ca577874d129fd3db5b30afe2",
            ),
        ),
        read=read_korean_chatbot,
        labels=("everyday life", "parting", "love"),
    ),
    Source(
        name="sigmorphon2021_g2p",
        summary=(
            "words and their phonemes; English 33,344 to train, 4,168 and 4,168, "
            "French 8,000, 1,000 and 1,000, Icelandic 800, 100 and 100"
        ),
        licence="CC BY-SA 3.0",
        citation=(
            "Ashby et al., 2021, Results of the Second SIGMORPHON Shared Task on "
            "Multilingual Grapheme-to-Phoneme Conversion"
        ),
        files=(
            _sigmorphon_file(
                "eng_us",
                "train",
                "bbe76f57ee799ef9094b1ed1fecf8861e754ac57c6aa4db7d5b18892c5401f7f",
            ),
            _sigmorphon_file(
                "eng_us",
                "dev",
                "dcce99504c5f8a00ebf13499aa4d4c2b7fc37614b65127c98aa871855e77080e",
            ),
            _sigmorphon_file(
                "eng_us",
                "test",
                "726192932a69a7197348ee64898613e94968234ce426cfc67d984baf5ddd317c",
            ),
            _sigmorphon_file(
                "fre",
                "train",
                "e9de4f5125d2478e50506c5ed278f69d5fb17d8d213f99f845305c24e28a55c2",
            ),
            _sigmorphon_file(
                "fre",
                "dev",
                "3b42f14f318367dd94faa6d59e8fafabd845a3998800b6ce71a7c67e999490da",
            ),
            _sigmorphon_file(
                "fre",
                "test",
                "6202c2b7b8d5fbd76a4d40373f9564a9946671dab617438b534bd47c64071c92",
            ),
            _sigmorphon_file(
                "ice",
                "train",
                "0b2fc9e25ca4282887215f5206f55f753fd3fc79952cfd272db261a25f83ac9f",
            ),
            _sigmorphon_file(
                "ice",
                "dev",
                "50ce56fdb4c244fa6e47cd4e9a14e9833b8d359a7dc92a0200489c5f9d514c17",
            ),
            _sigmorphon_file(
                "ice",
                "test",
                "7ce4b846908bdb80f01ec063ab1ad2175a37ff10092612e011a5427c4dbb6e29",
            ),
        ),
        read=read_sigmorphon,
    ),
)
