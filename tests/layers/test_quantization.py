"""Quantized sublayers: right numbers, and files that load.

Axes in shape comments: B batch, S steps, T target steps.
"""

import warnings

import keras
import numpy as np
import pytest

from kseq.layers import (
    RNN,
    LayerNormGRUCell,
    LayerNormLSTMCell,
    MultiHeadAttention,
    RecurrentDecoder,
    RecurrentEncoder,
    TiedHead,
    TokenEmbedding,
)
from tests.helpers import array, assert_close, random_array, randomize

IDS = np.array([[4, 5, 6, 7, 2], [8, 2, 0, 0, 0], [9, 1, 3, 0, 0]], "int32")  # B S
B, S, T = 3, 5, 4


def quantize(model, *args, **options):
    """Quantize a model, and return the warnings about layers that are skipped."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.quantize(*args, **options)
    return [str(warning.message) for warning in caught]


def relative_error(outputs, expected):
    return np.abs(array(outputs) - array(expected)).max() / array(expected).std()


def save_and_load(model, path):
    model.save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras")


def test_the_file_of_a_model_stores_the_quantization_of_its_sublayers(tmp_path):
    encoder = RecurrentEncoder("gru", 7, num_layers=2, residual="highway")
    model = keras.Sequential(  # builds its layers in its own name scope
        [keras.Input((None,), dtype="int32"), TokenEmbedding(11, 5), encoder]
    )
    randomize(model)
    config = keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)
    quantize(model, config=config)
    outputs = model(IDS)
    model = save_and_load(model, tmp_path)
    assert_close(model(IDS), outputs)
    assert_close(save_and_load(model, tmp_path)(IDS), outputs)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_tied_head_uses_the_dequantized_table(mode):
    embedding = TokenEmbedding(11, 6)
    head = TiedHead(embedding)
    inputs = random_array(B, T, 6)
    head.build(inputs.shape)
    randomize(head)
    embedding.embedding.quantize(mode)
    table = array(embedding.embedding(np.arange(11)))
    assert_close(head(inputs), inputs @ table.T + array(head.bias))


def test_attention_is_right_with_some_or_all_projections_quantized():
    attention = MultiHeadAttention(2)
    query, value = random_array(B, T, 6), random_array(B, S, 6)
    symbols = keras.Input((None, 6)), keras.Input((None, 6))
    model = keras.Model(symbols, attention(*symbols))
    randomize(model)
    expected = model([query, value])
    for name in ("value", "output", "query", "key"):
        quantize(model, "int8", filters=f"{name}$")
        assert getattr(attention, f"{name}_kernel").dtype == "int8"
        error = relative_error(model([query, value]), expected)
        assert 0 < error < 0.1
        assert_close(attention(query), attention(query, query))


def test_a_quantized_decoder_with_input_feeding_runs_in_a_graph():
    decoder = RecurrentDecoder("gru", 32, attention="luong")
    arrays = [random_array(B, T, 6), random_array(B, S, 5)]
    symbols = keras.Input((None, 6)), keras.Input((None, 5))
    model = keras.Model(symbols, decoder(*symbols))
    randomize(model)
    expected = model.predict(arrays, verbose=0)
    quantize(model, "int8")
    outputs = model.predict(arrays, verbose=0)
    assert_close(outputs, model(arrays))
    assert 0 < relative_error(outputs, expected) < 0.1


@pytest.mark.parametrize("cell_class", [LayerNormLSTMCell, LayerNormGRUCell])
def test_quantizing_a_cell_with_normalization_warns_that_it_is_skipped(cell_class):
    model = keras.Sequential([keras.Input((None, 5)), RNN(cell_class(3))])
    warned = " ".join(quantize(model, "int8"))
    assert "A cell with layer normalization cannot be quantized" in warned
