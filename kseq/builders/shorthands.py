"""What a name or a number is short for in a builder's call, and whether parts fit.

Axes in shape comments: B batch, S steps, U units.
"""

import numbers

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

NETWORKS = ("rnn", "lstm", "gru", "transformer")
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


def as_embedding(part, width, name=None, reader=None):
    """`8000` is short for `TokenEmbedding(8000, width)`.

    A Transformer that reads it knows no order, so it gets positions, and is scaled.
    """
    is_integer = isinstance(part, numbers.Integral) and not isinstance(part, bool)
    if is_integer:
        is_for_transformer = isinstance(
            reader, (TransformerEncoder, TransformerDecoder)
        )
        options = {"positions": "sinusoidal", "scale": True}
        return TokenEmbedding(
            part, width, name=name, **(options if is_for_transformer else {})
        )
    part = checked(part, "An embedding", "the size of its vocabulary")
    if not isinstance(part, SequenceEmbedding):
        raise ValueError(
            "An embedding must have a method `symbolic_input(name)`, which makes the "
            f"`keras.Input` that it reads. Received: {part}. Take one of "
            "`kseq.layers`, such as `TokenEmbedding`, or derive your own from "
            "`kseq.layers.SequenceEmbedding`."
        )
    return part


def as_embeddings(part, width, reader):
    """As `as_embedding`, and a dictionary is short for `NamedEmbeddings`."""
    if not isinstance(part, dict):
        return as_embedding(part, width, reader=reader)
    return NamedEmbeddings(
        {
            key: as_embedding(each, width, key_name(key), reader.encoders.get(key))
            for key, each in part.items()
        }
    )


def as_encoder(part, width, name=None):
    """`"gru"` is short for `RecurrentEncoder("gru", width)`, and so on."""
    if isinstance(part, str):
        known_network("encoder", part)
        positive_integer("width", width)
    if part == "transformer":
        return TransformerEncoder(num_heads=heads_of(width), width=width, name=name)
    if part == "conv":
        return ConvEncoder(width, name=name)
    if isinstance(part, str):
        return RecurrentEncoder(part, width, name=name)
    names = 'the name of its cell, "transformer" or "conv"'
    return checked(part, "An encoder", names)


def as_encoders(part, width, source):
    """`"gru"` is short for one encoder, and where a source is several for one each.

    Args:
        part: What `as_encoder` takes; of several sources a name, which is for all, a
            dictionary of what `as_encoder` takes, or None, or a `JoinedEncoders`.
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
            "Of several sources `encoder` must be a name, which is for all, or a "
            f"dictionary with an encoder for each. Received: encoder={part!r} with the "
            f"sources {list(names)}. Take `encoder={{{example}}}`."
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


def names_of(source):
    """The names of several sources in their order; None where there is one source."""
    if isinstance(source, NamedEmbeddings):
        source = source.embeddings
    return tuple(source) if isinstance(source, dict) else None


def key_name(key):
    """The name of a source as that of a layer, or None where it cannot be one."""
    return key if isinstance(key, str) and key.isidentifier() else None


def as_decoder(part, width, cross_attention=True):
    """`"gru"` is short for a GRU decoder with Bahdanau's attention."""
    if isinstance(part, str):
        known_network("decoder", part)
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
            "A decoder must have methods `start` and `step`, which write one step at "
            f"a time. Received: {part}. Take `kseq.layers.RecurrentDecoder`, which "
            "runs any Keras cell, or `TransformerDecoder`, or derive your own from "
            "`kseq.layers.Decoder`."
        )
    return part


def known_network(name, part):
    """Refuse an unknown name of a network, and tell what was most likely meant."""
    known = ENCODERS if name == "encoder" else NETWORKS
    if part in known:
        return
    lower = part.lower()
    if name == "encoder" and lower.startswith("bi"):
        cell = lower.removeprefix("bi").removeprefix("directional").strip("-_ ")
        cell = cell if cell in NETWORKS[:3] else "lstm"
        raise ValueError(
            "A network that reads in both directions is a layer. Received: "
            f"{name}={part!r}. Take "
            f'`{name}=kseq.layers.RecurrentEncoder("{cell}", 64, bidirectional=True)`.'
        )
    likely = "conv" if lower in CONVOLUTIONAL else lower
    meant = f' Take `{name}="{likely}"`.' if likely in known else ""
    listed = ", ".join(f'"{network}"' for network in known)
    raise ValueError(
        f"`{name}` must be one of {listed}, or a layer. Received: {name}={part!r}."
        f"{meant}"
    )


def heads_of(width):
    """The number of heads of a Transformer: 64 features to each, where that divides."""
    heads = max(width // 64, 1)
    return heads if width % heads == 0 else 1


def as_pooling(part, name=None):
    """`"mean"` is short for `MeanPooling()`."""
    if isinstance(part, str):
        return POOLINGS[one_of("pooling", part, tuple(POOLINGS))](name=name)
    return checked(part, "A pooling", "the name of one")


def as_head(part, num_outputs):
    """None is short for a dense layer that gives float32 logits."""
    num_outputs = positive_integer("num_outputs", num_outputs)
    if part is None:
        return keras.layers.Dense(num_outputs, dtype="float32", name="head")
    return checked(part, "A head", "None for a dense one")


def as_step_head(part, num_outputs):
    """`"crf"` is short for `CRF(num_outputs)` in float32, and so is `"ctc"`."""
    num_outputs = positive_integer("num_outputs", num_outputs)
    if isinstance(part, str):
        head = STEP_HEADS[one_of("head", part, tuple(STEP_HEADS))]
        return head(num_outputs, dtype="float32", name="head")
    return as_head(part, num_outputs)


def checked(part, role, short):
    """Returns the part if it is a layer."""
    if not isinstance(part, keras.layers.Layer):
        raise ValueError(f"{role} must be a layer, or {short}. Received: {part!r}.")
    return part


def checked_steps(encoder, outputs):
    """Returns what an encoder gave if it is one vector for each step."""
    shape = shape_of(outputs)
    if isinstance(shape, list) or len(shape) != 3:
        raise ValueError(
            "`encoder` must return one vector for each step, shape (B, S, U). "
            f"Received: encoder={encoder.name}, which returns {shape}. A recurrent "
            "layer needs `return_sequences=True`, and no `return_state`."
        )
    return outputs


def encode(encoder, embedded):
    """Runs any encoder, or none: `(memory (B, S, U), states or None)`."""
    if encoder is None:
        return embedded, None
    if isinstance(encoder, RecurrentEncoder | JoinedEncoders):
        return encoder(embedded, return_state=True)
    return checked_steps(encoder, encoder(embedded)), None


def checked_vectors(pooling, outputs):
    """Returns what a pooling gave if it is one vector for each sequence."""
    shape = shape_of(outputs)
    if isinstance(shape, list) or len(shape) != 2:
        raise ValueError(
            "`pooling` must return one vector for each sequence, shape (B, U). "
            f"Received: pooling={pooling.name}, which returns {shape}. For an answer "
            "at each step take `kseq.many_to_many`."
        )
    return outputs


def checked_answers(head, outputs, num_outputs, name="num_outputs"):
    """Returns what a head gave if its last axis is the answers."""
    shape = shape_of(outputs)
    if isinstance(shape, list) or shape[-1] != num_outputs:
        raise ValueError(
            f"`head` must return `{name}` numbers on the last axis. Received: "
            f"head={head.name}, which returns {shape}, with {name}={num_outputs}. "
            f"End it with `keras.layers.Dense({num_outputs})`."
        )
    return outputs


def check_reads_both_ways(encoder):
    """Raise if the first step of an encoder cannot know the others.

    Its class token would be the same for every sequence, and so the model's answer.
    """
    if isinstance(encoder, ConvEncoder):
        raise ValueError(
            'pooling="class_token" needs an encoder whose first step reads all others. '
            f"Received: encoder={encoder.name}, a ConvEncoder, of which a step reads "
            f'{encoder.receptive_field} at most. Use pooling="attention" or "max".'
        )
    if isinstance(encoder, RecurrentEncoder):
        forwards = not encoder.bidirectional
    else:
        forwards = isinstance(encoder, keras.layers.RNN) and not encoder.go_backwards
    if forwards:
        raise ValueError(
            'pooling="class_token" needs an encoder that reads in both directions, for '
            "it reads the first step. Received: "
            f"encoder={encoder.name}, which has read nothing there. Take "
            "`kseq.layers.RecurrentEncoder(..., bidirectional=True)`, or use "
            'pooling="last".'
        )


def shape_of(outputs):
    """The shape as a tuple, or where there are several tensors a list of shapes."""
    shapes = [tuple(tensor.shape) for tensor in keras.tree.flatten(outputs)]
    return shapes if isinstance(outputs, (list, tuple, dict)) else shapes[0]
