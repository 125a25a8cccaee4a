"""Words that a model copies: those of the source, in their own spelling.

Axes in shape comments: B texts, N hypotheses, T target tokens, S source tokens, V ids.
"""

import numpy as np

from kseq.text.parts import checked
from kseq.text.token_ids import END, REPLACEMENT, UNKNOWN, text_positions
from kseq.text.tokenizers import WHOLE


def alignment(source_vocabulary, target_vocabulary):
    """Returns the target's id of each id of a source vocabulary, by their spelling.

    By it a model of two vocabularies copies: `kseq.encoder_decoder(..., copy=ids)`.
    What the target vocabulary lacks is its unknown token, in the place of which
    `TextToText` writes the word itself.

    Args:
        source_vocabulary: The `Vocabulary` of what the model reads.
        target_vocabulary: The `Vocabulary` of what it writes.

    Returns:
        Integers `(V,)`, a NumPy array.

    Raises:
        ValueError: A vocabulary is none, or has no tokens yet.

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


def copied_words(pipeline, texts, numbers, source_ids, token_ids, attention):
    """The words that stand in the place of unknown tokens.

    Where a model that copies has written the unknown token, it has copied one of the
    words that the target vocabulary lacks: that to which it attended most.

    Args:
        pipeline: The `TextToText`.
        texts: All texts, as they were given.
        numbers: The numbers of the B texts that were read.
        source_ids: Their token ids, B lists.
        token_ids: What was written, `(B, N, T)`.
        attention: `(B, N, ..., T, S)`, or None where it was not asked for.

    Returns:
        For each of the B texts and N hypotheses a dictionary of words by their places
        among the T tokens.
    """
    nothing = [[{}] * token_ids.shape[1] for _ in source_ids]
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


def copiers(pipeline, texts, numbers, source_ids):
    """For each text a function that gives the word of an unknown token, or None.

    It takes the token ids written so far, of which the last is the unknown one. The
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


def lacking_words(pipeline, texts, number, source_ids):
    """The words of a text that the target vocabulary lacks, by their places."""
    aligned, ids = pipeline.model.pointer_generator.alignment, np.asarray(source_ids)
    written = ids if aligned is None else np.asarray(aligned)[ids]
    places = np.flatnonzero(written == UNKNOWN).tolist()
    vocabulary = pipeline.source_vocabulary
    if not places:
        return {}
    if vocabulary.split in WHOLE:  # which have no symbols of what is unknown
        words = vocabulary.spell(ids)
    else:
        symbols = vocabulary._split(texts[number : number + 1])
        words = [symbol.decode() for symbol in symbols.values.numpy().tolist()]
    return {s: words[s] for s in places if words[s] != REPLACEMENT}


def attention_of(pipeline, source_ids, token_ids):
    """What a model attends to in a source where it copies: `(B, N, T, S)`."""
    _, attention = pipeline.model.score(
        source_ids, token_ids, return_attention_scores=True
    )
    return copy_attention(attention)


def copy_attention(attention):
    """The attention `(B, N, T, S)` by which words are copied.

    Of a Transformer, `(B, N, layers, heads, T, S)`, it is that of the last layer, the
    mean of its heads, as in `kseq.layers.PointerGenerator`.
    """
    return attention[:, :, -1].mean(axis=2) if attention.ndim == 6 else attention


def words_at(token_ids, words, weights):
    """The word of each unknown token, by their places in a row `(T,)`."""
    places = np.array(list(words))
    steps = np.flatnonzero(token_ids == UNKNOWN).tolist()
    best = places[weights[steps][:, places].argmax(axis=1)]
    return {t: words[place] for t, place in zip(steps, best.tolist(), strict=True)}


def spelled(vocabulary, token_ids, words):
    """The symbols of a row of ids, with words at some of its places."""
    places, symbols = text_positions(token_ids), vocabulary.spell(token_ids)
    pairs = zip(places.tolist(), symbols, strict=True)
    return [words.get(place, symbol) for place, symbol in pairs]


def readable_twice(texts):
    """The texts, as a list if they could be read only once."""
    is_iterator = hasattr(texts, "__iter__") and not hasattr(texts, "__getitem__")
    return list(texts) if is_iterator else texts
