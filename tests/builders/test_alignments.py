"""Generation with attention that depends on earlier alignments, or is local."""

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch, Sampling
from kseq.layers import LocationAwareAttention, MonotonicAttention, RecurrentDecoder
from tests.helpers import assert_close, randomize

SOURCES, SIZE, LENGTH = [[4, 5, 6, 7, 3], [8], [9, 10, 4], []], 11, 5

DECODERS = {
    "location": lambda: RecurrentDecoder(
        "gru", 6, attention=LocationAwareAttention(5, 2, kernel_size=3)
    ),
    "coverage": lambda: RecurrentDecoder(
        "lstm", 6, 2, "coverage", attention_order="luong", input_feeding=False
    ),
    "monotonic": lambda: RecurrentDecoder(
        "gru", 6, attention=MonotonicAttention(6, score_bias=0.5)
    ),
    "local": lambda: RecurrentDecoder("gru", 6, attention="local"),
}
each_decoder = pytest.mark.parametrize("kind", DECODERS)


def make_model(kind, **options):
    model = kseq.encoder_decoder(
        SIZE, SIZE, "gru", DECODERS[kind](), width=6, **options
    )
    randomize(model)
    for weight in model.weights:
        weight.assign(1.5 * weight)
    model.head.bias.assign(1.5 * (np.arange(SIZE) == 3))  # the end token
    return model


@each_decoder
def test_beams_have_the_log_probabilities_and_attention_of_score(kind):
    model = make_model(kind)
    options = {"return_attention_scores": True}
    result = model.generate(SOURCES, BeamSearch(4), LENGTH, **options)
    log_probs, attention = model.score(SOURCES, result, **options)
    assert_close(log_probs, result.log_probs, atol=1e-4)
    for place in np.ndindex(*result.lengths.shape):
        steps = slice(result.lengths[place])
        assert_close(attention[place][steps], result.attention[place][steps], atol=1e-4)
    assert len(np.unique(result.lengths)) > 1


@each_decoder
def test_a_stream_equals_generate(kind):
    model = make_model(kind)
    search = Sampling(1.5, seed=5)
    result = model.generate(SOURCES, search, LENGTH)
    stream = np.stack(list(model.generate_stream(SOURCES, search, LENGTH)), axis=-1)
    whole = result.token_ids[:, 0, : stream.shape[1]]
    np.testing.assert_array_equal(stream, whole)


@each_decoder
def test_an_ensemble_of_a_model_with_itself_is_the_model(kind):
    model = make_model(kind)
    both = kseq.ensemble([model, make_model(kind)])
    results = [x.generate(SOURCES, BeamSearch(3), LENGTH) for x in (model, both)]
    np.testing.assert_array_equal(results[0].token_ids, results[1].token_ids)
    assert_close(results[0].log_probs, results[1].log_probs, atol=1e-4)


@pytest.mark.thorough
def test_a_saved_model_generates_the_same(tmp_path):
    for kind in ("location", "monotonic"):
        model = make_model(kind, copy=True)
        expected = model.generate(SOURCES, BeamSearch(3), LENGTH)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        result = loaded.generate(SOURCES, BeamSearch(3), LENGTH)
        np.testing.assert_array_equal(result.token_ids, expected.token_ids)
        assert_close(result.log_probs, expected.log_probs)
