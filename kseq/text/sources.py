"""Sources of a pipeline: texts of one vocabulary, or by name of several.

Axes in shape comments: B texts, N hypotheses, T target tokens, S source tokens.
"""

import keras

from kseq.layers.named_parts import check_names, rows_by_name
from kseq.text.parts import check_has_source, check_least, checked, encode_some


def checked_sources(model, vocabulary):
    """Returns the vocabulary of a source, or several by name, if they fit the model."""
    check_has_source(model)
    sizes = getattr(model, "source_size", None)
    if not isinstance(vocabulary, dict) and not isinstance(sizes, dict):
        vocabulary = checked("source_vocabulary", vocabulary)
        check_least(sizes, "source", vocabulary)
        return vocabulary
    if isinstance(sizes, dict):
        check_names("source_vocabulary", vocabulary, sizes)
    elif sizes is not None:
        raise ValueError(
            "`source_vocabulary` must be one, as the model has one source. Received: "
            f"a dictionary of {sorted(vocabulary)}. A model of several is "
            "`kseq.encoder_decoder(source={...}, ...)`."
        )
    for name, each in vocabulary.items():
        checked(f'source_vocabulary["{name}"]', each)
        size = None if sizes is None else sizes[name]
        if sizes is not None and not isinstance(size, int):
            raise ValueError(
                "`model` must read token ids as each of its sources. Received: a model "
                f"whose source {name!r} is none."
            )
        check_least(size, name, each)
    return dict(vocabulary)


def encode_sources(vocabulary, texts, allow_blank=None):
    """Token ids of texts, of several sources by name; what is blank is empty.

    Args:
        vocabulary: A `Vocabulary`, or several by name.
        texts: List of texts, or for several vocabularies lists by name.
        allow_blank: Whether a text may have no token; of several at least one must.
            None is for callers that cannot allow it.

    Returns:
        A list of lists, or of dictionaries of them.
    """
    if not isinstance(vocabulary, dict):
        return encode_some(vocabulary, texts, allow_blank)
    check_names("texts", texts, vocabulary)
    columns = {name: each.encode(texts[name]) for name, each in vocabulary.items()}
    rows = rows_by_name("texts", columns, "texts")
    rows = [row if any(row.values()) else {} for row in rows]
    if {} in rows and not allow_blank:
        more = ", or give `allow_blank=True` for a result in its place"
        raise ValueError(
            "`texts` must have at least one token each, of some source. Received: "
            f"texts {rows.index({})}, which have none. Leave them out"
            f"{'' if allow_blank is None else more}."
        )
    return rows


def as_source(rows):
    """What a model takes as its source: the rows, of several sources by name."""
    if not rows or not isinstance(rows[0], dict):
        return rows
    return {name: [row[name] for row in rows] for name in rows[0]}


def spelled_source(vocabulary, row):
    """The tokens of a row, of several sources by name."""
    if not isinstance(vocabulary, dict):
        return vocabulary.spell(row)
    row = row or {}
    return {name: each.spell(row.get(name, [])) for name, each in vocabulary.items()}


def attention_of(attention, places, chosen, row):
    """What the chosen tokens of a hypothesis paid attention to, `(..., T, S)`.

    Args:
        attention: `(B, N, ..., T, S)`, of several sources by name; or None.
        places: The numbers of the text and of its hypothesis.
        chosen: Which target tokens.
        row: The token ids of the source, of several by name.
    """
    if attention is None:
        return None
    if isinstance(attention, dict):
        return {
            name: attention_of(each, places, chosen, row[name])
            for name, each in attention.items()
        }
    return attention[places][..., chosen, : len(row)]


def as_numpy(values):
    """Values as an array of NumPy, of several sources by name; None as it is."""
    if isinstance(values, dict):
        return {name: as_numpy(each) for name, each in values.items()}
    return None if values is None else keras.ops.convert_to_numpy(values)


def check_one_source(vocabulary):
    """Raises if there are several sources, of which CTranslate2 takes none."""
    if isinstance(vocabulary, dict):
        raise ValueError(
            "CTranslate2 takes one source. Received: a pipeline of the sources "
            f'{list(vocabulary)}. Take format="tf_saved_model".'
        )
