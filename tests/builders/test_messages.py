"""Error messages of generative models, and unusual inputs that they accept."""

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import (
    BannedTokens,
    BeamSearch,
    ForcedTokens,
    GreedySearch,
    MinimumLength,
)

SOURCES, TARGETS = [[4, 5], [6]], [[4, 3], [3]]


@pytest.fixture(scope="module")
def model():
    return kseq.encoder_decoder(11, 7, width=3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_error_for_float_ids_names_their_dtype(model, dtype):
    floats = np.array([[4, 5], [6, 0]], dtype)
    message = f"`source` must hold integers.*of {dtype}.*FeatureEmbedding"
    with pytest.raises(ValueError, match=message):
        model.generate(floats)
    with pytest.raises(ValueError, match=f"`target` must hold.*of {dtype}"):
        model.score(SOURCES, floats)
    assert len(model.generate(np.asarray(floats, int), max_length=2).token_ids) == 2


def test_rejects_padding_before_tokens(model):
    for rows in ([[4, 0, 5], [4]], [[0, 4], [4, 5]], np.array([[4, 5], [0, 5]])):
        message = "Padding, 0, must follow all tokens of a {}"
        with pytest.raises(ValueError, match=message.format("prefix")):
            model.generate(SOURCES, max_length=4, prefix=rows)
        with pytest.raises(ValueError, match=message.format("target")):
            model.score(SOURCES, rows)
    search = GreedySearch([ForcedTokens([4, None, 5])])
    written = model.generate(SOURCES, search, 4).token_ids[:, 0]
    assert (written[:, [0, 2]] == [4, 5]).all()


def test_constraints_are_added_after_those_of_the_search(model):
    banned, rule = BannedTokens([5]), MinimumLength(4)
    pairs = [
        (None, GreedySearch([rule])),
        (BeamSearch(2), BeamSearch(2, constraints=[rule])),
        (GreedySearch([banned]), GreedySearch([banned, rule])),
    ]
    for search, whole in pairs:
        expected = model.generate(SOURCES, whole, 4).token_ids
        given = model.generate(SOURCES, search, 4, constraints=[rule]).token_ids
        np.testing.assert_array_equal(given, expected)
        assert (given != 0).all()
    with pytest.raises(ValueError, match="`constraints` must be a list"):
        model.generate(SOURCES, constraints=rule)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="needs ragged tensors"
)
def test_generate_and_score_take_ragged_tensors(model):
    import tensorflow as tf

    source, target = tf.ragged.constant(SOURCES), tf.ragged.constant(TARGETS)
    scores = model.score(SOURCES, TARGETS)
    np.testing.assert_allclose(model.score(source, target), scores, rtol=1e-5)
    full = [[2, *row] for row in TARGETS]
    batches = kseq.training.teacher_forcing(source, tf.ragged.constant(full), 2, seed=1)
    expected = kseq.training.teacher_forcing(SOURCES, full, 2, seed=1)
    keras.tree.map_structure(np.testing.assert_array_equal, batches[0], expected[0])
    inputs = kseq.training.batches(source, [0, 1], 2)
    assert inputs[0][0].shape[0] == 2
    with pytest.raises(ValueError, match="must be padded to one length.*to_tensor"):
        model({"source": source, "target": target})
    model({"source": source.to_tensor(), "target": target.to_tensor()})


EMPTY_SOURCES = [[4, 5, 6], [], [7], [0, 0]]
COMPONENTS = [("gru", "gru"), ("transformer", "transformer"), ("lstm", "transformer")]


@pytest.mark.thorough(all_but=2)
@pytest.mark.parametrize("encoder, decoder", COMPONENTS)
def test_sources_without_a_step_are_valid(encoder, decoder):
    model = kseq.encoder_decoder(11, 7, encoder, decoder, width=64)
    search = BeamSearch(2)
    whole = model.generate(EMPTY_SOURCES, search, 3, return_attention_scores=True)
    alone = model.generate([[]], search, 3)
    for row in (1, 3):
        np.testing.assert_array_equal(whole.token_ids[row], alone.token_ids[0])
        np.testing.assert_allclose(whole.log_probs[row], alone.log_probs[0], rtol=1e-4)
        assert not whole.attention[row].any() and np.isfinite(whole.log_probs).all()
    scores = model.score(EMPTY_SOURCES, whole)
    np.testing.assert_allclose(scores, whole.log_probs, rtol=1e-4)
