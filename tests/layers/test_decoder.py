"""Custom decoder, which keeps the contract and works with every builder."""

import doctest
import inspect

import keras
import numpy as np
import pytest
from keras import ops

import kseq
from kseq.decoding import BeamSearch
from kseq.layers import Decoder, RecurrentDecoder, TransformerDecoder, masked_softmax
from tests.helpers import (
    assert_close,
    check_steps_equal_sequence,
    length_mask,
    random_array,
    randomize,
)

B, K, T, S, D, U = 3, 2, 4, 5, 6, 7
MASK = length_mask(5, 2, 1, size=S)
MEMORY = random_array(B, S, D, seed=1)


@keras.saving.register_keras_serializable(package="own")
class BagDecoder(Decoder):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.input_dense = keras.layers.Dense(units, use_bias=False)
        self.memory_dense = keras.layers.Dense(units)

    def build(self, inputs_shape, memory_shape):
        self.input_dense.build(inputs_shape)
        self.memory_dense.build((None, memory_shape[-1]))

    def call(self, inputs, memory, memory_mask=None, initial_state=None):
        _, constants = self.start(memory, memory_mask)
        sums = ops.cumsum(self.input_dense(inputs), axis=1)  # B T U
        return ops.tanh(sums + constants["mean"])

    def start(
        self,
        memory,
        memory_mask=None,
        initial_state=None,
        num_beams=1,
        max_length=None,
    ):
        weights = masked_softmax(ops.zeros_like(memory[..., 0]), memory_mask)
        mean = ops.einsum("bs,bsd->bd", weights, memory)
        mean = self.memory_dense(mean)  # B U
        sums = ops.repeat(ops.zeros_like(mean)[:, None], num_beams, axis=1)
        return sums, {"mean": mean[:, None]}

    def step(self, inputs, state, constants):
        sums = state + self.input_dense(inputs)  # B K U
        return ops.tanh(sums + constants["mean"]), sums

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_the_documentation_shows_the_decoder_tested_here():
    examples = doctest.DocTestParser().get_examples(Decoder.__doc__)
    assert inspect.getsource(BagDecoder) in [x.source for x in examples]


def test_single_steps_equal_the_whole_sequence():
    inputs = random_array(B, K, T, D)
    decoder = BagDecoder(U)
    decoder(inputs[:, 0], MEMORY)
    randomize(decoder)
    check_steps_equal_sequence(decoder, inputs, MEMORY, [None, MASK], None)


def test_a_model_with_a_custom_decoder_generates_and_is_saved(tmp_path):
    model = kseq.encoder_decoder(11, 13, decoder=BagDecoder(8), width=8)
    sources = [[4, 5, 6], [7]]
    result = model.generate(sources, BeamSearch(3), 5)
    assert_close(model.score(sources, result), result.log_probs)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = loaded.generate(sources, BeamSearch(3), 5)
    np.testing.assert_array_equal(again.token_ids, result.token_ids)
    language_model = kseq.one_to_many(13, condition=5, decoder=BagDecoder(8), width=8)
    assert language_model.generate([4, 0], max_length=5).token_ids.shape == (2, 1, 5)
    with pytest.raises(ValueError, match="`coverage_penalty` with BagDecoder"):
        model.generate(sources, BeamSearch(3, coverage_penalty=0.2))


def test_attends_is_true_for_decoders_with_attention():
    assert RecurrentDecoder("gru", U, attention="luong").attends
    assert TransformerDecoder(1, 2).attends
    assert not RecurrentDecoder("gru", U).attends
    assert not TransformerDecoder(1, 2, cross_attention=False).attends
    assert not BagDecoder(U).attends


class NotADecoder(keras.layers.Layer):
    """Layer that has the methods of a decoder, but is not a `Decoder`."""

    def start(self, memory):
        return (), ()

    def step(self, inputs, state, constants):
        return inputs, state


@pytest.mark.parametrize("decoder", [NotADecoder(), keras.layers.GRU(4)])
def test_rejects_a_layer_that_is_not_a_decoder(decoder):
    message = "must have methods `start` and `step`.*derive.*`kseq.layers.Decoder`"
    for build in (kseq.encoder_decoder, kseq.one_to_many):
        with pytest.raises(ValueError, match=message):
            build(11, 13, decoder=decoder, width=8)
