"""Properties of `generate` and `score` that hold for any weights of the model."""

import copy
import itertools
import logging

import keras
import numpy as np
import pytest
from keras import ops

import kseq
from kseq.decoding import (
    AllowedTokens,
    BannedTokens,
    BeamSearch,
    Generation,
    GreedySearch,
    MinimumLength,
    NoRepeatNGrams,
    RelativeLength,
    RepetitionPenalty,
    Sampling,
)
from kseq.layers import RecurrentDecoder, RecurrentEncoder
from tests.helpers import array, assert_close, randomize

SOURCE_SIZE, TARGET_SIZE, LENGTH = 11, 7, 5
SOURCES = [[4, 5, 6, 7, 3], [8], [9, 10, 4], [], [5, 5, 1, 5, 9, 5, 5, 2, 5, 6], [8, 8]]
SEARCH = BeamSearch(3, 0.6)


@pytest.fixture(scope="module")
def model():
    """Return a random model whose hypotheses have many lengths."""
    model = kseq.encoder_decoder(
        source=SOURCE_SIZE,
        encoder=RecurrentEncoder("gru", 3, bidirectional=True),
        target=TARGET_SIZE,
        decoder=RecurrentDecoder("rnn", 5, attention="bahdanau"),
        width=5,
    )
    randomize(model)
    for weight in model.weights:
        weight.assign(1.5 * weight)
    is_end = np.arange(TARGET_SIZE) == 3
    model.head.bias.assign(0.2 * array(model.head.bias) + 1.4 * is_end)
    return model


@pytest.fixture(scope="module")
def beams(model):
    return model.generate(SOURCES, SEARCH, LENGTH, return_attention_scores=True)


def padded(rows, length, side="right"):
    fill = [[0] * (length - len(row)) for row in rows]
    pairs = zip(rows, fill, strict=True)
    return np.array([x + f if side == "right" else f + x for x, f in pairs])


def assert_same_generation(result, expected):
    """Check that two `Generation`s are equal."""
    np.testing.assert_array_equal(result.token_ids, expected.token_ids)
    np.testing.assert_array_equal(result.lengths, expected.lengths)
    assert_close(result.log_probs, expected.log_probs)
    assert_close(result.token_log_probs, expected.token_log_probs)


def test_the_hypotheses_of_these_tests_differ(beams):
    """Otherwise, the tests below would prove little."""
    assert len({row.tobytes() for row in beams.token_ids}) == len(SOURCES)
    assert len(set(beams.lengths[:, 0])) > 1
    assert all(isinstance(x, np.ndarray) for x in vars(beams).values())


CONSTRAINTS = [
    MinimumLength(2),
    NoRepeatNGrams(2),
    BannedTokens([5]),
    RepetitionPenalty(1.4),
]
SEARCHES = {
    "greedy": GreedySearch(),
    "beams": SEARCH,
    "sampling": Sampling(2.0, num_draws=3, seed=1),
    "constrained": GreedySearch(CONSTRAINTS),
    "constrained beams": BeamSearch(3, 0.6, constraints=CONSTRAINTS),
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_score_returns_the_log_probs_of_generate(model, search):
    result = model.generate(SOURCES, search, LENGTH)
    assert_close(model.score(SOURCES, result), result.log_probs)
    assert_close(model.score(SOURCES, result.token_ids), result.log_probs)
    assert_close(result.token_log_probs.sum(axis=-1), result.log_probs)


@pytest.mark.thorough(all_but=2)
@pytest.mark.parametrize(
    "name, batch_size", list(itertools.product(SEARCHES, [128, 2]))
)
def test_generated_targets_begin_with_their_prefix(model, name, batch_size):
    search = SEARCHES[name]
    prefix = [[4, 5], [], [6, 6, 6], [2, 2, 4, 4, 3], [1], [4, 2, 1, 5, 6]]
    result = model.generate(SOURCES, search, LENGTH, batch_size, prefix=prefix)
    for tokens, first in zip(result.token_ids[:, 0].tolist(), prefix, strict=True):
        assert tokens[: len(first)] == first
    assert np.isfinite(result.log_probs[:, 0]).all()
    assert_close(model.score(SOURCES, result), result.log_probs)
    plain = model.generate(SOURCES, search, LENGTH)
    assert_close(result.log_probs[1], plain.log_probs[1])
    same = model.generate(SOURCES, search, LENGTH, prefix=padded(prefix, 9))
    assert_same_generation(same, result)


def test_the_score_is_the_sum_of_the_log_probs_of_tokens(model):
    targets = [[4, 3], [3], [5, 5, 6, 4, 1, 2, 6, 4, 3], [4, 4], [1, 6, 3], [6]]
    scores = model.score(SOURCES, targets)
    assert scores.shape == (len(SOURCES),)
    shifted = padded([[2, *target[:-1]] for target in targets], 9)
    logits = array(model({"source": padded(SOURCES, 10), "target": shifted}))
    for target, row, score in zip(targets, logits, scores, strict=True):
        log_probs = row - np.log(np.exp(row).sum(axis=-1, keepdims=True))
        expected = sum(log_probs[t, token] for t, token in enumerate(target))
        assert_close(score, expected)
    assert_close(model.score(padded(SOURCES, 11), padded(targets, 11)), scores)
    assert_close(model.score(SOURCES, targets, batch_size=2), scores)


def test_score_takes_lists_of_several_hypotheses(model):
    targets = [[[4, 3], [3]], [[3], [5, 5, 6, 4, 1, 2, 6, 4, 3]], [[], [6, 1, 3]]]
    scores = model.score(SOURCES[:3], targets)
    assert scores.shape == (3, 2)
    for beam in range(2):
        alone = model.score(SOURCES[:3], [row[beam] for row in targets])
        assert_close(scores[:, beam], alone)


def test_one_beam_equals_greedy_search(model):
    greedy = model.generate(SOURCES, max_length=LENGTH)
    assert_same_generation(model.generate(SOURCES, BeamSearch(1, 0.6), LENGTH), greedy)


def test_a_batch_equals_its_rows(model, beams):
    for row, source in enumerate(SOURCES):
        alone = model.generate([source], SEARCH, LENGTH, return_attention_scores=True)
        rows = {name: value[row : row + 1] for name, value in vars(beams).items()}
        assert_same_generation(alone, Generation(**rows))
        attention = rows["attention"][..., : len(source)]
        assert_close(alone.attention[..., : len(source)], attention)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_small_batches_keep_the_order(model, beams, batch_size):
    result = model.generate(
        SOURCES, SEARCH, LENGTH, batch_size, return_attention_scores=True
    )
    assert_same_generation(result, beams)
    assert_close(result.attention, beams.attention)


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_sampling_does_not_depend_on_the_batch_size(model, batch_size):
    search = Sampling(2.0, num_draws=3, seed=1)
    sampled = model.generate(SOURCES, search, LENGTH)
    assert_same_generation(model.generate(SOURCES, search, LENGTH, batch_size), sampled)
    few = model.generate(SOURCES[:2], search, LENGTH)
    np.testing.assert_array_equal(few.token_ids, sampled.token_ids[:2])


def test_equal_rows_and_repeated_calls_sample_differently(model):
    search = Sampling(2.0)
    for batch_size in (128, 4):
        results = [
            model.generate([[4, 5]] * 40, search, LENGTH, batch_size).token_ids
            for _ in range(2)
        ]
        assert len(np.unique(results[0], axis=0)) > 20
        assert (results[0] != results[1]).any()
        keras.utils.set_random_seed(3)
        first = model.generate([[4, 5]] * 40, search, LENGTH).token_ids
        keras.utils.set_random_seed(3)
        again = model.generate([[4, 5]] * 40, search, LENGTH).token_ids
        np.testing.assert_array_equal(first, again)


def test_hypotheses_end_with_an_end_token_or_have_full_length(beams):
    has_end = (beams.token_ids == 3).any(axis=-1)
    np.testing.assert_array_equal(beams.ended, has_end)
    assert (beams.lengths[~beams.ended] == LENGTH).all()
    assert beams.ended.any() and not beams.ended.all()


def test_padding_on_either_side_changes_nothing(model, beams):
    assert_same_generation(model.generate(padded(SOURCES, 13), SEARCH, LENGTH), beams)
    left = padded(SOURCES, 13, side="left")
    assert_same_generation(model.generate(left, SEARCH, LENGTH), beams)
    assert_close(model.score(left, beams), beams.log_probs)


@pytest.mark.parametrize(
    "form", [ops.convert_to_tensor, tuple, list], ids=["tensor", "tuple", "arrays"]
)
def test_sources_may_be_tensors_tuples_or_lists_of_arrays(model, beams, form):
    rows = form(padded(SOURCES, 10))
    assert_same_generation(model.generate(rows, SEARCH, LENGTH), beams)


def test_an_empty_source_in_a_batch_gives_the_same_as_alone(model, beams):
    empty = SOURCES.index([])
    assert np.isfinite(beams.log_probs[empty]).all()
    assert (beams.attention[empty] == 0).all()
    alone = model.generate([[]], SEARCH, LENGTH)
    np.testing.assert_array_equal(alone.token_ids[0], beams.token_ids[empty])


def test_attention_of_each_token_sums_to_one_over_the_real_source(model, beams):
    attention = beams.attention
    assert attention.shape == (len(SOURCES), 3, LENGTH, max(map(len, SOURCES)))
    for row, source in enumerate(SOURCES):
        assert (attention[row, ..., len(source) :] == 0).all()
        is_token = np.arange(LENGTH) < beams.lengths[row][:, None]
        assert_close(attention[row].sum(axis=-1), is_token * float(len(source) > 0))
    left = padded(SOURCES, 10, side="left")
    shifted = model.generate(left, SEARCH, LENGTH, return_attention_scores=True)
    for row, source in enumerate(SOURCES):
        real = attention[row, ..., : len(source)]
        assert_close(shifted.attention[row, ..., 10 - len(source) :], real)


def test_attention_is_returned_only_on_request(model):
    assert model.generate(SOURCES, SEARCH, LENGTH).attention is None


def counted(calls, function):
    def counting(*arguments):
        calls.append(1)
        return function(*arguments)

    return counting


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch compiles nothing")
@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_each_shape_is_compiled_once(model, search, monkeypatch):
    traced = []
    monkeypatch.setattr(model, "step", counted(traced, model.step))
    model.generate([[4, 5, 6], [7], [8]], search, max_length=3)
    assert traced
    del traced[:]
    model.generate([[9], [4, 5, 6, 7, 8, 9, 10, 1], [5], [6]], search, max_length=3)
    again = copy.deepcopy(search)  # an equal search
    model.generate(padded(SOURCES[:4], 5), again, max_length=3)
    assert not traced


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch compiles nothing")
def test_score_is_compiled_once(monkeypatch):
    model = kseq.encoder_decoder(SOURCE_SIZE, TARGET_SIZE, width=3)
    traced, loop = [], kseq.builders.generate_loop.ScoreLoop
    monkeypatch.setattr(loop, "call", counted(traced, loop.call))
    model.score([[4, 5, 6], [7], [8]], [[4, 3], [5, 6, 3], [3]])
    assert traced
    del traced[:]
    model.score(
        [[9], [4, 5, 6, 7, 8, 9, 10, 1], [], [5]], [[5, 5, 5, 5, 3], [3], [3], [4]]
    )
    assert not traced


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="has no XLA")
def test_xla_generates_the_same(model, beams):
    options = {"return_attention_scores": True, "jit_compile": True}
    assert_same_generation(model.generate(SOURCES, SEARCH, LENGTH, **options), beams)


def test_jit_compile_must_be_true_or_false(model):
    with pytest.raises(ValueError, match="`jit_compile`.*Received: .*'auto'"):
        model.generate(SOURCES, jit_compile="auto")


def test_changed_weights_are_used(model):
    before = model.generate(SOURCES, SEARCH, LENGTH)
    bias = array(model.head.bias)
    model.head.bias.assign(bias + 50 * (np.arange(TARGET_SIZE) == 4))
    after = model.generate(SOURCES, SEARCH, LENGTH)
    model.head.bias.assign(bias)
    assert (after.token_ids[:, 0] == 4).all()
    assert_same_generation(model.generate(SOURCES, SEARCH, LENGTH), before)


# Errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [[], np.zeros((0, 4), "int32"), [4, 5], np.array([4, 5]), np.array(4), [4.5]],
)
@pytest.mark.parametrize("method", ["generate", "score"])
def test_rejects_empty_and_flat_sources(model, method, rows):
    with pytest.raises(ValueError, match="`source` must hold at least one row"):
        getattr(model, method)(
            rows, **({} if method == "generate" else {"target": [[4]]})
        )


@pytest.mark.parametrize("target", [[], [4, 3], np.array([4, 3])])
def test_rejects_empty_and_flat_targets(model, target):
    with pytest.raises(ValueError, match="`target` must hold at least one row"):
        model.score([[4], [5]], target)


@pytest.mark.parametrize("max_length", [0, -1, 2.5, None])
def test_rejects_an_invalid_max_length(model, max_length):
    with pytest.raises(ValueError, match="`max_length` must be a positive integer"):
        model.generate(SOURCES, max_length=max_length)


def test_an_invalid_max_length_does_not_affect_the_next_call(model):
    with pytest.raises(ValueError, match="`max_length` must be .*max_length=2.0"):
        model.generate(SOURCES, max_length=2.0)
    assert model.generate(SOURCES, max_length=2).token_ids.shape[-1] == 2


@pytest.mark.parametrize("batch_size", [0, -3])
def test_rejects_a_batch_size_below_one(model, batch_size):
    with pytest.raises(ValueError, match=f"`batch_size` must be .*{batch_size}"):
        model.generate(SOURCES, max_length=LENGTH, batch_size=batch_size)


def test_rejects_fewer_prefixes_than_sources(model):
    with pytest.raises(ValueError, match="3 rows of source and 2 of prefix"):
        model.generate(SOURCES[:3], max_length=3, prefix=[[4], [5]])


@pytest.mark.parametrize("targets", [[[4, 3]], np.ones((2, 3, 4), "int32")])
def test_rejects_fewer_targets_than_sources(model, targets):
    with pytest.raises(ValueError, match=f"3 rows of source and {len(targets)} of"):
        model.score(SOURCES[:3], targets)


def test_rejects_different_numbers_of_hypotheses(model):
    with pytest.raises(ValueError, match=r"same number .*targets of \[2, 1\] hypoth"):
        model.score(SOURCES[:2], [[[4, 3], [3]], [[3]]])


@pytest.mark.parametrize("wrong", [-1, SOURCE_SIZE, 4.5])
def test_rejects_ids_outside_the_vocabulary(model, wrong):
    rows = [[], [wrong, 4], [5]]
    for source in (rows, [np.array(row) for row in rows], np.array([[wrong, 4]])):
        message = f"`source` must hold integers from 0 to 10.* source with {wrong}"
        with pytest.raises(ValueError, match=message):
            model.generate(source)
    for target in (rows, [[[4, 3], [wrong, 3]]] * 3):
        with pytest.raises(ValueError, match="`target` must hold integers from 0 to 6"):
            model.score([[4], [5], [6]], target)


@pytest.mark.parametrize("rows", [[[4, 3, 5], [6]], [[4, 3, 0, 3], [6]]])
def test_rejects_tokens_after_the_end_token(model, rows):
    message = "follow the end token, 3, of a {}. Received"
    with pytest.raises(ValueError, match=message.format("prefix")):
        model.generate(SOURCES[:2], prefix=rows, max_length=LENGTH)
    with pytest.raises(ValueError, match=message.format("target")):
        model.score(SOURCES[:2], rows)


def test_generate_takes_the_source_of_training_inputs(model, beams):
    inputs = {"source": padded(SOURCES, 10), "target": np.ones((6, 2), "int32")}
    assert_same_generation(model.generate(inputs, SEARCH, LENGTH), beams)


def test_rejects_a_prefix_longer_than_max_length(model):
    for limit in (2, RelativeLength(0, 2)):
        with pytest.raises(ValueError, match="max_length=2 for a prefix of 3 tokens"):
            model.generate([[4], [5]], None, limit, prefix=[[4, 5, 6], [4]])
    padded = np.array([[4, 5, 0, 0], [4, 0, 0, 0]])
    assert model.generate([[4], [5]], None, 2, prefix=padded).token_ids.shape[-1] == 2


def test_rejects_rows_with_too_many_axes(model):
    with pytest.raises(
        ValueError, match=r"`source` must have the shape \(None, None\)"
    ):
        model.generate(np.ones((1, 2, 3), "int32"), max_length=LENGTH)
    with pytest.raises(ValueError, match="`target` must have .* a row of shape"):
        model.score(SOURCES[:2], np.ones((2, 1, 1, 3), "int32"))


@pytest.mark.parametrize("given", [lambda x, _: x[0, 0], lambda x, _: None])
def test_error_names_a_constraint_that_returns_another_shape(model, given):
    search = GreedySearch(constraints=[given])
    with pytest.raises(ValueError, match=r"of the shape \(B, K, V\).*<lambda>"):
        model.generate(SOURCES, search, LENGTH)


@pytest.mark.parametrize("allowed", [[3, 4], None, np.ones((2, 5), bool)])
def test_allowed_tokens_must_be_a_mask(model, allowed):
    search = GreedySearch(constraints=[AllowedTokens(lambda tokens, lengths: allowed)])
    with pytest.raises(ValueError, match="function of `AllowedTokens` must return"):
        model.generate(SOURCES, search, LENGTH)


@pytest.mark.thorough
def test_five_models_generate_without_a_warning():
    messages = []
    listener = logging.Handler()
    listener.emit = messages.append
    logging.getLogger("tensorflow").addHandler(listener)
    try:
        for _ in range(5):
            model = kseq.encoder_decoder(SOURCE_SIZE, TARGET_SIZE, width=5)
            model.generate(SOURCES[:1], max_length=2)
    finally:
        logging.getLogger("tensorflow").removeHandler(listener)
    assert not messages


@pytest.mark.thorough
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="others build the optimizer first"
)
@pytest.mark.parametrize("num_models", [1, 2])
def test_a_training_step_is_traced_once(num_models):
    models = [
        kseq.encoder_decoder(SOURCE_SIZE, TARGET_SIZE, width=5)
        for _ in range(num_models)
    ]
    model = kseq.ensemble(models) if num_models > 1 else models[0]
    traced = []

    class Loss(kseq.training.SequenceCrossentropy):
        def call(self, y_true, y_pred):
            traced.append(1)
            return super().call(y_true, y_pred)

    model.compile("adam", Loss())
    batches = kseq.training.teacher_forcing(SOURCES[:2], [[2, 4, 3], [2, 3]], 2)
    model.fit(batches, verbose=0)
    assert len(traced) == num_models
