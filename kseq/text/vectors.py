"""Vectors of words that were learned elsewhere, for the tokens of a vocabulary.

Axes in shape comments: V tokens, D width.
"""

import collections
import dataclasses
import os
import unicodedata

import numpy as np

from kseq.text.token_ids import END
from kseq.text.validation import at_least, shortened
from kseq.text.vector_files import is_fasttext, read_words

FORMS = ("NFC", "NFD", "NFKC", "NFKD")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TokenVectors:
    """A vector for each token of a vocabulary, of which some were learned elsewhere.

    Attributes:
        table: Floats `(V, D)`, in the order of the ids.
        is_found: Booleans `(V,)`: True where a vector was learned elsewhere.

    Example: see `read_vectors`.
    """

    table: np.ndarray
    is_found: np.ndarray

    @property
    def num_found(self):
        """How many tokens have a vector that was learned elsewhere."""
        return int(self.is_found.sum())

    @property
    def width(self):
        """Size D of the vectors."""
        return self.table.shape[1]

    def __repr__(self):
        tokens = len(self.table) - END - 1
        return f"TokenVectors(found={self.num_found} of {tokens}, width={self.width})"


def read_vectors(path_or_vectors, vocabulary, spelling=None, seed=0):
    """Reads the vectors of a vocabulary's tokens, as word2vec, GloVe or fastText wrote.

    A token is looked up in its composed form (NFC), and so are the words of a file, so
    a vocabulary with `"NFD"` reads files of syllables, and one of syllables files of
    jamo. Of a file only the vectors that are wanted are kept in memory; a whole model
    of fastText (`.bin`) is loaded, and gives a vector to each token, by its parts.
    Tokens that are not found get random vectors of the same spread, and padding zeros.

    Args:
        path_or_vectors: The path of a text file of word2vec, GloVe or fastText
            (`.txt`, `.vec`) or of a binary file (`.bin`), packed by gzip or not; or
            vectors by word: a dictionary, or `KeyedVectors` of gensim.
        vocabulary: The `Vocabulary`, after `adapt`.
        spelling: How the words are written there, if not as the tokens: a Unicode form,
            such as `"NFD"` for `KeyedVectors` of jamo, or a function of a token, such
            as one that writes the jamo as letters (`"한"` as `"ㅎㅏㄴ"`).
        seed: Non-negative integer that the random vectors follow from.

    Returns:
        `TokenVectors`, whose `table` is for `TokenEmbedding.from_vectors`.

    Raises:
        ValueError: The file is damaged or of another kind, no token is found, or a
            vector is not finite or of another width than the first.
        ImportError: A whole model of fastText needs gensim: `kseq[vectors]`.

    Example:

    >>> from kseq.text import Vocabulary, read_vectors
    >>> words = Vocabulary("word").adapt(["a small dog"])
    >>> vectors = read_vectors({"dog": [0.5, 2.0], "small": [0.25, 0.0]}, words)
    >>> vectors
    TokenVectors(found=2 of 3, width=2)
    >>> vectors.table[words.encode(["dog"])[0]].tolist()
    [[0.5, 2.0]]
    >>> from kseq.layers import TokenEmbedding
    >>> TokenEmbedding.from_vectors(vectors.table, dropout=0.2).width
    2

    References:
        - [Mikolov et al., 2013](https://arxiv.org/abs/1301.3781) (word2vec)
        - [Pennington et al., 2014](https://aclanthology.org/D14-1162/) (GloVe)
        - [Bojanowski et al., 2017](https://aclanthology.org/Q17-1010/) (fastText)
    """
    spelled = [_speller(spelling)(token) for token in vocabulary.tokens]
    is_path = isinstance(path_or_vectors, str | os.PathLike)
    if is_path and not is_fasttext(path_or_vectors):
        found = _from_file(path_or_vectors, spelled)
    else:
        vectors = _fasttext(path_or_vectors) if is_path else path_or_vectors
        found = _from_mapping(vectors, spelled)
    _check(found, vocabulary.tokens, spelled)
    ids = np.array(list(found)) + END + 1
    known = np.stack(list(found.values())).astype("float32")
    shape = vocabulary.size, known.shape[1]
    rng = np.random.default_rng(at_least("seed", seed, 0))
    table = rng.normal(known.mean(), known.std(), shape).astype("float32")  # V D
    table[vocabulary.pad_token_id] = 0
    table[ids] = known
    is_found = np.zeros(len(table), bool)
    is_found[ids] = True
    return TokenVectors(table, is_found)


def _speller(spelling):
    if spelling is None:
        return lambda token: token
    if spelling in FORMS:
        return lambda token: unicodedata.normalize(spelling, token)
    if callable(spelling):
        return spelling
    raise ValueError(
        f"`spelling` must be None, one of {', '.join(FORMS)}, or a function of a "
        f"token. Received: spelling={spelling!r}."
    )


def _from_file(path, spelled):
    """Vectors of tokens by their place, of the first word that is spelled so."""
    places = collections.defaultdict(list)
    for place, word in enumerate(spelled):
        places[_composed(word)].append(place)

    def key(word):
        return _composed(word.decode("utf-8", "replace"))

    found = {}
    for word, vector in read_words(path, lambda word: key(word) in places):
        for place in places[key(word)]:
            found.setdefault(place, vector)
    return found


def _from_mapping(vectors, spelled):
    if not hasattr(vectors, "__getitem__") or not hasattr(vectors, "__contains__"):
        raise ValueError(
            "`path_or_vectors` must be a path, or vectors by word as a dictionary is. "
            f"Received: path_or_vectors={shortened(vectors)}."
        )
    found = {}
    for place, word in enumerate(spelled):
        for key in (word, _composed(word)):
            if place not in found and key in vectors:
                found[place] = np.asarray(vectors[key], "float32")
    return found


def _fasttext(path):
    try:
        from gensim.models.fasttext import load_facebook_vectors
    except ImportError as error:
        raise ImportError(
            "A whole model of fastText is read by gensim. Install it with "
            "`pip install kseq[vectors]`."
        ) from error
    return load_facebook_vectors(os.fspath(path))


def _composed(word):
    return word if word.isascii() else unicodedata.normalize("NFC", word)


def _check(found, tokens, spelled):
    if not found:
        raise ValueError(
            "The vectors must be of the language of the vocabulary. Received: none of "
            f"its {len(tokens)} tokens, such as {spelled[0]!r}. If they are spelled "
            "otherwise there, give `spelling`."
        )
    width = next(iter(found.values())).shape
    for place, vector in found.items():
        if vector.shape != width or vector.ndim != 1 or not np.isfinite(vector).all():
            raise ValueError(
                f"A vector must be finite numbers, of shape {width} as the first. "
                f"Received: {vector.shape} for {tokens[place]!r}, {shortened(vector)}."
            )
