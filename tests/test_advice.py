"""Advice that is code that works: a bad call, what its message says, and that done."""

import pytest

import kseq
from kseq.decoding import BeamSearch, Sampling
from kseq.layers import (
    FeatureEmbedding,
    MultiHeadAttention,
    RecurrentDecoder,
    RecurrentEncoder,
    TransformerDecoder,
)
from tests.helpers import random_array

B, T, S, D, U, K = 2, 3, 5, 6, 4, 3
INPUTS, MEMORY = random_array(B, T, D), random_array(B, S, D)
STATE = random_array(B, U)
NEWEST = random_array(B, K, D)


def decode(cell, initial_state):
    return RecurrentDecoder(cell, U)(INPUTS, MEMORY, initial_state=initial_state)


def step(decoder, **options):
    decoder(INPUTS, MEMORY)
    return decoder.step(NEWEST, *decoder.start(MEMORY, max_length=T, **options))


def generate(*args, **options):
    model = kseq.encoder_decoder(source=11, target=13, width=8)
    return model.generate([[4, 5]], *args, max_length=T, **options)


def recurrent_decoder():
    return RecurrentDecoder("gru", U, attention="bahdanau")


ADVICE = {  # the bad call, the advice of its message, the good call
    "a state as it is": (
        lambda: decode("gru", STATE),
        "`initial_state=[[initial_state]]`",
        lambda: decode("gru", [[STATE]]),
    ),
    "the states of one layer": (
        lambda: decode("lstm", [STATE, STATE]),
        "`initial_state=[initial_state]`",
        lambda: decode("lstm", [[STATE, STATE]]),
    ),
    "more beams than the state has": (
        lambda: step(recurrent_decoder()),
        f"`decoder.start(memory, num_beams={K})`",
        lambda: step(recurrent_decoder(), num_beams=K),
    ),
    "more beams than a Transformer's state has": (
        lambda: step(TransformerDecoder(1, 2)),
        f"`decoder.start(memory, num_beams={K})`",
        lambda: step(TransformerDecoder(1, 2), num_beams=K),
    ),
    "sizes that are no vocabularies": (
        lambda: kseq.encoder_decoder(3, 1),
        "`kseq.many_to_one(kseq.layers.FeatureEmbedding(num_features, 64), "
        "num_outputs=steps)`",
        lambda: kseq.many_to_one(FeatureEmbedding(3, 64), num_outputs=7),
    ),
    "a target of numbers": (
        lambda: kseq.encoder_decoder(11, FeatureEmbedding(3, 8), width=8),
        "`kseq.many_to_one(kseq.layers.FeatureEmbedding(num_features, 64), "
        "num_outputs=steps)`",
        lambda: kseq.many_to_one(FeatureEmbedding(3, 64), num_outputs=7),
    ),
    "a bidirectional network by name": (
        lambda: kseq.many_to_one(11, 2, encoder="bilstm"),
        '`encoder=kseq.layers.RecurrentEncoder("lstm", 64, bidirectional=True)`',
        lambda: kseq.many_to_one(
            11, 2, encoder=RecurrentEncoder("lstm", 64, bidirectional=True)
        ),
    ),
    "a name in capitals": (
        lambda: kseq.encoder_decoder(11, 13, decoder="GRU", width=8),
        '`decoder="gru"`',
        lambda: kseq.encoder_decoder(11, 13, decoder="gru", width=8),
    ),
    "Keras' name of the look-ahead mask": (
        lambda: MultiHeadAttention(2)(INPUTS, use_causal_mask=True),
        "`look_ahead=True`",
        lambda: MultiHeadAttention(2)(INPUTS, look_ahead=True),
    ),
    "beams without a search": (
        lambda: generate(num_beams=3),
        "`search=kseq.decoding.BeamSearch(num_beams=3)`",
        lambda: generate(search=BeamSearch(num_beams=3)),
    ),
    "a temperature without a search": (
        lambda: generate(temperature=0.7),
        "`search=kseq.decoding.Sampling(temperature=0.7)`",
        lambda: generate(search=Sampling(temperature=0.7)),
    ),
}


@pytest.mark.parametrize("bad, advice, good", ADVICE.values(), ids=ADVICE)
def test_the_advice_of_a_message_works(bad, advice, good):
    with pytest.raises(ValueError) as error:
        bad()
    assert advice in str(error.value)
    good()


@pytest.mark.parametrize(
    "states",
    [[[random_array(B, U + 1)]], [[random_array(B + 1, U)]], [[STATE, STATE]]],
    ids=["a width", "rows", "states"],
)
@pytest.mark.parametrize("bridge", ["dense", "copy"])
def test_a_built_decoder_refuses_states_of_other_sizes(bridge, states):
    decoder = RecurrentDecoder("gru", U, bridge=bridge)
    decoder(INPUTS, MEMORY, initial_state=[[STATE]])
    with pytest.raises(ValueError, match="`initial_state` must have the sizes"):
        decoder(INPUTS, MEMORY, initial_state=states)


def test_an_option_that_no_search_has_is_an_unknown_argument():
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        generate(colour=3)
