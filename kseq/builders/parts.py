"""What a name or a number is short for in a builder's call."""

import numbers

import keras

from kseq.layers import RecurrentDecoder, RecurrentEncoder, TokenEmbedding


def as_embedding(part, width):
    """`8000` is short for `TokenEmbedding(8000, width)`."""
    is_integer = isinstance(part, numbers.Integral) and not isinstance(part, bool)
    if is_integer:
        return TokenEmbedding(part, width)
    return checked(part, "An embedding", "the size of its vocabulary")


def as_encoder(part, width):
    """`"gru"` is short for `RecurrentEncoder("gru", width)`."""
    if isinstance(part, str):
        return RecurrentEncoder(part, width)
    return checked(part, "An encoder", "the name of its cell")


def as_decoder(part, width):
    """`"gru"` is short for a GRU decoder with Bahdanau's attention."""
    if isinstance(part, str):
        return RecurrentDecoder(part, width, attention="bahdanau")
    return checked(part, "A decoder", "the name of its cell")


def checked(part, role, short):
    """Returns the part if it is a layer."""
    if not isinstance(part, keras.layers.Layer):
        raise ValueError(f"{role} must be a layer, or {short}. Received: {part!r}.")
    return part
