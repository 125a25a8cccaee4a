"""Models that copy words of their source: when they can, and what is short for it."""

from kseq.layers import PointerGenerator


def as_pointer_generator(copy):
    """`True` is short for `PointerGenerator()`, ids for one with that alignment."""
    if copy is None or copy is False:
        return None
    if isinstance(copy, PointerGenerator):
        return copy
    alignment = None if copy is True else copy
    return PointerGenerator(alignment, dtype="float32", name="pointer_generator")


def check_copying(pointer_generator, source, target, decoder, source_dropout):
    """Raise unless a model of these parts can copy from its source.

    Args:
        pointer_generator: The layer that copies, or None for a model that does not.
        source: The embedding of the source.
        target: The embedding of the target.
        decoder: The decoder.
        source_dropout: Share of the sources that are taken away in training.
    """
    if pointer_generator is None:
        return
    if not decoder.attends:
        raise ValueError(
            "A model copies what its decoder attends to. Received: `copy` with "
            f"{type(decoder).__name__} '{decoder.name}', which has no attention to the "
            'source. Take `decoder="gru"`, a `RecurrentDecoder` with `attention='
            '"bahdanau"`, or a `TransformerDecoder` with `cross_attention=True`.'
        )
    size = getattr(source, "vocabulary_size", None)
    if not isinstance(size, int) or len(source.symbolic_input("source").shape) != 2:
        raise ValueError(
            "A model copies token ids, one for each step. Received: `copy` with "
            f"source={source}. Take a `TokenEmbedding`, or its vocabulary size, or "
            "leave `copy` out."
        )
    alignment, target_size = pointer_generator.alignment, target.vocabulary_size
    if alignment is None and size != target_size:
        raise ValueError(
            "`copy=True` needs one vocabulary for source and target. Received: "
            f"{size} token ids in the source, {target_size} in the target. Say which "
            "id is written for each id of the source: `copy=kseq.text.alignment("
            "source_vocabulary, target_vocabulary)`."
        )
    if alignment is not None and (
        len(alignment) != size or max(alignment) >= target_size
    ):
        raise ValueError(
            "`copy` must be, for each token id of the source, that of the target. "
            f"Received: {len(alignment)} ids up to {max(alignment)}, with {size} token "
            f"ids in the source and {target_size} in the target. Make it of the "
            "vocabularies that the model is made for: `kseq.text.alignment("
            "source_vocabulary, target_vocabulary)`."
        )
    if source_dropout:
        raise ValueError(
            "A model that copies cannot learn without its source, whose words it would "
            f"still see. Received: `copy` with source_dropout={source_dropout}. Leave "
            "one of them out."
        )
