"""Guidance against its formula, and with every search.

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
    """The table of the formula."""
    return TABLES[1] + scale * (TABLES[0] - TABLES[1])


def searches(guidance):
    return {
        "greedy": GreedySearch(guidance=guidance),
        "beam": BeamSearch(3, guidance=guidance),
        "sampling": Sampling(num_draws=2, seed=5, guidance=guidance),
    }


def searched(search, state, constants):
    starts = [2, 3]
    return search(step, state, constants, starts, end_token_id=1, max_length=5)


@pytest.mark.parametrize("kind", searches(None))
@pytest.mark.parametrize("scale", [0, 1, 2.5])
def test_every_search_follows_the_formula(kind, scale):
    """Tables are constants of a row, so they stand in the closure of the step."""
    tables = {"with": TABLES[0], "without": TABLES[1]}

    def either(token_ids, state, constants):
        return ops.take(tables[constants["of"]], token_ids, axis=0), state

    def once(token_ids, state, constants):
        return ops.take(guided(scale), token_ids, axis=0), state

    search, plain = searches(Guidance(scale))[kind], searches(None)[kind]
    two = {"conditional": {"of": "with"}, "unconditional": {"of": "without"}}
    result = search(either, BOTH, two, [2, 3], end_token_id=1, max_length=5)
    expected = plain(once, (), (), [2, 3], end_token_id=1, max_length=5)
    assert (array(result.token_ids) == array(expected.token_ids)).all()
    assert_close(result.log_probs, expected.log_probs)


def test_a_number_is_short_for_guidance():
    assert GreedySearch(guidance=2).guidance == Guidance(2)
    assert GreedySearch().guidance is None


def test_what_the_condition_rules_out_stays_so():
    with_, without = np.array([[0.0, -np.inf, 1]]), np.array([[-np.inf, 0, 0]])
    mixed = array(Guidance(3.0).mixed(with_, without))
    np.testing.assert_allclose(mixed, [[0, -np.inf, 3]])


def translator(**options):
    keras.utils.set_random_seed(1)
    model = kseq.encoder_decoder(11, 13, width=8, source_dropout=0.3, **options)
    randomize(model)
    return model


def by_formula(model, source, scale, length):
    """Greedy search in NumPy, on the logits of the whole prefix at every step."""
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
        best = 1 + guided[1:].argmax()  # padding is never written
        target = np.append(target, [[best]], axis=1)
        if best == 3:
            break
    return target[0, 1:].tolist()


@pytest.mark.parametrize("parts", ["gru", "transformer"])
def test_a_model_writes_what_the_formula_says(parts):
    model = translator(encoder=parts, decoder=parts)
    plain = model.generate(SOURCES, max_length=6).token_ids[:, 0]
    result = model.generate(SOURCES, GreedySearch(guidance=60.0), max_length=6)
    assert (plain != result.token_ids[:, 0]).any()
    for source, row in zip(SOURCES, result.token_ids[:, 0], strict=True):
        expected = by_formula(model, source, 60.0, 6)
        assert row[: len(expected)].tolist() == expected


@pytest.mark.parametrize("kind", searches(None))
def test_one_is_the_model_itself_and_rows_do_not_mix(kind):
    model = translator()
    plain, itself, guided = (
        model.generate(SOURCES, searches(scale)[kind], max_length=5)
        for scale in (None, 1.0, 3.0)
    )
    assert (plain.token_ids == itself.token_ids).all()
    assert_close(plain.log_probs, itself.log_probs, atol=1e-4)
    alone = model.generate(SOURCES, searches(3.0)[kind], 5, batch_size=1)
    assert (alone.token_ids == guided.token_ids).all()


def test_a_stream_and_classes_are_guided_too():
    model = kseq.one_to_many(13, condition=5, width=8, condition_dropout=0.2)
    randomize(model)
    search = GreedySearch(guidance=3.0)
    stream = np.stack(list(model.generate_stream([3, 1], search, 5)), axis=-1)
    whole = model.generate([3, 1], search, 5).token_ids[:, 0]
    assert (stream == whole[:, : stream.shape[1]]).all()


def test_an_ensemble_is_guided_if_its_members_can_be():
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


def test_training_takes_some_sources_away():
    model = translator()
    inputs = {"source": np.full((200, 3), 5), "target": np.full((200, 2), 4)}
    outputs = array(model(inputs, training=True)).reshape(200, -1)
    kinds, counts = np.unique(outputs.round(3), axis=0, return_counts=True)
    assert len(kinds) == 2 and 0.15 < counts.min() / 200 < 0.45


def test_source_dropout_keeps_the_contract_of_layers():
    sequences = random_array(2, 5, 3)
    check_layer(SourceDropout, {"dropout": 0.4, "seed": 7}, {"sequences": sequences})


def test_source_dropout_takes_whole_rows_and_keeps_the_mask():
    layer, x = SourceDropout(0.4, seed=7), random_array(500, 3, 2)
    dropped = array(layer(x, training=True))
    is_gone = (dropped == 0).all(axis=(1, 2))
    assert 0.3 < is_gone.mean() < 0.5
    assert_close(dropped[~is_gone], x[~is_gone])
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
            lambda: searched(GreedySearch(guidance=2), (), ()),
            "`state` must be a dictionary.*tuple",
        ),
        (
            lambda: searched(GreedySearch(guidance=2), BOTH, {"conditional": 1}),
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
def test_wrong_uses_are_refused_with_words(call, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        call()
