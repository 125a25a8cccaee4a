"""Guidance of every search, compared with its formula.

Axes in shape comments: B batch, K beams, T steps, V vocabulary.
"""

import keras
import numpy as np
import pytest
from keras import ops

import kseq
from kseq.builders.shorthands import encode
from kseq.decoding import BeamSearch, GreedySearch, Guidance, Sampling
from kseq.layers import SourceDropout
from kseq.layers.masking import mask_of
from tests.helpers import (
    array,
    assert_close,
    check_layer,
    random_array,
    randomize,
    with_keras_mask,
)

V = 7
TABLES = 2 * random_array(2, V, V)  # with and without the condition
BOTH = {"conditional": (), "unconditional": ()}
SOURCES = [[4, 5, 6], [7, 8], [9, 4, 4, 5]]


def step(token_ids, state, constants):
    return ops.take(TABLES[0], token_ids, axis=0), state


def guided(scale):
    """Return the table of guided logits, by the formula."""
    return TABLES[1] + scale * (TABLES[0] - TABLES[1])


def searches(guidance):
    return {
        "greedy": GreedySearch(guidance=guidance),
        "beam": BeamSearch(3, guidance=guidance),
        "sampling": Sampling(num_draws=2, seed=5, guidance=guidance),
    }


def run_search(search, state, constants):
    starts = [2, 3]
    return search(step, state, constants, starts, end_token_id=1, max_length=5)


@pytest.mark.parametrize("kind", searches(None))
@pytest.mark.parametrize("scale", [0, 1, 2.5])
def test_every_search_follows_the_formula(kind, scale):
    """Constants select the table, since the tables do not have one entry per row."""
    tables = {"with": TABLES[0], "without": TABLES[1]}

    def conditional_step(token_ids, state, constants):
        return ops.take(tables[constants["of"]], token_ids, axis=0), state

    def guided_step(token_ids, state, constants):
        return ops.take(guided(scale), token_ids, axis=0), state

    search, plain = searches(Guidance(scale))[kind], searches(None)[kind]
    two = {"conditional": {"of": "with"}, "unconditional": {"of": "without"}}
    result = search(conditional_step, BOTH, two, [2, 3], end_token_id=1, max_length=5)
    expected = plain(guided_step, (), (), [2, 3], end_token_id=1, max_length=5)
    assert (array(result.token_ids) == array(expected.token_ids)).all()
    assert_close(result.log_probs, expected.log_probs)


def test_a_number_is_converted_to_guidance():
    assert GreedySearch(guidance=2).guidance == Guidance(2)
    assert GreedySearch().guidance is None


def test_tokens_impossible_with_the_condition_stay_impossible():
    with_, without = np.array([[0.0, -np.inf, 1]]), np.array([[-np.inf, 0, 0]])
    mixed = array(Guidance(3.0).mixed(with_, without))
    np.testing.assert_allclose(mixed, [[0, -np.inf, 3]])


def translator(**options):
    keras.utils.set_random_seed(1)
    model = kseq.encoder_decoder(11, 13, width=8, source_dropout=0.3, **options)
    randomize(model)
    return model


def greedy_search_by_formula(model, source, scale, length):
    """Run greedy search in NumPy, with the logits of the whole prefix at each step."""
    source = np.array([source])
    embedded = model.source(source)
    target = np.array([[2]])
    for _ in range(length):
        logits = []
        for memory_of in (
            embedded,
            model.source_dropout(embedded, without_source=True),
        ):
            memory, states = encode(model.encoder, memory_of)
            outputs = model.decoder(model.target(target), memory, initial_state=states)
            logits.append(array(model.head(outputs))[0, -1])
        guided = logits[1] + scale * (logits[0] - logits[1])
        best = 1 + guided[1:].argmax()  # padding is never generated
        target = np.append(target, [[best]], axis=1)
        if best == 3:
            break
    return target[0, 1:].tolist()


@pytest.mark.parametrize("kind", ["gru", "transformer"])
def test_generated_tokens_follow_the_formula(kind):
    model = translator(encoder=kind, decoder=kind)
    plain = model.generate(SOURCES, max_length=6).token_ids[:, 0]
    result = model.generate(SOURCES, GreedySearch(guidance=60.0), max_length=6)
    assert (plain != result.token_ids[:, 0]).any()
    for source, row in zip(SOURCES, result.token_ids[:, 0], strict=True):
        expected = greedy_search_by_formula(model, source, 60.0, 6)
        assert row[: len(expected)].tolist() == expected


@pytest.mark.parametrize("kind", searches(None))
def test_scale_one_changes_nothing_and_rows_are_independent(kind):
    model = translator()
    plain, itself, guided = (
        model.generate(SOURCES, searches(scale)[kind], max_length=5)
        for scale in (None, 1.0, 3.0)
    )
    assert (plain.token_ids == itself.token_ids).all()
    assert_close(plain.log_probs, itself.log_probs, atol=1e-4)
    alone = model.generate(SOURCES, searches(3.0)[kind], 5, batch_size=1)
    assert (alone.token_ids == guided.token_ids).all()


def test_streams_and_classes_are_guided():
    model = kseq.one_to_many(13, condition=5, width=8, condition_dropout=0.2)
    randomize(model)
    search = GreedySearch(guidance=3.0)
    stream = np.stack(list(model.generate_stream([3, 1], search, 5)), axis=-1)
    whole = model.generate([3, 1], search, 5).token_ids[:, 0]
    assert (stream == whole[:, : stream.shape[1]]).all()


def test_an_ensemble_of_guided_models_is_guided():
    both = kseq.ensemble([translator(), translator(encoder="lstm")])
    result = both.generate(SOURCES, GreedySearch(guidance=1.0), 5)
    assert (result.token_ids == both.generate(SOURCES, max_length=5).token_ids).all()


def test_a_saved_model_and_a_clone_can_be_guided(tmp_path):
    model = translator()
    model.save(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    search = GreedySearch(guidance=3.0)
    expected = model.generate(SOURCES, search, 5).token_ids
    for copy in (keras.saving.load_model(tmp_path / "model.keras"), clone):
        assert copy.source_dropout.dropout == 0.3
        assert (copy.generate(SOURCES, search, 5).token_ids == expected).all()


def test_training_drops_some_sources():
    model = translator()
    inputs = {"source": np.full((200, 3), 5), "target": np.full((200, 2), 4)}
    outputs = array(model(inputs, training=True)).reshape(200, -1)
    kinds, counts = np.unique(outputs.round(3), axis=0, return_counts=True)
    assert len(kinds) == 2 and 0.15 < counts.min() / 200 < 0.45


def test_source_dropout_keeps_the_contract_of_layers():
    sequences = random_array(2, 5, 3)
    check_layer(SourceDropout, {"dropout": 0.4, "seed": 7}, {"sequences": sequences})


def test_source_dropout_drops_whole_rows_and_keeps_the_mask():
    layer, x = SourceDropout(0.4, seed=7), random_array(500, 3, 2)
    dropped = array(layer(x, training=True))
    is_dropped = (dropped == 0).all(axis=(1, 2))
    assert 0.3 < is_dropped.mean() < 0.5
    assert_close(dropped[~is_dropped], x[~is_dropped])
    assert (array(layer(x, without_source=True)) == 0).all()
    assert (array(layer(x)) == x).all()
    mask = np.arange(3) < np.full((500, 1), 2)
    outputs = layer(with_keras_mask(ops.convert_to_tensor(x), mask), training=True)
    assert (array(mask_of(outputs)) == mask).all()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Guidance("3"), "`scale` must be a finite number.*'3'"),
        (lambda: Guidance(float("nan")), "finite number"),
        (
            lambda: BeamSearch(coverage_penalty=0.2, guidance=2),
            "only one attends.*Leave one of them out",
        ),
        (
            lambda: run_search(GreedySearch(guidance=2), (), ()),
            "`state` must be a dictionary.*tuple",
        ),
        (
            lambda: run_search(GreedySearch(guidance=2), BOTH, {"conditional": 1}),
            "`constants` must be a dictionary",
        ),
        (
            lambda: kseq.encoder_decoder(11, 13, width=8).generate(
                SOURCES, GreedySearch(guidance=2)
            ),
            "`source_dropout=0.1`",
        ),
        (
            lambda: kseq.one_to_many(13, 5, width=3, condition_dropout=1.5),
            "`condition_dropout` must be",
        ),
    ],
)
def test_rejects_wrong_uses(call, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
