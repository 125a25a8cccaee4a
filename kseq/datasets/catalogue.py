"""Catalogue of the data sets by name: contents, licences, files and readers."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from kseq.datasets import (
    characters,
    columns,
    emoji,
    files,
    inflections,
    labelled,
    pairs,
    pictures,
    series,
    tagged,
)
from kseq.datasets.files import File
from kseq.typing import PathLike


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Description of a data set.

    Attributes:
        name: Name for `load`.
        about: Short description.
        parts: The value that `load` returns for each part.
        licence: Licence, if one is stated.
        citation: Publication.
        files: The files, each with `path`, `url` and `sha256`.
        reader: Function that returns the parts from the contents of the files.
    """

    name: str
    about: str
    parts: str
    licence: str
    citation: str
    files: tuple[File, ...] = dataclasses.field(repr=False)
    reader: Callable[..., dict[str, Any]] = dataclasses.field(repr=False)


def load(
    name: str, directory: PathLike | None = None, **options: str
) -> dict[str, Any]:
    """Load a data set as plain strings or NumPy arrays, with its published split.

    The files are read from the folder `name` in `directory`, if `directory` is given;
    otherwise from the folder `name` in the environment variable KSEQ_DATA_DIR, if that
    folder exists. Otherwise each file is downloaded once from its public address to
    `~/.keras`, the cache of Keras. The SHA-256 checksum of every file is verified. An
    interrupted download leaves no file behind.

    Args:
        name: One of `names()`.
        directory: Folder with one folder for each data set. If given, nothing is
            downloaded.
        **options: `language="eng_us"`, `"fre"` or `"ice"` for `sigmorphon2021_g2p`;
            `language="eng"`, `"spa"` or `"tur"` for `sigmorphon2023_inflection`;
            `language="en"`, `"ko"` or `"fr"` for `emoji`.

    Returns:
        A dictionary with the published parts among `"train"`, `"validation"` and
        `"test"`. `describe(name).parts` describes the value of a part.

    Raises:
        ValueError: The name or an option is unknown, a file is missing in the folder,
            or a file has the wrong checksum because it is damaged, incomplete or
            another version.
        OSError: A file could not be downloaded.

    Example:

    >>> from kseq import datasets
    >>> datasets.describe("trec").parts
    '(texts, labels): lists of strings'
    >>> texts, labels = datasets.load("trec")["train"]  # doctest: +SKIP
    >>> texts[0], labels[0]  # doctest: +SKIP
    ('How did serfdom develop in and then leave Russia ?', 'description')
    """
    data_set = describe(name)
    by_path = {file.path: file for file in data_set.files}

    def content(path):
        return files.read(by_path[path], name, directory)

    known = list(inspect.signature(data_set.reader).parameters)[1:]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(
            f"`{name}` takes the options {known}. Received: {', '.join(unknown)}."
        )
    return data_set.reader(content, **options)


def describe(name: str) -> DataSet:
    """Return the contents, licence, citation, addresses and checksums of a data set.

    Args:
        name: One of `names()`.

    Returns:
        A `DataSet`, with `about`, `parts`, `licence`, `citation` and `files`.

    Raises:
        ValueError: The name is unknown.

    Example:

    >>> from kseq.datasets import describe
    >>> describe("ett").licence
    'CC BY-ND 4.0'
    >>> [file.path for file in describe("trec").files]
    ['TREC.train.all', 'TREC.test.all']
    """
    if not isinstance(name, str) or name not in DATA_SETS:
        raise ValueError(
            f"`name` must be one of {', '.join(DATA_SETS)}. Received: name={name!r}."
        )
    return DATA_SETS[name]


def names() -> list[str]:
    """Return the names of all data sets.

    Example:

    >>> from kseq.datasets import names
    >>> names()[:2]
    ['sst2', 'trec']
    """
    return list(DATA_SETS)


DATA_SETS = {
    data_set.name: data_set
    for data_set in (
        DataSet(
            "sst2",
            "Sentences from film reviews, positive or negative: 6,920, 872 and 1,821. "
            "Whole sentences only, without the labelled phrases.",
            "(texts, labels): lists of strings",
            "none stated for the texts; the repository is under MIT",
            "Socher et al., 2013, https://aclanthology.org/D13-1170/",
            labelled.SST2_FILES,
            labelled.load_sst2,
        ),
        DataSet(
            "trec",
            "Questions with one of six classes of answers: 5,452 and 500. "
            "There is no validation part.",
            "(texts, labels): lists of strings",
            "none stated for the texts; the repository is under MIT",
            "Li and Roth, 2002, https://aclanthology.org/C02-1150/",
            labelled.TREC_FILES,
            labelled.load_trec,
        ),
        DataSet(
            "atis",
            "Spoken requests about flights, with a slot for each word (B-, I-, O) and "
            "an intent: 4,478, 500 and 893.",
            "(sentences, slots, intents): lists of lists of strings, and of strings",
            "none stated: you may use it, but not redistribute it",
            "Hemphill et al., 1990, https://aclanthology.org/H90-1021/; split of Goo "
            "et al., 2018, https://aclanthology.org/N18-2118/",
            tagged.ATIS_FILES,
            tagged.load_atis,
        ),
        DataSet(
            "ud_english_ewt",
            "English from the web with parts of speech, 17 tags: 12,544, 2,001 and "
            "2,077 sentences. Contractions are split into their words.",
            "(sentences, tags): lists of lists of strings",
            "CC BY-SA 4.0",
            "Silveira et al., 2014, https://aclanthology.org/L14-1067/",
            tagged.EWT_FILES,
            tagged.load_english_ewt,
        ),
        DataSet(
            "ett",
            "ETTh1, hourly oil temperature and load of a transformer: 12, 4 and 4 "
            "consecutive months of 30 days. The last 3,020 hours are in no part.",
            "(values, columns): raw values as float64 (hours, 7), names of the columns",
            "CC BY-ND 4.0",
            "Zhou et al., 2021, https://arxiv.org/abs/2012.07436",
            columns.ETT_FILES,
            columns.load_ett,
        ),
        DataSet(
            "tiny_shakespeare",
            "1,115,394 characters of Shakespeare's plays. The last tenth is the "
            "validation part.",
            "one string",
            "public domain",
            "Karpathy, 2015, https://karpathy.github.io/2015/05/21/rnn-effectiveness/",
            characters.TINY_SHAKESPEARE_FILES,
            characters.load_tiny_shakespeare,
        ),
        DataSet(
            "mnist",
            "Handwritten digits: 60,000 and 10,000. One of the two known files is "
            "sorted by digit: shuffle before you split off a part.",
            "(images, labels): uint8 (N, 28, 28) and int64 (N,)",
            "CC BY-SA 3.0",
            "LeCun et al., 1998, https://doi.org/10.1109/5.726791",
            pictures.MNIST_FILES,
            pictures.load_mnist,
        ),
        DataSet(
            "emoji",
            "3,786 emoji with names in English, Korean and French. 158 are held out: "
            "one skin tone of every second emoji that has five. Its other tones are in "
            "the training part. The files of this data set have no public address.",
            "(pictures, names, bases, tones): uint8 (N, 32, 32, 3) and lists of "
            "strings; bases are emoji without their tone; bases and tones are code "
            "points",
            "pictures CC BY 4.0 (Twitter), names MIT (emojibase)",
            "emoji-datasource-twitter 16.0.0 and emojibase-data 17.0.0, on npm",
            emoji.EMOJI_FILES,
            emoji.load_emoji,
        ),
        DataSet(
            "multi30k",
            "Captions of pictures in German and English: 29,000, 1,014 and 1,000 "
            "(test 2016).",
            "(german, english): lists of strings",
            "none stated: you may use it, but not redistribute it",
            "Elliott et al., 2016, https://aclanthology.org/W16-3210/",
            pairs.MULTI30K_FILES,
            pairs.load_multi30k,
        ),
        DataSet(
            "tatoeba_fra_eng",
            "142,787 sentences in English and French, short ones first. A sentence may "
            "have several translations: keep them in the same part.",
            "(english, french): lists of strings",
            "CC BY 2.0 FR, from tatoeba.org and manythings.org/anki",
            "Tatoeba, https://tatoeba.org",
            pairs.TATOEBA_FILES,
            pairs.load_tatoeba,
        ),
        DataSet(
            "korean_chatbot",
            "11,823 questions and answers in Korean.",
            "(questions, answers): lists of strings",
            "MIT",
            "Song, 2018, https://github.com/songys/Chatbot_data",
            pairs.KOREAN_CHATBOT_FILES,
            pairs.load_korean_chatbot,
        ),
        DataSet(
            "italy_power_demand",
            "Hourly power demand of a day, in October to March (0) or April to "
            "September (1), published as 1 and 2: 67 and 1,029 days, standardized.",
            "(series, labels): float64 (N, 24) and int64 (N,)",
            "BSD-3-Clause, as a part of sktime",
            "Keogh et al., 2006, Intelligent Icons, ICDM; taken from sktime 1.2.0",
            series.ITALY_FILES,
            series.load_italy_power_demand,
        ),
        DataSet(
            "sigmorphon2021_g2p",
            "Words and their pronunciations: eng_us 33,344, 4,168 and 4,168; fre "
            "8,000, 1,000 and 1,000; ice 800, 100 and 100.",
            "(words, phonemes): lists of strings, phonemes separated by spaces",
            "CC BY-SA 3.0",
            "Ashby et al., 2021, https://aclanthology.org/2021.sigmorphon-1.13/",
            pairs.SIGMORPHON_FILES,
            pairs.load_sigmorphon,
        ),
        DataSet(
            "sigmorphon2023_inflection",
            "Inflected forms of words: eng, spa and tur, each 10,000, 1,000 and 1,000. "
            "No lemma is in two parts.",
            "(lemmas, features, forms): lists of strings; features as `V;NOM(3,SG)`",
            "none stated; the words are from UniMorph, which is under CC BY-SA 3.0",
            "Goldman et al., 2023, SIGMORPHON workshop, pages 117 to 125",
            inflections.INFLECTION_FILES,
            inflections.load_inflection,
        ),
    )
}
