"""Sources of a pipeline: one text, or several texts by name, for each example.

Axes in shape comments: B texts, N hypotheses, T target tokens, S source tokens.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import keras

from kseq.layers.named_parts import check_names, rows_by_name
from kseq.text.parts import check_has_source, check_least, checked, encode_some
from kseq.text.validation import shortened
from kseq.text.vocabulary import Vocabulary
from kseq.typing import Texts

if TYPE_CHECKING:
    import numpy as np

# One source, or several by name.
Vocabularies: TypeAlias = Vocabulary | dict[str, Vocabulary]
SourceTexts: TypeAlias = Texts | Mapping[str, Texts]
SourceRow: TypeAlias = Sequence[int] | dict[str, list[int]]
Attention: TypeAlias = "np.ndarray | dict[str, np.ndarray] | None"


def checked_sources(model: keras.Model, vocabulary: Any) -> Vocabularies:
    """Return the vocabulary, or several by name; raise if they do not fit the model."""
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
            f"a dictionary of {sorted(vocabulary)}. For several sources, build the "
            "model by `kseq.encoder_decoder(source={...}, ...)`."
        )
    for name, each in vocabulary.items():
        checked(f'source_vocabulary["{name}"]', each)
        size = None if sizes is None else sizes[name]
        if sizes is not None and not isinstance(size, int):
            raise ValueError(
                "`model` must take token ids as each of its sources. Received: a model "
                f"whose source {name!r} is not token ids."
            )
        check_least(size, name, each)
    return dict(vocabulary)


def encode_sources(
    vocabulary: Vocabularies, texts: Any, allow_blank: bool | None = None
) -> Sequence[SourceRow]:
    """Return the token ids of each example; those of a blank example are empty.

    Args:
        vocabulary: A `Vocabulary`, or several by name.
        texts: List of texts; for several vocabularies, lists by name.
        allow_blank: Whether to allow examples without tokens. An example of several
            sources needs a token in at least one of them. None, as False, for callers
            that have no such option.

    Returns:
        A list for each example, or a dictionary of lists for several sources.
    """
    if not isinstance(vocabulary, dict):
        return encode_some(vocabulary, texts, allow_blank)
    check_names("texts", texts, vocabulary)
    columns = {name: each.encode(texts[name]) for name, each in vocabulary.items()}
    rows = rows_by_name("texts", columns, "texts")
    rows = [row if any(row.values()) else {} for row in rows]
    if {} in rows and not allow_blank:
        more = ", or pass `allow_blank=True` for an empty result in its place"
        raise ValueError(
            "`texts` must have at least one token each, in some source. Received: "
            f"texts {rows.index({})}, which have none. Leave them out"
            f"{'' if allow_blank is None else more}."
        )
    return rows


def options_without_blank(
    options: dict[str, Any], rows: Sequence[SourceRow]
) -> dict[str, Any]:
    """Return options of `generate` without the prefixes of blank examples."""
    prefix = options.get("prefix")
    if prefix is None:
        return options
    if isinstance(prefix, (list, tuple)) and any(isinstance(p, str) for p in prefix):
        raise ValueError(
            "`prefix` must be rows of token ids. Received: "
            f"prefix={shortened(prefix)}. Encode it: "
            "`target_vocabulary.encode(prefix)`."
        )
    if all(rows) or len(prefix) != len(rows):
        return options
    some = [p for p, row in zip(prefix, rows, strict=True) if row]
    return {**options, "prefix": some}


def as_source(rows: Any) -> Any:
    """Return the source for a model: the rows, or rows by name for several sources."""
    if not rows or not isinstance(rows[0], dict):
        return rows
    return {name: [row[name] for row in rows] for name in rows[0]}


def spelled_source(
    vocabulary: Vocabularies, row: Any
) -> list[str] | dict[str, list[str]]:
    """Return the tokens of a row, by name for several sources."""
    if not isinstance(vocabulary, dict):
        return vocabulary.spell(row)
    row = row or {}
    return {name: each.spell(row.get(name, [])) for name, each in vocabulary.items()}


def attention_of(
    attention: Attention, places: tuple[int, int], chosen: "np.ndarray", row: Any
) -> Attention:
    """Return the attention of tokens of a hypothesis to the source, `(..., T, S)`.

    Args:
        attention: `(B, N, ..., T, S)`, by name for several sources; or None.
        places: The indices of the text and of its hypothesis.
        chosen: The positions of the target tokens.
        row: The token ids of the source, by name for several sources.
    """
    if attention is None:
        return None
    if isinstance(attention, dict):
        return {
            name: attention_of(each, places, chosen, row[name])  # type: ignore[misc]
            for name, each in attention.items()
        }
    return attention[places][..., chosen, : len(row)]


def as_numpy(values: Any) -> Any:
    """Convert a tensor, or tensors by name, to NumPy arrays; return None unchanged."""
    if isinstance(values, dict):
        return {name: as_numpy(each) for name, each in values.items()}
    return None if values is None else keras.ops.convert_to_numpy(values)


def check_one_source(vocabulary: Vocabularies) -> None:
    """Raise if there are several sources, which CTranslate2 does not support."""
    if isinstance(vocabulary, dict):
        raise ValueError(
            "CTranslate2 takes one source. Received: a pipeline with the sources "
            f'{list(vocabulary)}. Use format="tf_saved_model".'
        )
