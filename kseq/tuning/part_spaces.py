"""Search spaces of encoders and decoders, from which those of builders are made.

Where their ranges come from stands in `spaces.py`.
"""

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
from kseq.tuning.dimensions import Choice, Float, Int
from kseq.tuning.space import Space

WRITERS = ("recurrent", "transformer", "both")
NETWORKS = (*WRITERS, "conv", "all")


def recurrent_encoder(**fixed):
    """Recurrent encoders: one to three layers of LSTM or GRU that read both ways.

    Args:
        **fixed: Further arguments of `kseq.layers.RecurrentEncoder`, in place of what
            is searched: values, or dimensions of your own.

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


def conv_encoder(**fixed):
    """Convolutional encoders of two to six layers; as `recurrent_encoder`.

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


def transformer_encoder(**fixed):
    """Transformer encoders of one to six layers; as `recurrent_encoder`.

    Returns:
        A `Space` of `kseq.layers.TransformerEncoder`.
    """
    return Space(TransformerEncoder, **{**transformer(), **fixed})


def recurrent_decoder(**fixed):
    """Recurrent decoders of one to three layers with attention; as `recurrent_encoder`.

    The attention is Bahdanau's, as wide as the decoder, or Luong's.

    Returns:
        A `Space` of `kseq.layers.RecurrentDecoder`.
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


def transformer_decoder(**fixed):
    """Transformer decoders of one to six layers; as `recurrent_encoder`.

    Returns:
        A `Space` of `kseq.layers.TransformerDecoder`.
    """
    return Space(TransformerDecoder, **{**transformer(), **fixed})


def encoder_of(network):
    one_of("network", network, NETWORKS)
    kinds = {
        "recurrent": recurrent_encoder(),
        "transformer": transformer_encoder(),
        "conv": conv_encoder(),
    }
    return Choice(*kinds.values()) if network == "all" else _one_of(network, kinds)


def decoder_of(network):
    is_none = network in ("conv", "all")  # of decoders
    kinds = {"recurrent": recurrent_decoder(), "transformer": transformer_decoder()}
    return _one_of("both" if is_none else network, kinds)


def writer_of(network):
    """A decoder that has nothing to read."""
    kinds = {
        "recurrent": recurrent_decoder(attention=None),
        "transformer": transformer_decoder(cross_attention=False),
    }
    return _one_of(one_of("network", network, WRITERS), kinds)


def transformer():
    return {
        "num_layers": Int(1, 6, default=2),
        "num_heads": Choice(2, 4, 8, default=4),
        "dropout": Float(0.0, 0.3, step=0.1, default=0.1),
    }


def _one_of(network, kinds):
    if network == "both":
        return Choice(kinds["recurrent"], kinds["transformer"])
    return kinds[network]


def units():
    return Int(32, 256, step=2, scale="log", default=128)


def width():
    return Int(64, 256, step=2, scale="log", default=128)


def dropout():
    return Float(0.0, 0.5, step=0.1, default=0.2)
