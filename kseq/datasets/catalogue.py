"""The data sets by name: what they hold, whose they are, and how they are read."""

import collections.abc
import dataclasses
import inspect

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


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What is known of a data set before it is read.

    Attributes:
        name: Its name for `load`.
        about: What it is.
        parts: What `load` returns for each part.
        licence: The licence it is under, as far as one is stated.
        citation: Where it was published.
        files: Its files, each with `path`, `url` and `sha256`.
        reader: Function that makes the parts of what is in the files.
    """

    name: str
    about: str
    parts: str
    licence: str
    citation: str
    files: tuple = dataclasses.field(repr=False)
    reader: collections.abc.Callable = dataclasses.field(repr=False)


def load(name, directory=None, **options):
    """Loads a data set as plain strings or NumPy arrays, split as published.

    The files are looked for in the folder `name` of `directory`, if that is given;
    otherwise in that of the environment variable KSEQ_DATA_DIR, if it has one;
    otherwise each is downloaded once from its public address to `~/.keras`, where Keras
    keeps its own. Wherever it comes from, a file must have the SHA-256 it is known by.
    A download that is cut short leaves nothing behind.

    Args:
        name: One of `names()`.
        directory: Folder that has one folder for each data set. With it, nothing is
            downloaded.
        **options: `language="eng_us"`, `"fre"` or `"ice"` for `sigmorphon2021_g2p`;
            `language="eng"`, `"spa"` or `"tur"` for `sigmorphon2023_inflection`;
            `language="en"`, `"ko"` or `"fr"` for `emoji`.

    Returns:
        A dictionary with those of the parts `"train"`, `"validation"` and `"test"` that
        were published. `describe(name).parts` says what a part is.

    Raises:
        ValueError: The name or an option is unknown, the folder lacks a file, or a file
            has another checksum than it must have: it is damaged, cut short or another
            version.
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


def describe(name):
    """What is known of a data set: contents, licence, citation, addresses, checksums.

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


def names():
    """The names of all data sets.

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
            "Questions by what they ask for, six classes: 5,452 and 500. "
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
            "none stated: use it, do not pass it on",
            "Hemphill et al., 1990, https://aclanthology.org/H90-1021/; split of Goo "
            "et al., 2018, https://aclanthology.org/N18-2118/",
            tagged.ATIS_FILES,
            tagged.load_atis,
        ),
        DataSet(
            "ud_english_ewt",
            "English from the web with parts of speech, 17 tags: 12,544, 2,001 and "
            "2,077 sentences. Contractions come apart into their words.",
            "(sentences, tags): lists of lists of strings",
            "CC BY-SA 4.0",
            "Silveira et al., 2014, https://aclanthology.org/L14-1067/",
            tagged.EWT_FILES,
            tagged.load_english_ewt,
        ),
        DataSet(
            "ett",
            "ETTh1, oil temperature and load of a transformer, hour by hour: 12, 4 and "
            "4 months of 30 days, as they follow each other. The last 3,020 hours are "
            "in no part.",
            "(values, columns): raw values as float64 (hours, 7), names of the columns",
            "CC BY-ND 4.0",
            "Zhou et al., 2021, https://arxiv.org/abs/2012.07436",
            columns.ETT_FILES,
            columns.load_ett,
        ),
        DataSet(
            "tiny_shakespeare",
            "1,115,394 characters of Shakespeare's plays; the last tenth to validate.",
            "one string",
            "public domain",
            "Karpathy, 2015, https://karpathy.github.io/2015/05/21/rnn-effectiveness/",
            characters.TINY_SHAKESPEARE_FILES,
            characters.load_tiny_shakespeare,
        ),
        DataSet(
            "mnist",
            "Handwritten digits: 60,000 and 10,000. In one of the two packings that "
            "are known they are sorted by digit: shuffle before a part is cut off.",
            "(images, labels): uint8 (N, 28, 28) and int64 (N,)",
            "CC BY-SA 3.0",
            "LeCun et al., 1998, https://doi.org/10.1109/5.726791",
            pictures.MNIST_FILES,
            pictures.load_mnist,
        ),
        DataSet(
            "emoji",
            "3,786 emoji with names in English, Korean and French. 158 are held out: a "
            "skin tone of every second emoji that has five, each of which is seen in "
            "its other tones. A file of these pictures has no public address.",
            "(pictures, names, bases, tones): uint8 (N, 32, 32, 3) and lists of "
            "strings; an emoji without its tone, and the tone, as code points",
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
            "none stated: use it, do not pass it on",
            "Elliott et al., 2016, https://aclanthology.org/W16-3210/",
            pairs.MULTI30K_FILES,
            pairs.load_multi30k,
        ),
        DataSet(
            "tatoeba_fra_eng",
            "142,787 sentences in English and French, the short ones first. One text "
            "may come with several translations: keep them in one part.",
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
            "Power demand of a day, hour by hour: October to March (0) or April to "
            "September (1), published as 1 and 2. 67 and 1,029 days, standardized.",
            "(series, labels): float64 (N, 24) and int64 (N,)",
            "BSD-3-Clause, as a part of sktime",
            "Keogh et al., 2006, Intelligent Icons, ICDM; taken from sktime 1.2.0",
            series.ITALY_FILES,
            series.load_italy_power_demand,
        ),
        DataSet(
            "sigmorphon2021_g2p",
            "Words and their sounds: eng_us 33,344, 4,168 and 4,168; fre 8,000, 1,000 "
            "and 1,000; ice 800, 100 and 100.",
            "(words, phonemes): lists of strings, spaces between the phonemes",
            "CC BY-SA 3.0",
            "Ashby et al., 2021, https://aclanthology.org/2021.sigmorphon-1.13/",
            pairs.SIGMORPHON_FILES,
            pairs.load_sigmorphon,
        ),
        DataSet(
            "sigmorphon2023_inflection",
            "Words and their forms: eng, spa and tur, each 10,000, 1,000 and 1,000. No "
            "lemma is in two parts.",
            "(lemmas, features, forms): lists of strings; features as `V;NOM(3,SG)`",
            "none stated; UniMorph, where the words are from, is under CC BY-SA 3.0",
            "Goldman et al., 2023, SIGMORPHON workshop, pages 117 to 125",
            inflections.INFLECTION_FILES,
            inflections.load_inflection,
        ),
    )
}
