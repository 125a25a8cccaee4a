"""Copied words: align two vocabularies, and spell unknown words as in the source.

Axes in shape comments: B texts, N hypotheses, T target tokens, S source tokens, V ids.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kseq.text.parts import checked
from kseq.text.sources import as_source
from kseq.text.token_ids import END, REPLACEMENT, UNKNOWN, text_positions
from kseq.text.tokenizers import WHOLE
from kseq.text.vocabulary import Vocabulary
from kseq.typing import TensorLike

if TYPE_CHECKING:
    from kseq.text.pipeline import TextToText

Words: TypeAlias = dict[int, str]  # by their positions
SourceWords: TypeAlias = dict[str | None, Words]  # by source; None if there is one
Copier: TypeAlias = Callable[[list[int]], str | None]


def alignment(
    source_vocabulary: Vocabulary, target_vocabulary: Vocabulary
) -> np.ndarray:
    """Return the target id of the same spelling for each id of a source vocabulary.

    A model with two vocabularies needs it to copy words:
    `kseq.encoder_decoder(..., copy=ids)`, or `copy={"lemma": ids}` for one of several
    sources. Tokens that the target vocabulary lacks map to its unknown token;
    `TextToText` replaces it with the source word.

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
        texts: All texts, as passed by the user; by name for several sources.
        numbers: The indices of the B texts that have tokens.
        source_ids: Their token ids, B lists; for several sources, B dictionaries.
        token_ids: The generated tokens, `(B, N, T)`.
        attention: `(B, N, ..., T, S)`, by name for several sources; or None if it was
            not requested.

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
        weights = {
            name: copy_attention(each[places])
            for name, each in by_source(attention).items()
        }
    for place, (b, words) in enumerate(found.items()):
        nothing[b] = [
            words_at(ids, words, {name: x[place, n] for name, x in weights.items()})
            for n, ids in enumerate(token_ids[b])
        ]
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
            weights = attention_of(pipeline, [row], np.array([[ids]]))
            weights = {name: each[0, 0] for name, each in weights.items()}
            return words_at(np.array(ids), words, weights)[len(ids) - 1]

        return copy if words else None

    return [copier(*each) for each in zip(numbers, source_ids, strict=True)]


def lacking_words(
    pipeline: "TextToText", texts: Any, number: int, source_ids: Any
) -> SourceWords:
    """Return the words of a text that the target vocabulary lacks, by position."""
    alignments, rows = pipeline.model.pointer_generator.alignment, by_source(source_ids)
    found = {}
    for name, vocabulary in by_source(pipeline.source_vocabulary).items():
        alignment = alignments if name is None else alignments[name]
        if alignment is not False:
            own_texts = texts if name is None else texts[name]
            found[name] = unknown_words(
                vocabulary, own_texts, number, rows[name], alignment
            )
    return {name: words for name, words in found.items() if words}


def unknown_words(
    vocabulary: Vocabulary, texts: Any, number: int, source_ids: TensorLike, ids: Any
) -> Words:
    """Return the words of one source that the target vocabulary lacks, by position."""
    has_same_ids = ids is None or ids is True
    row = np.asarray(source_ids, "int32")
    written = row if has_same_ids else np.asarray(ids)[row]
    places = np.flatnonzero(written == UNKNOWN).tolist()
    if not places:
        return {}
    if vocabulary.split in WHOLE:  # texts are not split into symbols first
        words = vocabulary.spell(source_ids)
    else:
        symbols = vocabulary._split(texts[number : number + 1])
        words = [symbol.decode() for symbol in symbols.values.numpy().tolist()]
    return {s: words[s] for s in places if words[s] != REPLACEMENT}


def attention_of(
    pipeline: "TextToText", source_ids: list[Any], token_ids: np.ndarray
) -> dict[str | None, np.ndarray]:
    """Return the attention by which a model copies, `(B, N, T, S)` of each source."""
    _, attention = pipeline.model.score(
        as_source(source_ids), token_ids, return_attention_scores=True
    )
    return {name: copy_attention(x) for name, x in by_source(attention).items()}


def by_source(values: Any) -> dict[Any, Any]:
    """Return values of several sources by name, or those of one source as `None`."""
    return values if isinstance(values, dict) else {None: values}


def copy_attention(attention: np.ndarray) -> np.ndarray:
    """Return the attention `(B, N, T, S)` by which words are copied.

    For a Transformer, `(B, N, layers, heads, T, S)`, it is the mean over the heads of
    the last layer, as in `kseq.layers.PointerGenerator`.
    """
    return attention[:, :, -1].mean(axis=2) if attention.ndim == 6 else attention


def words_at(
    token_ids: np.ndarray,
    words: SourceWords,
    weights: Mapping[str | None, np.ndarray],
) -> Words:
    """Return the word of each unknown token, by its position in a row `(T,)`.

    Args:
        token_ids: The row.
        words: The words to choose from, by source and position.
        weights: The attention `(T, S)` to each source.
    """
    steps = np.flatnonzero(token_ids == UNKNOWN).tolist()
    spellings = [word for each in words.values() for word in each.values()]
    columns = [weights[name][steps][:, list(each)] for name, each in words.items()]
    best = np.concatenate(columns, axis=1).argmax(axis=1).tolist()
    return {t: spellings[place] for t, place in zip(steps, best, strict=True)}


def spelled(
    vocabulary: Vocabulary, token_ids: TensorLike, words: Mapping[int, str | None]
) -> list[Any]:
    """Return the symbols of a row of ids, with words at some of its positions."""
    places, symbols = text_positions(token_ids), vocabulary.spell(token_ids)
    pairs = zip(places.tolist(), symbols, strict=True)
    return [words.get(place, symbol) for place, symbol in pairs]


def readable_twice(texts: Any) -> Any:
    """Return the texts; convert iterators, which can be read only once, to lists."""
    if isinstance(texts, dict):
        return {name: readable_twice(each) for name, each in texts.items()}
    is_iterator = hasattr(texts, "__iter__") and not hasattr(texts, "__getitem__")
    return list(texts) if is_iterator else texts
