"""Masks of all layers, which must be boolean or contain only 0 and 1."""

import functools
import inspect

import keras
import numpy as np
import pytest

from kseq import layers
from tests.helpers import assert_close, length_mask, random_array

B, T, S, D = 2, 3, 5, 6
INPUTS, SEQUENCES = random_array(B, T, D), random_array(B, S, D)
MASKS = {  # for each layer its inputs, and its masks with their lengths
    "Bidirectional": (
        lambda: layers.Bidirectional(layers.GRU(2, return_sequences=True)),
        {"sequences": SEQUENCES},
        {"mask": S},
    ),
    "RecurrentEncoder": (
        lambda: layers.RecurrentEncoder("gru", 2),
        {"sequences": SEQUENCES},
        {"mask": S},
    ),
    "ConvEncoder": (
        lambda: layers.ConvEncoder(2, 1),
        {"sequences": SEQUENCES},
        {"mask": S},
    ),
    "FeedForward": (
        lambda: layers.FeedForward(4),
        {"inputs": SEQUENCES},
        {"mask": S},
    ),
    "TiedHead": (
        lambda: layers.TiedHead(layers.TokenEmbedding(11, D)),
        {"inputs": SEQUENCES},
        {"mask": S},
    ),
    "FactorizedHead": (
        lambda: layers.FactorizedHead((3, 2), rank=2),
        {"inputs": SEQUENCES},
        {"mask": S},
    ),
    "CRF": (
        lambda: layers.CRF(3),
        {"inputs": SEQUENCES},
        {"mask": S},
    ),
    "CTC": (
        lambda: layers.CTC(3),
        {"inputs": SEQUENCES},
        {"mask": S},
    ),
    "ForecastHead": (
        lambda: layers.ForecastHead("mean", 3),
        {"inputs": SEQUENCES},
        {"mask": S},
    ),
    "FeatureEmbedding": (
        lambda: layers.FeatureEmbedding(D, 4, positions="sinusoidal"),
        {"features": SEQUENCES},
        {"mask": S},
    ),
    "RNN": (
        lambda: layers.RNN(layers.PeepholeLSTMCell(2)),
        {"sequences": SEQUENCES},
        {"mask": S},
    ),
    "Zoneout": (
        lambda: layers.Zoneout(keras.layers.GRUCell(2)),
        {"sequences": SEQUENCES},
        {"mask": S},
    ),
    **{
        name: (
            functools.partial(getattr(layers, name), 2),
            {"sequences": SEQUENCES},
            {"mask": S},
        )
        for name in ("SimpleRNN", "LSTM", "GRU", "MinGRU")
    },
    "StateBridge": (
        lambda: layers.StateBridge([[2]]),
        {"memory": SEQUENCES},
        {"memory_mask": S},
    ),
    "RecurrentDecoder": (
        lambda: layers.RecurrentDecoder("gru", 2, attention="luong"),
        {"inputs": INPUTS, "memory": SEQUENCES},
        {"memory_mask": S, "inputs_mask": T},
    ),
    "TransformerDecoder": (
        lambda: layers.TransformerDecoder(1, 2),
        {"inputs": INPUTS, "memory": SEQUENCES},
        {"memory_mask": S, "inputs_mask": T},
    ),
    "TransformerDecoderBlock": (
        lambda: layers.TransformerDecoderBlock(num_heads=2),
        {"inputs": INPUTS, "memory": SEQUENCES},
        {"memory_mask": S, "inputs_mask": T},
    ),
    "TransformerEncoder": (
        lambda: layers.TransformerEncoder(1, 2),
        {"sequences": SEQUENCES},
        {"mask": S},
    ),
    "TransformerEncoderBlock": (
        lambda: layers.TransformerEncoderBlock(2),
        {"sequences": SEQUENCES},
        {"mask": S},
    ),
    "PointerGenerator": (
        lambda: layers.PointerGenerator(),
        {
            "logits": random_array(B, T, 7),
            "outputs": INPUTS,
            "inputs": INPUTS,
            "memory": SEQUENCES,
            "token_ids": np.array([[4, 5, 6, 4, 2], [5, 1, 4, 3, 6]]),
            "weights": abs(random_array(B, T, S)),
        },
        {"memory_mask": S, "inputs_mask": T},
    ),
    "MultiHeadAttention": (
        lambda: layers.MultiHeadAttention(2),
        {"query": INPUTS, "value": SEQUENCES},
        {"query_mask": T, "value_mask": S},
    ),
    "BahdanauAttention": (
        lambda: layers.BahdanauAttention(2),
        {"query": INPUTS, "value": SEQUENCES},
        {"value_mask": S, "query_mask": T},
    ),
    **{
        layer_class.__name__: (
            lambda layer_class=layer_class: layer_class(2),
            {"query": INPUTS, "value": SEQUENCES},
            {"value_mask": S, "query_mask": T},
        )
        for layer_class in (
            layers.LocationAwareAttention,
            layers.CoverageAttention,
            layers.MonotonicAttention,
        )
    },
    "LuongAttention": (
        lambda: layers.LuongAttention("dot"),
        {"query": INPUTS, "value": SEQUENCES},
        {"value_mask": S, "query_mask": T},
    ),
    "RotaryPositions": (
        lambda: layers.RotaryPositions(),
        {"heads": random_array(B, S, 2, 4)},
        {"mask": S},
    ),
    "SinusoidalPositions": (
        lambda: layers.SinusoidalPositions(),
        {"sequences": SEQUENCES},
        {"mask": S},
    ),
    "LearnedPositions": (
        lambda: layers.LearnedPositions(9),
        {"sequences": SEQUENCES},
        {"mask": S},
    ),
    "GridPositions": (
        lambda: layers.GridPositions(3, 3),
        {"sequences": SEQUENCES},
        {"mask": S},
    ),
    **{
        name: (getattr(layers, name), {"sequences": SEQUENCES}, {"mask": S})
        for name in (
            "MeanPooling",
            "MaxPooling",
            "LastStepPooling",
            "ClassTokenPooling",
            "AttentionPooling",
        )
    },
}
LEFT_OUT = "ClassToken", "JoinedEncoders", "MeanProbability"
CASES = [(name, mask) for name, (_, _, masks) in MASKS.items() for mask in masks]


@pytest.mark.parametrize("name, mask_name", CASES)
def test_masks_must_be_boolean_or_0_and_1(name, mask_name):
    make, inputs, masks = MASKS[name]
    layer = make()
    mask = length_mask(2, 1, size=masks[mask_name])
    expected = layer(**inputs, **{mask_name: mask})
    for dtype in ("int32", "float32"):
        assert_close(layer(**inputs, **{mask_name: mask.astype(dtype)}), expected)
    additive = np.where(mask, 0.0, -1e9).astype("float32")
    for wrong in (2 * mask.astype("int32"), additive):
        with pytest.raises(ValueError, match="boolean or contain only 0 and 1"):
            layer(**inputs, **{mask_name: wrong})


def test_every_layer_with_a_mask_is_listed():
    for name, public in vars(layers).items():
        is_layer = inspect.isclass(public) and issubclass(public, keras.layers.Layer)
        # The others keep the mask of Keras, or have one for each source.
        if is_layer and name not in LEFT_OUT:
            parameters = inspect.signature(public.call).parameters
            taken = {mask for mask in parameters if mask.endswith("mask")}
            taken -= {"attention_mask", "use_causal_mask"}
            assert taken <= set(MASKS.get(name, ({},) * 3)[2]), name
