"""Shorthands for components of builders, and checks that components fit.

Axes in shape comments: B batch, S steps, U units.
"""

import numbers
from collections.abc import Mapping
from typing import Any

import keras

from kseq.layers import (
    CRF,
    CTC,
    AttentionPooling,
    ClassTokenPooling,
    ConvEncoder,
    Decoder,
    JoinedEncoders,
    LastStepPooling,
    MaxPooling,
    MeanPooling,
    NamedEmbeddings,
    RecurrentDecoder,
    RecurrentEncoder,
    SequenceEmbedding,
    TokenEmbedding,
    TransformerDecoder,
    TransformerEncoder,
)
from kseq.layers.named_parts import check_names
from kseq.layers.validation import one_of, positive_integer
from kseq.typing import LayerLike, Shape, Tensor, Tree

NETWORKS = ("rnn", "lstm", "gru", "mingru", "transformer")
ENCODERS = (*NETWORKS, "conv")
CONVOLUTIONAL = ("cnn", "tcn", "conv1d", "convolution", "convolutional", "wavenet")
STEP_HEADS = {"crf": CRF, "ctc": CTC}
POOLINGS = {
    "mean": MeanPooling,
    "max": MaxPooling,
    "last": LastStepPooling,
    "class_token": ClassTokenPooling,
    "attention": AttentionPooling,
}


def as_embedding(
    part: LayerLike,
    width: int,
    name: str | None = None,
    reader: keras.layers.Layer | None = None,
) -> SequenceEmbedding:
    """Return an embedding; `8000` is shorthand for `TokenEmbedding(8000, width)`.

    If a Transformer reads it, a shorthand embedding is scaled and has sinusoidal
    positions, since a Transformer does not know the order of its inputs.
    """
    is_integer = isinstance(part, numbers.Integral) and not isinstance(part, bool)
    if is_integer:
        is_for_transformer = isinstance(
            reader, (TransformerEncoder, TransformerDecoder)
        )
        size: Any = part
        options: dict[str, Any] = {"positions": "sinusoidal", "scale": True}
        return TokenEmbedding(
            size, width, name=name, **(options if is_for_transformer else {})
        )
    part = checked(part, "An embedding", "the size of its vocabulary")
    if not isinstance(part, SequenceEmbedding):
        raise ValueError(
            "An embedding must have a method `symbolic_input(name)` that returns its "
            f"`keras.Input`. Received: {part}. Use one of `kseq.layers`, such as "
            "`TokenEmbedding`, or derive your own from "
            "`kseq.layers.SequenceEmbedding`."
        )
    return part


def as_embeddings(
    part: LayerLike | Mapping[str, LayerLike], width: int, reader: keras.layers.Layer
) -> SequenceEmbedding:
    """Return an embedding; a dictionary is shorthand for `NamedEmbeddings`."""
    if not isinstance(part, dict):
        return as_embedding(part, width, reader=reader)
    return NamedEmbeddings(
        {
            key: as_embedding(each, width, key_name(key), reader.encoders.get(key))
            for key, each in part.items()
        }
    )


def as_encoder(
    part: LayerLike, width: int, name: str | None = None
) -> keras.layers.Layer:
    """Return an encoder; `"gru"` is shorthand for `RecurrentEncoder("gru", width)`."""
    if isinstance(part, str):
        check_network("encoder", part)
        positive_integer("width", width)
    if part == "transformer":
        return TransformerEncoder(num_heads=heads_of(width), width=width, name=name)
    if part == "conv":
        return ConvEncoder(width, name=name)
    if isinstance(part, str):
        return RecurrentEncoder(part, width, name=name)
    names = 'the name of its cell, "transformer" or "conv"'
    return checked(part, "An encoder", names)


def as_encoders(
    part: LayerLike | Mapping[str, LayerLike | None] | None,
    width: int,
    source: LayerLike | Mapping[str, LayerLike],
) -> keras.layers.Layer:
    """Return one encoder, or for several sources a `JoinedEncoders`.

    Args:
        part: An argument of `as_encoder`. For several sources a name for all of them, a
            dictionary with such an argument or None for each, or a `JoinedEncoders`.
        width: As for `as_encoder`.
        source: As for `kseq.encoder_decoder`.
    """
    names = names_of(source)
    if names is None:
        return as_encoder(part, width)
    if isinstance(part, JoinedEncoders):
        check_names("encoder", part.encoders, names)
        return part
    if isinstance(part, str):
        part = dict.fromkeys(names, part)
    if not isinstance(part, dict):
        example = ", ".join(f'"{key}": ...' for key in names)
        raise ValueError(
            "With several sources `encoder` must be a name for all of them, or a "
            f"dictionary with an encoder for each. Received: encoder={part!r} with the "
            f"sources {list(names)}. Use `encoder={{{example}}}`."
        )
    check_names("encoder", part, names)
    return JoinedEncoders(
        {
            key: part[key]
            if part[key] is None
            else as_encoder(part[key], width, key_name(key))
            for key in names
        }
    )


def names_of(source: LayerLike | Mapping[str, LayerLike]) -> tuple[str, ...] | None:
    """Return the names of several sources in order, or None for a single source."""
    if isinstance(source, NamedEmbeddings):
        source = source.embeddings
    return tuple(source) if isinstance(source, dict) else None


def key_name(key: Any) -> str | None:
    """Return the name of a source as a layer name, or None if it is not valid."""
    return key if isinstance(key, str) and key.isidentifier() else None


def as_decoder(part: LayerLike, width: int, cross_attention: bool = True) -> Decoder:
    """Return a decoder; `"gru"` is shorthand for a GRU with Bahdanau's attention."""
    if isinstance(part, str):
        check_network("decoder", part)
        positive_integer("width", width)
    if part == "transformer":
        return TransformerDecoder(
            num_heads=heads_of(width), width=width, cross_attention=cross_attention
        )
    if isinstance(part, str):
        attention = "bahdanau" if cross_attention else None
        return RecurrentDecoder(part, width, attention=attention)
    part = checked(part, "A decoder", 'the name of its cell, or "transformer"')
    if not isinstance(part, Decoder):
        raise ValueError(
            "A decoder must have methods `start` and `step` for decoding step by step. "
            f"Received: {part}. Use `kseq.layers.RecurrentDecoder`, which runs any "
            "Keras cell, or `TransformerDecoder`, or derive your own from "
            "`kseq.layers.Decoder`."
        )
    return part


def check_network(name: str, part: str) -> None:
    """Raise unless the name of a network is known, and suggest the likely one."""
    known = ENCODERS if name == "encoder" else NETWORKS
    if part in known:
        return
    lower = part.lower()
    if name == "encoder" and lower.startswith("bi"):
        cell = lower.removeprefix("bi").removeprefix("directional").strip("-_ ")
        cell = cell if cell in NETWORKS[:-1] else "lstm"
        raise ValueError(
            "A bidirectional encoder must be passed as a layer. Received: "
            f"{name}={part!r}. Use "
            f'`{name}=kseq.layers.RecurrentEncoder("{cell}", 64, bidirectional=True)`.'
        )
    likely = "conv" if lower in CONVOLUTIONAL else lower
    meant = f' Use `{name}="{likely}"`.' if likely in known else ""
    listed = ", ".join(f'"{network}"' for network in known)
    raise ValueError(
        f"`{name}` must be one of {listed}, or a layer. Received: {name}={part!r}."
        f"{meant}"
    )


def heads_of(width: int) -> int:
    """Return the number of Transformer heads: `width // 64` if it divides `width`."""
    heads = max(width // 64, 1)
    return heads if width % heads == 0 else 1


def as_pooling(part: LayerLike, name: str | None = None) -> keras.layers.Layer:
    """Return a pooling layer; `"mean"` is shorthand for `MeanPooling()`."""
    if isinstance(part, str):
        return POOLINGS[one_of("pooling", part, tuple(POOLINGS))](name=name)
    return checked(part, "A pooling", "the name of one")


def as_head(part: LayerLike | None, num_outputs: int) -> keras.layers.Layer:
    """Return a head; None is shorthand for a dense layer with float32 logits."""
    num_outputs = positive_integer("num_outputs", num_outputs)
    if part is None:
        return keras.layers.Dense(num_outputs, dtype="float32", name="head")
    return checked(part, "A head", "None for a dense one")


def as_step_head(part: LayerLike | None, num_outputs: int) -> keras.layers.Layer:
    """Return a head; `"crf"` is shorthand for `CRF(num_outputs)`, `"ctc"` for `CTC`.

    Both are float32.
    """
    num_outputs = positive_integer("num_outputs", num_outputs)
    if isinstance(part, str):
        head = STEP_HEADS[one_of("head", part, tuple(STEP_HEADS))]
        return head(num_outputs, dtype="float32", name="head")
    return as_head(part, num_outputs)


def checked(part: Any, role: str, short: str) -> keras.layers.Layer:
    """Return the component if it is a layer, and raise otherwise."""
    if not isinstance(part, keras.layers.Layer):
        raise ValueError(f"{role} must be a layer, or {short}. Received: {part!r}.")
    return part


def checked_steps(encoder: keras.layers.Layer, outputs: Tensor) -> Tensor:
    """Return the outputs of an encoder if they are one vector for each step."""
    shape = shape_of(outputs)
    if isinstance(shape, list) or len(shape) != 3:
        raise ValueError(
            "`encoder` must return one vector for each step, shape (B, S, U). "
            f"Received: encoder={encoder.name}, which returns {shape}. A recurrent "
            "layer needs `return_sequences=True`, and no `return_state`."
        )
    return outputs


def encode(encoder: keras.layers.Layer | None, embedded: Tree) -> tuple[Tensor, Tree]:
    """Return `(memory (B, S, U), states or None)` of any encoder, or of none."""
    if encoder is None:
        return embedded, None
    if isinstance(encoder, RecurrentEncoder | JoinedEncoders):
        return encoder(embedded, return_state=True)
    return checked_steps(encoder, encoder(embedded)), None


def checked_vectors(pooling: keras.layers.Layer, outputs: Tensor) -> Tensor:
    """Return the outputs of a pooling if they are one vector for each sequence."""
    shape = shape_of(outputs)
    if isinstance(shape, list) or len(shape) != 2:
        raise ValueError(
            "`pooling` must return one vector for each sequence, shape (B, U). "
            f"Received: pooling={pooling.name}, which returns {shape}. For an answer "
            "at each step use `kseq.many_to_many`."
        )
    return outputs


def checked_answers(
    head: keras.layers.Layer,
    outputs: Tensor,
    num_outputs: int,
    name: str = "num_outputs",
) -> Tensor:
    """Return the outputs of a head if their last axis has the right size."""
    shape = shape_of(outputs)
    if isinstance(shape, list) or shape[-1] != num_outputs:
        raise ValueError(
            f"`head` must return `{name}` numbers on the last axis. Received: "
            f"head={head.name}, which returns {shape}, with {name}={num_outputs}. "
            f"Use `keras.layers.Dense({num_outputs})` as its last layer."
        )
    return outputs


def check_reads_both_ways(encoder: keras.layers.Layer) -> None:
    """Raise if the first step of an encoder cannot depend on later steps.

    Its class token, and the answer, would be the same for every sequence.
    """
    if isinstance(encoder, ConvEncoder):
        raise ValueError(
            'pooling="class_token" needs an encoder whose first step reads all others. '
            f"Received: encoder={encoder.name}, a ConvEncoder, whose steps read "
            f'{encoder.receptive_field} at most. Use pooling="attention" or "max".'
        )
    if isinstance(encoder, RecurrentEncoder):
        forwards = not encoder.bidirectional
    else:
        forwards = isinstance(encoder, keras.layers.RNN) and not encoder.go_backwards
    if forwards:
        raise ValueError(
            'pooling="class_token" needs a bidirectional encoder, since it uses the '
            f"first step. Received: encoder={encoder.name}, which reads nothing before "
            "its first step. Use "
            "`kseq.layers.RecurrentEncoder(..., bidirectional=True)`, or "
            'pooling="last".'
        )


def shape_of(outputs: Tree) -> Shape | list[Shape]:
    """Return the shape as a tuple, or a list of shapes for several tensors."""
    shapes = [tuple(tensor.shape) for tensor in keras.tree.flatten(outputs)]
    return shapes if isinstance(outputs, (list, tuple, dict)) else shapes[0]
