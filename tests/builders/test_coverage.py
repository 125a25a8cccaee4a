"""The coverage penalty of beam search, on models with attention."""

import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch
from kseq.layers import RecurrentDecoder, TransformerDecoder
from tests.helpers import assert_close, randomize

SOURCES, LENGTH = [[4, 5, 6, 7, 3], [8], [9, 10, 4], []], 4
NUM_SEQUENCES = 1 + 4 + 16 + 64 + 4**4  # of at most 4 tokens, ended or cut off

DECODERS = {
    "bahdanau": lambda: RecurrentDecoder("gru", 5, attention="bahdanau"),
    "luong": lambda: RecurrentDecoder("lstm", 5, attention="luong"),
    "luong, no feeding": lambda: RecurrentDecoder(
        "rnn", 5, attention="luong", input_feeding=False
    ),
    "transformer": lambda: TransformerDecoder(2, 3),
}


def make_model(decoder):
    model = kseq.encoder_decoder(11, 6, "gru", decoder, width=6)
    randomize(model)
    for weight in model.weights:
        weight.assign(1.5 * weight)
    return model


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_penalty_uses_the_attention_that_generate_returns(decoder):
    model = make_model(DECODERS[decoder]())
    options = {"return_attention_scores": True}
    plain = model.generate(SOURCES, BeamSearch(NUM_SEQUENCES), LENGTH, **options)
    attention = plain.attention  # B N ... T S
    while attention.ndim > 4:
        attention = attention.mean(axis=2)
    is_real = np.arange(attention.shape[-1]) < np.array([[5], [1], [3], [0]])
    coverage = np.minimum(attention.sum(axis=2), 1.0)  # B N S
    logs = np.log(np.where(is_real[:, None], np.maximum(coverage, 1e-37), 1.0))
    ranks = plain.log_probs + 0.7 * logs.sum(axis=-1)
    search = BeamSearch(NUM_SEQUENCES, coverage_penalty=0.7)
    result = model.generate(SOURCES, search, LENGTH)
    for row in range(len(SOURCES)):
        known = dict(zip(map(bytes, plain.token_ids[row]), ranks[row], strict=True))
        found = np.array([known[bytes(x)] for x in result.token_ids[row]])
        exists = np.isfinite(found)
        assert exists.sum() == NUM_SEQUENCES
        expected = np.sort(ranks[row][np.isfinite(ranks[row])])[::-1]
        assert_close(found[exists], expected, atol=1e-4)
    assert (result.token_ids[:3] != plain.token_ids[:3]).any()
    np.testing.assert_array_equal(result.token_ids[3, 0], plain.token_ids[3, 0])


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize(
    "decoder",
    [RecurrentDecoder("gru", 5), TransformerDecoder(1, 3, cross_attention=False)],
)
def test_rejects_a_coverage_penalty_without_attention(decoder):
    model = kseq.encoder_decoder(11, 6, "gru", decoder, width=6)
    with pytest.raises(ValueError, match="`coverage_penalty` with .*Decoder"):
        model.generate(SOURCES, BeamSearch(3, coverage_penalty=0.2), LENGTH)
