"""Pretrained word vectors for the tokens of a vocabulary.

Axes in shape comments: V tokens, D width.
"""

import collections
import dataclasses
import os
import unicodedata
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kseq.text.token_ids import END
from kseq.text.validation import at_least, shortened
from kseq.text.vector_files import is_fasttext, read_words
from kseq.text.vocabulary import Vocabulary
from kseq.typing import PathLike, TensorLike

if TYPE_CHECKING:
    from gensim.models import KeyedVectors

FORMS = ("NFC", "NFD", "NFKC", "NFKD")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TokenVectors:
    """A vector for each token of a vocabulary; some of them are pretrained.

    Attributes:
        table: Floats `(V, D)`, in the order of the ids.
        is_found: Booleans `(V,)`: True for pretrained vectors.

    Example: see `read_vectors`.
    """

    table: np.ndarray
    is_found: np.ndarray

    @property
    def num_found(self) -> int:
        """The number of tokens with a pretrained vector."""
        return int(self.is_found.sum())

    @property
    def width(self) -> int:
        """The size D of the vectors."""
        return self.table.shape[1]

    def __repr__(self) -> str:
        tokens = len(self.table) - END - 1
        return f"TokenVectors(found={self.num_found} of {tokens}, width={self.width})"


def read_vectors(
    path_or_vectors: "PathLike | Mapping[str, TensorLike] | KeyedVectors",
    vocabulary: Vocabulary,
    spelling: Literal["NFC", "NFD", "NFKC", "NFKD"]
    | Callable[[str], str]
    | None = None,
    seed: int = 0,
) -> TokenVectors:
    """Return vectors for the tokens of a vocabulary, from word2vec, GloVe or fastText.

    Tokens and the words of a file are compared in their composed form (NFC). So the
    vocabulary and the file may differ in normalization: one may have Hangul syllables
    and the other jamo. Only the vectors of the tokens are kept in memory. A whole
    fastText model (`.bin`) is loaded, and computes a vector for every token from its
    subwords. Tokens that are not found get random vectors with the same mean and
    standard deviation; padding gets zeros.

    Args:
        path_or_vectors: The path of a word2vec, GloVe or fastText text file (`.txt`,
            `.vec`) or binary file (`.bin`), compressed with gzip or not; or vectors by
            word: a dictionary, or `KeyedVectors` of gensim.
        vocabulary: The `Vocabulary`, after `adapt`.
        spelling: The spelling of the words there, if it differs from that of the
            tokens: a Unicode form, such as `"NFD"` for `KeyedVectors` of jamo; or a
            function of a token, such as one that spells jamo as letters (`"한"` as
            `"ㅎㅏㄴ"`).
        seed: Non-negative integer, the seed of the random vectors.

    Returns:
        `TokenVectors`, whose `table` is for `TokenEmbedding.from_vectors`.

    Raises:
        ValueError: The file is damaged or of another kind, no token is found, or a
            vector is not finite or not of the same width as the first.
        ImportError: A whole fastText model needs gensim: `kseq[vectors]`.

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
    given: Any = path_or_vectors
    is_path = isinstance(given, str | os.PathLike)
    if is_path and not is_fasttext(given):
        found = _from_file(given, spelled)
    else:
        vectors = _fasttext(given) if is_path else given
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


def _speller(spelling: Any) -> Callable[[str], str]:
    """Return the function of a token that gives its spelling in the vectors."""
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


def _from_file(path: PathLike, spelled: list[str]) -> dict[int, np.ndarray]:
    """Return the vectors of a file by token number; the first of equal words counts."""
    places = collections.defaultdict(list)
    for place, token in enumerate(spelled):
        places[_composed(token)].append(place)

    def key(word):
        return _composed(word.decode("utf-8", "replace"))

    found: dict[int, np.ndarray] = {}
    for word, vector in read_words(path, lambda word: key(word) in places):
        for place in places[key(word)]:
            found.setdefault(place, vector)
    return found


def _from_mapping(vectors: Any, spelled: list[str]) -> dict[int, np.ndarray]:
    """Return the vectors of a mapping, by token number."""
    if not hasattr(vectors, "__getitem__") or not hasattr(vectors, "__contains__"):
        raise ValueError(
            "`path_or_vectors` must be a path, or vectors by word, as in a dictionary. "
            f"Received: path_or_vectors={shortened(vectors)}."
        )
    found: dict[int, np.ndarray] = {}
    for place, word in enumerate(spelled):
        for key in (word, _composed(word)):
            if place not in found and key in vectors:
                found[place] = np.asarray(vectors[key], "float32")
    return found


def _fasttext(path: PathLike) -> Any:
    """Load a whole fastText model."""
    try:
        from gensim.models.fasttext import load_facebook_vectors
    except ImportError as error:
        raise ImportError(
            "A whole fastText model needs gensim. Install it with "
            "`pip install kseq[vectors]`."
        ) from error
    return load_facebook_vectors(os.fspath(path))


def _composed(word: str) -> str:
    """Return a word in its composed form (NFC)."""
    return word if word.isascii() else unicodedata.normalize("NFC", word)


def _check(
    found: Mapping[int, np.ndarray], tokens: list[str], spelled: list[str]
) -> None:
    """Raise if there are no vectors, or if a vector is invalid."""
    if not found:
        raise ValueError(
            "The vectors must share tokens with the vocabulary. Received: vectors for "
            f"none of its {len(tokens)} tokens, such as {spelled[0]!r}. Check the "
            "language of the file, or pass `spelling` if it spells tokens differently."
        )
    width = next(iter(found.values())).shape
    for place, vector in found.items():
        if vector.shape != width or vector.ndim != 1 or not np.isfinite(vector).all():
            raise ValueError(
                f"A vector must be finite numbers, of shape {width} like the first. "
                f"Received: {vector.shape} for {tokens[place]!r}, {shortened(vector)}."
            )
