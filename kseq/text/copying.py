"""Copied words: align two vocabularies, and spell unknown words as in the source.

Axes in shape comments: B texts, N hypotheses, T target tokens, S source tokens, V ids.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kseq.text.parts import checked
from kseq.text.token_ids import END, REPLACEMENT, UNKNOWN, text_positions
from kseq.text.tokenizers import WHOLE
from kseq.text.vocabulary import Vocabulary
from kseq.typing import TensorLike

if TYPE_CHECKING:
    from kseq.text.pipeline import TextToText

Words: TypeAlias = dict[int, str]  # by their positions
Copier: TypeAlias = Callable[[list[int]], str | None]


def alignment(
    source_vocabulary: Vocabulary, target_vocabulary: Vocabulary
) -> np.ndarray:
    """Return the target id of the same spelling for each id of a source vocabulary.

    A model with two vocabularies needs it to copy words:
    `kseq.encoder_decoder(..., copy=ids)`. Tokens that the target vocabulary lacks map
    to its unknown token; `TextToText` replaces it by the source word.

    Args:
        source_vocabulary: The `Vocabulary` of the source.
        target_vocabulary: The `Vocabulary` of the target.

    Returns:
        Integers `(V,)`, a NumPy array.

    Raises:
        ValueError: An argument is not a `Vocabulary`, or has no tokens yet.

    Example:

    >>> from kseq.text import Vocabulary, alignment
    >>> english = Vocabulary("word").adapt(["Paul met Anna in Berlin"])
    >>> german = Vocabulary("word").adapt(["Paul traf Anna in Wien"])
    >>> english.tokens, german.tokens
    (['Anna', 'Berlin', 'Paul', 'in', 'met'], ['Anna', 'Paul', 'Wien', 'in', 'traf'])
    >>> alignment(english, german).tolist()
    [0, 1, 2, 3, 4, 1, 5, 7, 1]
    """
    source = checked("source_vocabulary", source_vocabulary)
    target = checked("target_vocabulary", target_vocabulary)
    ids = dict(zip(target.tokens, range(END + 1, target.size), strict=True))
    known = [ids.get(token, UNKNOWN) for token in source.tokens]
    return np.array([*range(END + 1), *known][: source.size], "int32")


def copied_words(
    pipeline: "TextToText",
    texts: Any,
    numbers: Sequence[int],
    source_ids: list[Any],
    token_ids: np.ndarray,
    attention: Any,
) -> list[list[Words]]:
    """Return the words that replace unknown tokens.

    If a model that copies generates the unknown token, it has copied a source word that
    the target vocabulary lacks: the one with the greatest attention.

    Args:
        pipeline: The `TextToText`.
        texts: All texts, as passed by the user.
        numbers: The indices of the B texts that have tokens.
        source_ids: Their token ids, B lists.
        token_ids: The generated tokens, `(B, N, T)`.
        attention: `(B, N, ..., T, S)`, or None if it was not requested.

    Returns:
        For each of the B texts and N hypotheses, a dictionary of words by their
        positions among the T tokens.
    """
    nothing: list[list[Words]] = [[{}] * token_ids.shape[1] for _ in source_ids]
    if getattr(pipeline.model, "pointer_generator", None) is None:
        return nothing
    found = {}
    for b in np.flatnonzero((token_ids == UNKNOWN).any(axis=(1, 2))).tolist():
        words = lacking_words(pipeline, texts, numbers[b], source_ids[b])
        if words:
            found[b] = words
    if not found:
        return nothing
    places = list(found)
    if attention is None:
        sources = [source_ids[b] for b in places]
        weights = attention_of(pipeline, sources, token_ids[places])
    else:
        weights = copy_attention(attention[places])
    for (b, words), each in zip(found.items(), weights, strict=True):
        rows = zip(token_ids[b], each, strict=True)
        nothing[b] = [words_at(ids, words, own) for ids, own in rows]
    return nothing


def copiers(
    pipeline: "TextToText", texts: Any, numbers: Sequence[int], source_ids: list[Any]
) -> list[Copier | None]:
    """Return a function for each text that finds the word of an unknown token, or None.

    The function takes the token ids generated so far, with the unknown token last. The
    arguments are those of `copied_words`.
    """
    if getattr(pipeline.model, "pointer_generator", None) is None:
        return [None] * len(source_ids)

    def copier(number, row):
        words = lacking_words(pipeline, texts, number, row)

        def copy(ids):
            [[weights]] = attention_of(pipeline, [row], np.array([[ids]]))
            return words_at(np.array(ids), words, weights)[len(ids) - 1]

        return copy if words else None

    return [copier(*each) for each in zip(numbers, source_ids, strict=True)]


def lacking_words(
    pipeline: "TextToText", texts: Any, number: int, source_ids: TensorLike
) -> Words:
    """Return the words of a text that the target vocabulary lacks, by position."""
    aligned, ids = pipeline.model.pointer_generator.alignment, np.asarray(source_ids)
    written = ids if aligned is None else np.asarray(aligned)[ids]
    places = np.flatnonzero(written == UNKNOWN).tolist()
    vocabulary: Any = pipeline.source_vocabulary  # one, in a model that copies
    if not places:
        return {}
    if vocabulary.split in WHOLE:  # texts are not split into symbols first
        words = vocabulary.spell(ids)
    else:
        symbols = vocabulary._split(texts[number : number + 1])
        words = [symbol.decode() for symbol in symbols.values.numpy().tolist()]
    return {s: words[s] for s in places if words[s] != REPLACEMENT}


def attention_of(
    pipeline: "TextToText", source_ids: list[Any], token_ids: np.ndarray
) -> np.ndarray:
    """Return the attention to the source by which a model copies, `(B, N, T, S)`."""
    _, attention = pipeline.model.score(
        source_ids, token_ids, return_attention_scores=True
    )
    return copy_attention(attention)


def copy_attention(attention: np.ndarray) -> np.ndarray:
    """Return the attention `(B, N, T, S)` by which words are copied.

    For a Transformer, `(B, N, layers, heads, T, S)`, it is the mean over the heads of
    the last layer, as in `kseq.layers.PointerGenerator`.
    """
    return attention[:, :, -1].mean(axis=2) if attention.ndim == 6 else attention


def words_at(token_ids: np.ndarray, words: Words, weights: np.ndarray) -> Words:
    """Return the word of each unknown token, by its position in a row `(T,)`."""
    places = np.array(list(words))
    steps = np.flatnonzero(token_ids == UNKNOWN).tolist()
    best = places[weights[steps][:, places].argmax(axis=1)]
    return {t: words[place] for t, place in zip(steps, best.tolist(), strict=True)}


def spelled(
    vocabulary: Vocabulary, token_ids: TensorLike, words: Mapping[int, str | None]
) -> list[Any]:
    """Return the symbols of a row of ids, with words at some of its positions."""
    places, symbols = text_positions(token_ids), vocabulary.spell(token_ids)
    pairs = zip(places.tolist(), symbols, strict=True)
    return [words.get(place, symbol) for place, symbol in pairs]


def readable_twice(texts: Any) -> Any:
    """Return the texts; convert an iterator, which can be read only once, to a list."""
    is_iterator = hasattr(texts, "__iter__") and not hasattr(texts, "__getitem__")
    return list(texts) if is_iterator else texts
