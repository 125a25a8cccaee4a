"""The `copy` argument of builders: its shorthand, its checks and its source ids."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from kseq.layers import JoinedEncoders, NamedEmbeddings, PointerGenerator
from kseq.layers.pointer_generator import Alignment
from kseq.typing import Tree


def as_pointer_generator(
    copy: bool | Alignment | PointerGenerator | None, encoder: keras.layers.Layer | None
) -> PointerGenerator | None:
    """Return a pointer generator; `True` or an alignment is shorthand for one.

    Args:
        copy: As for `kseq.encoder_decoder`.
        encoder: The encoder; for several sources a `JoinedEncoders`.
    """
    if copy is None or copy is False:
        return None
    if isinstance(copy, PointerGenerator):
        return copy
    alignment: Any = None if copy is True else copy
    if isinstance(alignment, dict) and isinstance(encoder, JoinedEncoders):
        names = list(encoder.encoders)  # the order of the joined memory
        check_known(alignment, names)
        alignment = {name: alignment.get(name, False) for name in names}
    return PointerGenerator(alignment, dtype="float32", name="pointer_generator")


def check_known(copy: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise unless the model has each source that `copy` names."""
    unknown = [name for name in copy if name not in names]
    if unknown:
        raise ValueError(
            f"`copy` must name sources of the model. Received: {unknown} with the "
            f"sources {list(names)}. Use `copy={{{names[0]!r}: True}}`."
        )


def check_copying(
    pointer_generator: PointerGenerator | None,
    source: keras.layers.Layer,
    target: keras.layers.Layer,
    encoder: keras.layers.Layer | None,
    decoder: keras.layers.Layer,
    source_dropout: float,
) -> None:
    """Raise unless a model of these components can copy from its source.

    Args:
        pointer_generator: The layer that copies, or None for a model without copying.
        source: The embedding of the source.
        target: The embedding of the target.
        encoder: The encoder, or None.
        decoder: The decoder.
        source_dropout: Fraction of the sources dropped in training.
    """
    if pointer_generator is None:
        return
    if not decoder.attends:
        raise ValueError(
            "Copying requires a decoder with attention to the source. Received: `copy` "
            f"with {type(decoder).__name__} '{decoder.name}', which has none. Use "
            '`decoder="gru"`, a `RecurrentDecoder` with `attention="bahdanau"`, or a '
            "`TransformerDecoder` with `cross_attention=True`."
        )
    alignment = pointer_generator.alignment
    check_names_of_copy(alignment, source, target, encoder)
    for name, embedding, ids in copied_sources(alignment, source):
        check_source(name, embedding, ids, target.vocabulary_size)
    if source_dropout:
        raise ValueError(
            "A model that copies cannot be trained without its source, since it would "
            "still see the words to copy. Received: `copy` with source_dropout="
            f"{source_dropout}. Leave one of them out."
        )


def check_names_of_copy(
    alignment: Any,
    source: keras.layers.Layer,
    target: keras.layers.Layer,
    encoder: Any,
) -> None:
    """Raise unless an alignment has a name for each of several sources, in order."""
    is_named = isinstance(alignment, dict)
    if not isinstance(source, NamedEmbeddings):
        if is_named:
            raise ValueError(
                "`copy` must be a dictionary only for several sources. Received: "
                f"the names {list(alignment)} with source={source}. Use `copy=True`, "
                "or pass several sources as `source={...}`."
            )
        return
    names = list(encoder.encoders)
    if not is_named:
        size = target.vocabulary_size
        embeddings = source.embeddings
        fitting = [x for x in names if source_size(embeddings[x]) == size]
        raise ValueError(
            "With several sources, `copy` must name those to copy from. Received: "
            f"copy={'True' if alignment is None else 'ids'} with the sources {names}. "
            f"Use `copy={{{(fitting or names)[0]!r}: True}}`, or for two vocabularies "
            "the target id of each source id in place of True."
        )
    if list(alignment) != names:
        example = {name: alignment.get(name, False) is not False for name in names}
        raise ValueError(
            "A `PointerGenerator` for several sources must list all of them, in the "
            f"order of the encoders. Received: {list(alignment)} with the sources "
            f"{names}. Use `PointerGenerator({example})`, or for two vocabularies the "
            "target id of each source id in place of True."
        )


def check_source(
    name: str | None, source: keras.layers.Layer, ids: Any, target_size: int
) -> None:
    """Raise unless a source has token ids that the target can copy.

    Args:
        name: The name of one of several sources, or None.
        source: Its embedding.
        ids: Its alignment.
        target_size: The size of the target vocabulary.
    """
    size = source_size(source)
    place = "the source" if name is None else f"the source {name!r}"
    if size is None:
        raise ValueError(
            "Copying requires a source of token ids, one for each step. Received: "
            f"`copy` from {place}, {source}. Use a `TokenEmbedding`, or its vocabulary "
            "size, or leave `copy` out."
        )
    alignment = "kseq.text.alignment(source_vocabulary, target_vocabulary)"
    advice = (
        f"`copy={alignment}`" if name is None else f"`copy={{{name!r}: {alignment}}}`"
    )
    if ids is None or ids is True:
        if size != target_size:
            raise ValueError(
                "`copy=True` needs one vocabulary for source and target. Received: "
                f"{size} token ids in {place}, {target_size} in the target. Pass "
                f"the target id of each source id: {advice}."
            )
    elif len(ids) != size or max(ids) >= target_size:
        raise ValueError(
            "`copy` must be the target id of each source id. "
            f"Received: {len(ids)} ids up to {max(ids)}, with {size} token ids in "
            f"{place} and {target_size} in the target. Compute it from the "
            f"vocabularies of the model: {advice}."
        )


def copied_sources(
    alignment: Any, source: keras.layers.Layer
) -> Iterator[tuple[str | None, keras.layers.Layer, Any]]:
    """Yield the name, the embedding and the ids of each source to copy from."""
    if not isinstance(alignment, dict):
        yield None, source, alignment
        return
    for name, ids in alignment.items():
        if ids is not False:
            yield name, source.embeddings[name], ids


def source_size(source: keras.layers.Layer) -> int | None:
    """Return the vocabulary size of a source of token ids `(B, S)`, or None."""
    size = getattr(source, "vocabulary_size", None)
    is_of_ids = (
        isinstance(size, int) and len(source.symbolic_input("source").shape) == 2
    )
    return size if is_of_ids else None


def steps_to_copy(source: keras.layers.Layer, inputs: Tree, embedded: Tree) -> Tree:
    """Return the `token_ids` argument of a `PointerGenerator`.

    Args:
        source: The embedding of the source.
        inputs: The source, by name if there are several.
        embedded: The result of the embedding.
    """
    if not isinstance(source, NamedEmbeddings):
        return inputs
    return {
        name: inputs[name] if source_size(embedding) else embedded[name]
        for name, embedding in source.embeddings.items()
    }
