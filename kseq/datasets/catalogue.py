"""The public data sets that kseq knows by name."""

import inspect

from kseq.datasets import files, pairs, pictures, prose, sentences, series, tagged

ROOMS = (sentences, tagged, pairs, prose, series, pictures)
SOURCES = {source.name: source for room in ROOMS for source in room.SOURCES}


def names():
    """Returns the names of the data sets, in alphabetical order."""
    return sorted(SOURCES)


def load(name, directory=None, **options):
    """Reads a public data set, as plain strings and NumPy arrays.

    Its files are looked for in `directory`, then in the folder that the environment
    variable `KSEQ_DATA_DIR` names, and else downloaded once, to Keras' cache
    (`~/.keras/datasets/kseq`, or `datasets/kseq` in `$KERAS_HOME`). Wherever they come
    from, they are used only if their SHA-256 is right. `directory` and `KSEQ_DATA_DIR`
    hold one folder for each data set, named like it.

    A part is a tuple of columns, with as many rows in each:

    | name | a part is | parts |
    |---|---|---|
    | `sst2` | texts, labels | train, validation, test |
    | `trec` | texts, labels | train, test |
    | `atis` | texts, slots, intents | train, validation, test |
    | `ud_english_ewt` | texts, parts of speech | train, validation, test |
    | `multi30k` | German texts, English texts | train, validation, test |
    | `tatoeba_fra_eng` | English texts, French texts | train |
    | `korean_chatbot` | questions, answers, labels | train |
    | `sigmorphon2021_g2p` | words, phonemes | train, validation, test |
    | `tiny_shakespeare` | one text, alone in its tuple | train, validation |
    | `italy_power_demand` | series `(B, 24)`, labels | train, test |
    | `mnist` | pictures `(B, 28, 28)`, labels | train, test |
    | `ett` | values `(hours, 7)`, names of the 7 | train, validation, test |

    Texts are lists of strings, and labels int32 arrays, which count through
    `describe(name).labels`. Slots, parts of speech and phonemes are strings too, with
    spaces between them; slots and parts of speech are as many as the words of their
    text. Beside the values of `ett` stand the names of its seven columns.

    The split is the published one. Where none is published, all rows are in `train`;
    `tiny_shakespeare` has the first nine tenths of its characters there.

    Args:
        name: One of `kseq.datasets.names()`.
        directory: Folder that holds the data set as a folder of its own. None to look
            further, as above.
        **options: `language` of `sigmorphon2021_g2p`: `"eng_us"`, `"fre"` or `"ice"`.
            `split=False` of `ett` gives all 17,420 hours as the one part `all`; the
            last 3,020 belong to no published part.

    Returns:
        A dictionary of those of `train`, `validation` and `test` that exist.

    Raises:
        ValueError: There is no such set or option, `directory` does not hold it, a file
            is not what it should be, or cannot be downloaded.

    Example:

    >>> import kseq
    >>> kseq.datasets.load("sst2", directory="recipes")
    Traceback (most recent call last):
    ...
    ValueError: `directory` must be a folder that holds the data set as sst2/. ...
    """
    source = describe(name)
    known = list(inspect.signature(source.read).parameters)[1:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"The data set {name} has the options {known}. Received: {unknown}."
        )
    folder, may_download = files.find_folder(name, directory, names())
    return source.read(
        lambda path: files.content(source, path, folder, may_download), **options
    )


def describe(name):
    """Tells what is known about a data set: `print` it to read it.

    Args:
        name: One of `kseq.datasets.names()`.

    Returns:
        An object with the attributes `name`, `summary`, `licence`, `citation`, `labels`
        (the names of the labels that are numbers) and `files`, each of which has a
        `path`, an `address` and a `sha256`.

    Raises:
        ValueError: There is no such set.

    Example:

    >>> import kseq
    >>> print(kseq.datasets.describe("tiny_shakespeare"))
    tiny_shakespeare: 1,115,394 characters of Shakespeare's plays
    licence: public domain
    cite: Karpathy, 2015, The Unreasonable Effectiveness of Recurrent Neural Networks
    input.txt
        https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7...
        SHA-256 86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed
    >>> kseq.datasets.describe("trec").labels[3]
    'person'
    """
    if name not in SOURCES:
        raise ValueError(
            f"`name` must be one of the known data sets: {', '.join(names())}. "
            f"Received: name={name!r}."
        )
    return SOURCES[name]
