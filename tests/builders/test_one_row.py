"""Batches of one row, a size that TensorFlow forgets after a compiled loop."""

import pytest

import kseq
from kseq.decoding import BeamSearch, GreedySearch, Sampling
from tests.helpers import assert_close

SEARCHES = [GreedySearch(), BeamSearch(1), BeamSearch(3, 0.5), Sampling(seed=1)]
PAIRS = [("lstm", "bahdanau"), ("gru", "bahdanau"), ("gru", "luong"), ("lstm", "luong")]


@pytest.mark.parametrize("cell, attention", PAIRS)
def test_compiled_layers_generate_a_single_row(cell, attention):
    decoder = kseq.layers.RecurrentDecoder(cell, 64, 2, attention=attention)
    model = kseq.encoder_decoder(11, 7, "lstm", decoder, width=64)
    for search in SEARCHES:
        result = model.generate([[4, 5, 6]], search, max_length=4)
        assert_close(model.score([[4, 5, 6]], result), result.log_probs)
