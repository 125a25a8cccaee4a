"""A small layer of every kind that reads sequences, for tests of all layers.

Axes in shape comments: B batch, T query or target steps, S steps, D features.
"""

from typing import NamedTuple

import keras

import kseq.layers as layers
from tests.helpers import length_mask, random_array

B, T, S = 2, 7, 5
CELL = keras.layers.LSTMCell


class Case(NamedTuple):
    """A function that makes a layer, the widths of its sequences, and their masks.

    Sequences have S steps, except those named in `STEPS`. `masks` has the sequence of
    each mask. `short` names sequences that are always short, since the layer loops over
    their steps.
    """

    make: object
    widths: dict
    masks: dict = {}
    short: tuple = ()

    def inputs(self, length=None, seed=0):
        """Return the sequences by name; `length` replaces their usual lengths."""
        arrays = {}
        for i, (name, width) in enumerate(self.widths.items()):
            steps = STEPS.get(name, S)
            if length is not None and name not in self.short:
                steps = length
            arrays[name] = random_array(B, steps, width, seed=seed + i)
        return arrays

    def real(self):
        """Return the masks by name, with padding on the right."""
        return {
            name: length_mask(STEPS.get(of, S) - 2, 1, size=STEPS.get(of, S))
            for name, of in self.masks.items()
        }


STEPS = {"query": T, "inputs": T}


def of_steps(make, width=6):
    return Case(make, {"sequences": width}, {"mask": "sequences"})


def of_inputs(make):
    return Case(make, {"inputs": 6}, {"mask": "inputs"})


def of_attention(make, short=()):
    masks = {f"{name}_mask": name for name in ("query", "value")}
    return Case(make, {"query": 6, "value": 6}, masks, short)


def of_decoder(make):
    masks = {"inputs_mask": "inputs", "memory_mask": "memory"}
    return Case(make, {"inputs": 6, "memory": 5}, masks)


def sequence_of(layer_class, *args, **options):
    return of_steps(lambda: layer_class(*args, return_sequences=True, **options))


POSITION_WISE = {
    "FeedForward": of_inputs(lambda: layers.FeedForward(8)),
    "TiedHead": of_inputs(lambda: layers.TiedHead(layers.TokenEmbedding(11, 6))),
    "FactorizedHead": of_inputs(lambda: layers.FactorizedHead((4, 3), rank=2)),
    "CRF": of_inputs(lambda: layers.CRF(5)),
    "CTC": of_inputs(lambda: layers.CTC(5)),
    "ForecastHead": of_inputs(lambda: layers.ForecastHead("mean", 3)),
    "ForecastHead, quantiles": of_inputs(lambda: layers.ForecastHead("quantiles", 3)),
    "Dropout": Case(lambda: layers.Dropout(0.2), {"inputs": 6}),
    "SourceDropout": Case(lambda: layers.SourceDropout(0.2), {"sequences": 6}),
    "SinusoidalPositions": of_steps(layers.SinusoidalPositions),
    "LearnedPositions": of_steps(lambda: layers.LearnedPositions(5000)),
    "GridPositions": of_steps(lambda: layers.GridPositions(50, 100)),
    "FeatureEmbedding": Case(
        lambda: layers.FeatureEmbedding(6, 8), {"features": 6}, {"mask": "features"}
    ),
    "ClassToken": Case(layers.ClassToken, {"sequences": 6}),
}
POOLINGS = {
    "MeanPooling": of_steps(layers.MeanPooling),
    "MaxPooling": of_steps(layers.MaxPooling),
    "LastStepPooling": of_steps(layers.LastStepPooling),
    "ClassTokenPooling": of_steps(layers.ClassTokenPooling),
    "AttentionPooling": of_steps(layers.AttentionPooling),
    "StateBridge": Case(
        lambda: layers.StateBridge([[3]]), {"memory": 6}, {"memory_mask": "memory"}
    ),
}
ATTENTIONS = {
    "BahdanauAttention": of_attention(lambda: layers.BahdanauAttention(4)),
    "LuongAttention": of_attention(lambda: layers.LuongAttention("general")),
    "LuongAttention, concat": of_attention(lambda: layers.LuongAttention("concat", 4)),
    "LuongAttention, local": of_attention(lambda: layers.LuongAttention(window=100)),
    "LocationAwareAttention": of_attention(
        lambda: layers.LocationAwareAttention(4, num_filters=2, kernel_size=3),
        short=("query",),
    ),
    "CoverageAttention": of_attention(
        lambda: layers.CoverageAttention(4), short=("query",)
    ),
    "MonotonicAttention": of_attention(
        lambda: layers.MonotonicAttention(4, mode="soft", score_bias=1.0),
        short=("query",),
    ),
    "MultiHeadAttention": of_attention(
        lambda: layers.MultiHeadAttention(2, 4, num_key_value_heads=1, rotary=True)
    ),
    "TransformerEncoderBlock": of_steps(lambda: layers.TransformerEncoderBlock(2)),
    "TransformerEncoder": of_steps(lambda: layers.TransformerEncoder(1, 2, width=8)),
    "TransformerDecoderBlock": of_decoder(
        lambda: layers.TransformerDecoderBlock(num_heads=2)
    ),
    "TransformerDecoder": of_decoder(lambda: layers.TransformerDecoder(1, 2)),
    "TransformerDecoder, prefix": of_decoder(
        lambda: layers.TransformerDecoder(1, 2, cross_attention=False)
    ),
}
RECURRENT = {
    "SimpleRNN": sequence_of(layers.SimpleRNN, 4),
    "LSTM": sequence_of(layers.LSTM, 4),
    "LSTM, 32 units": sequence_of(layers.LSTM, 32),
    "GRU": sequence_of(layers.GRU, 4, go_backwards=True),
    "MinGRU": sequence_of(layers.MinGRU, 4, memory=5),
    "MinGRU, 32 units": sequence_of(layers.MinGRU, 32, go_backwards=True),
    "RNN": of_steps(
        lambda: layers.RNN(layers.PeepholeLSTMCell(4), return_sequences=True)
    ),
    "RNN, one vector": of_steps(lambda: layers.RNN(layers.LayerNormGRUCell(4))),
    "Zoneout": of_steps(lambda: layers.Zoneout(CELL(4), return_sequences=True)),
    "Bidirectional": of_steps(
        lambda: layers.Bidirectional(keras.layers.GRU(4, return_sequences=True))
    ),
    "RecurrentEncoder": of_steps(
        lambda: layers.RecurrentEncoder(
            "gru", 6, 2, residual="highway", layer_normalization=True
        )
    ),
    "RecurrentDecoder": of_decoder(
        lambda: layers.RecurrentDecoder("gru", 4, attention="bahdanau")
    ),
    "RecurrentDecoder, luong": of_decoder(
        lambda: layers.RecurrentDecoder("lstm", 4, attention="luong")
    ),
    "RecurrentDecoder, location": of_decoder(
        lambda: layers.RecurrentDecoder("gru", 4, attention="location")
    ),
    "RecurrentDecoder, no attention": of_decoder(
        lambda: layers.RecurrentDecoder("rnn", 4)
    ),
}
CONVOLUTIONAL = {
    "ConvEncoder": of_steps(lambda: layers.ConvEncoder(4, 2)),
    "ConvEncoder, causal": of_steps(
        lambda: layers.ConvEncoder(6, 2, causal=True, gated=True)
    ),
}
LAYERS = POSITION_WISE | POOLINGS | ATTENTIONS | RECURRENT | CONVOLUTIONAL
