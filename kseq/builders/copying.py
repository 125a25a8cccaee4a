"""The `copy` argument of builders: its shorthand and its checks."""

from collections.abc import Sequence

import keras

from kseq.layers import PointerGenerator


def as_pointer_generator(
    copy: bool | Sequence[int] | PointerGenerator | None,
) -> PointerGenerator | None:
    """Return a pointer generator; `True` or an alignment is shorthand for one."""
    if copy is None or copy is False:
        return None
    if isinstance(copy, PointerGenerator):
        return copy
    alignment = None if copy is True else copy
    return PointerGenerator(alignment, dtype="float32", name="pointer_generator")


def check_copying(
    pointer_generator: PointerGenerator | None,
    source: keras.layers.Layer,
    target: keras.layers.Layer,
    decoder: keras.layers.Layer,
    source_dropout: float,
) -> None:
    """Raise unless a model of these components can copy from its source.

    Args:
        pointer_generator: The layer that copies, or None for a model without copying.
        source: The embedding of the source.
        target: The embedding of the target.
        decoder: The decoder.
        source_dropout: Share of the sources dropped in training.
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
    size = getattr(source, "vocabulary_size", None)
    if not isinstance(size, int) or len(source.symbolic_input("source").shape) != 2:
        raise ValueError(
            "Copying requires a source of token ids, one for each step. Received: "
            f"`copy` with source={source}. Use a `TokenEmbedding`, or its vocabulary "
            "size, or leave `copy` out."
        )
    alignment, target_size = pointer_generator.alignment, target.vocabulary_size
    if alignment is None and size != target_size:
        raise ValueError(
            "`copy=True` needs one vocabulary for source and target. Received: "
            f"{size} token ids in the source, {target_size} in the target. Pass the "
            "target id of each source id: `copy=kseq.text.alignment("
            "source_vocabulary, target_vocabulary)`."
        )
    if alignment is not None and (
        len(alignment) != size or max(alignment) >= target_size
    ):
        raise ValueError(
            "`copy` must be the target id of each source id. "
            f"Received: {len(alignment)} ids up to {max(alignment)}, with {size} token "
            f"ids in the source and {target_size} in the target. Compute it from the "
            "vocabularies of the model: `kseq.text.alignment("
            "source_vocabulary, target_vocabulary)`."
        )
    if source_dropout:
        raise ValueError(
            "A model that copies cannot be trained without its source, since it would "
            "still see the words to copy. Received: `copy` with source_dropout="
            f"{source_dropout}. Leave one of them out."
        )
