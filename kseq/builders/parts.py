"""What a name or a number is short for in a builder's call."""

import numbers

from kseq.layers import RecurrentDecoder, RecurrentEncoder, TokenEmbedding


def as_embedding(part, width):
    """`8000` is short for `TokenEmbedding(8000, width)`."""
    is_integer = isinstance(part, numbers.Integral) and not isinstance(part, bool)
    return TokenEmbedding(part, width) if is_integer else part


def as_encoder(part, width):
    """`"gru"` is short for `RecurrentEncoder("gru", width)`."""
    return RecurrentEncoder(part, width) if isinstance(part, str) else part


def as_decoder(part, width):
    """`"gru"` is short for a GRU decoder with Bahdanau's attention."""
    if isinstance(part, str):
        return RecurrentDecoder(part, width, attention="bahdanau")
    return part
