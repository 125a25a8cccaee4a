"""Search spaces of encoders and decoders, which the spaces of builders use.

See `spaces.py` for the sources of their ranges.
"""

from typing import Any, Literal, TypeAlias

from kseq.layers import (
    BahdanauAttention,
    ConvEncoder,
    LuongAttention,
    RecurrentDecoder,
    RecurrentEncoder,
    TransformerDecoder,
    TransformerEncoder,
)
from kseq.layers.validation import one_of
from kseq.tuning.choice import Choice
from kseq.tuning.dimensions import Dimension, Float, Int
from kseq.tuning.space import Space

Network: TypeAlias = Literal["recurrent", "transformer", "both", "conv", "all"]
Writer: TypeAlias = Literal["recurrent", "transformer", "both"]

WRITERS = ("recurrent", "transformer", "both")
NETWORKS = (*WRITERS, "conv", "all")


def recurrent_encoder(**fixed: Any) -> Space:
    """Make a space of recurrent encoders: one to three bidirectional LSTMs or GRUs.

    For long sequences pass `cell=Choice("gru", "mingru")`, which trains faster.

    Args:
        **fixed: Further arguments of `kseq.layers.RecurrentEncoder`, which replace
            searched ones: values or dimensions.

    Returns:
        A `Space` of `kseq.layers.RecurrentEncoder`, for a builder's `encoder`.

    Example:

    >>> from kseq.tuning import Choice, Int, spaces
    >>> small = spaces.recurrent_encoder(units=64, num_layers=Int(1, 2))
    >>> flat = spaces.transformer_encoder(num_layers=1)
    >>> space = spaces.many_to_one(20_000, 2, encoder=Choice(small, flat))
    """
    searched = {
        "cell": Choice("lstm", "gru"),
        "units": units(),
        "num_layers": Int(1, 3),
        "bidirectional": True,
        "dropout": dropout(),
    }
    return Space(RecurrentEncoder, **{**searched, **fixed})


def conv_encoder(**fixed: Any) -> Space:
    """Make a space of convolutional encoders of two to six layers.

    Args:
        **fixed: See `recurrent_encoder`.

    Returns:
        A `Space` of `kseq.layers.ConvEncoder`.
    """
    searched = {
        "units": units(),
        "num_layers": Int(2, 6, default=4),
        "kernel_size": Choice(3, 5, 7),
        "gated": Choice(False, True),
        "dropout": dropout(),
    }
    return Space(ConvEncoder, **{**searched, **fixed})


def transformer_encoder(**fixed: Any) -> Space:
    """Make a space of Transformer encoders of one to six layers.

    Args:
        **fixed: See `recurrent_encoder`.

    Returns:
        A `Space` of `kseq.layers.TransformerEncoder`.
    """
    return Space(TransformerEncoder, **{**transformer(), **fixed})


def recurrent_decoder(**fixed: Any) -> Space:
    """Make a space of recurrent decoders of one to three layers with attention.

    The attention is Bahdanau's, with as many units as the decoder, or Luong's.

    Args:
        **fixed: See `recurrent_encoder`.

    Returns:
        A `Space` of `kseq.layers.RecurrentDecoder`.

    Example:

    >>> from kseq.tuning import Choice, spaces
    >>> kinds = Choice("bahdanau", "location", "coverage", "monotonic", "local")
    >>> space = spaces.recurrent_decoder(attention=kinds)
    """
    size = fixed.get("units", units())
    searched = {
        "cell": Choice("lstm", "gru"),
        "units": size,
        "num_layers": Int(1, 3),
        "dropout": dropout(),
        "attention": Choice(
            Space(BahdanauAttention, size), Space(LuongAttention, "general")
        ),
    }
    return Space(RecurrentDecoder, **{**searched, **fixed})


def transformer_decoder(**fixed: Any) -> Space:
    """Make a space of Transformer decoders of one to six layers.

    Args:
        **fixed: See `recurrent_encoder`.

    Returns:
        A `Space` of `kseq.layers.TransformerDecoder`.
    """
    return Space(TransformerDecoder, **{**transformer(), **fixed})


def encoder_of(network: str) -> Space | Choice:
    one_of("network", network, NETWORKS)
    kinds = {
        "recurrent": recurrent_encoder(),
        "transformer": transformer_encoder(),
        "conv": conv_encoder(),
    }
    return Choice(*kinds.values()) if network == "all" else _one_of(network, kinds)


def decoder_of(network: str) -> Space | Choice:
    is_none = network in ("conv", "all")  # there is no such decoder
    kinds = {"recurrent": recurrent_decoder(), "transformer": transformer_decoder()}
    return _one_of("both" if is_none else network, kinds)


def writer_of(network: str) -> Space | Choice:
    """Return a decoder without a source."""
    kinds = {
        "recurrent": recurrent_decoder(attention=None),
        "transformer": transformer_decoder(cross_attention=False),
    }
    return _one_of(one_of("network", network, WRITERS), kinds)


def transformer() -> dict[str, Dimension]:
    return {
        "num_layers": Int(1, 6, default=2),
        "num_heads": Choice(2, 4, 8, default=4),
        "dropout": Float(0.0, 0.3, step=0.1, default=0.1),
    }


def _one_of(network: str, kinds: dict[str, Space]) -> Space | Choice:
    if network == "both":
        return Choice(kinds["recurrent"], kinds["transformer"])
    return kinds[network]


def units() -> Int:
    return Int(32, 256, step=2, scale="log", default=128)


def width() -> Int:
    return Int(64, 256, step=2, scale="log", default=128)


def dropout() -> Float:
    return Float(0.0, 0.5, step=0.1, default=0.2)
