"""Custom searches, which work in models like the searches of kseq."""

import dataclasses
import doctest
import inspect

import keras
import numpy as np
import pytest
from keras import ops

import kseq
from kseq.decoding import BannedTokens, Search
from tests.decoding.custom_search import EpsilonGreedy
from tests.helpers import assert_close, randomize

SOURCES = [[4, 5, 6, 7, 3], [8], [9, 10, 4], [], [5, 5, 1, 5]]
LENGTH = 6
SEARCH = EpsilonGreedy(0.4, seed=5)
KINDS = {"recurrent": "gru", "transformer": "transformer"}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def model(request):
    model = kseq.encoder_decoder(11, 7, request.param, request.param, width=8)
    randomize(model)
    for weight in model.weights:
        weight.assign(2.0 * weight)
    return model


def test_the_documented_search_is_the_tested_search():
    examples = doctest.DocTestParser().get_examples(Search.__doc__)
    assert inspect.getsource(EpsilonGreedy) in [x.source for x in examples]


def test_with_epsilon_zero_it_equals_greedy_search(model):
    result = model.generate(SOURCES, EpsilonGreedy(0.0), LENGTH)
    greedy = model.generate(SOURCES, max_length=LENGTH)
    np.testing.assert_array_equal(result.token_ids, greedy.token_ids)
    other = model.generate(SOURCES, SEARCH, LENGTH)
    assert (other.token_ids != greedy.token_ids).any()


def test_a_batch_equals_its_rows(model):
    whole = model.generate(SOURCES, SEARCH, LENGTH)
    rows = model.generate(SOURCES, SEARCH, LENGTH, batch_size=1)
    np.testing.assert_array_equal(whole.token_ids, rows.token_ids)
    assert_close(whole.log_probs, rows.log_probs)
    assert_close(whole.log_probs, model.score(SOURCES, whole))


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch compiles nothing")
def test_equal_searches_share_a_compiled_loop(model, monkeypatch):
    traced, step = [], model.step

    def counting(*arguments):
        traced.append(1)
        return step(*arguments)

    monkeypatch.setattr(model, "step", counting)
    for epsilon, is_new in ((0.3, True), (0.3, False), (0.2, True)):
        del traced[:]
        model.generate(SOURCES, EpsilonGreedy(epsilon, seed=5), LENGTH)
        assert bool(traced) == is_new


def test_a_stream_gives_the_tokens_of_generate(model):
    tokens = np.stack(list(model.generate_stream(SOURCES, SEARCH, LENGTH)), axis=-1)
    whole = model.generate(SOURCES, SEARCH, LENGTH).token_ids[:, 0]
    np.testing.assert_array_equal(tokens, whole[:, : tokens.shape[1]])


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow exports"
)
def test_an_exported_custom_search_generates_the_same(model, tmp_path):
    import tensorflow as tf

    model.export_generation(tmp_path, EpsilonGreedy(0.4), LENGTH)
    source = np.array([[4, 5, 6, 7, 3], [8, 0, 0, 0, 0]], "int32")
    inputs = {"source": tf.constant(source), "seed": tf.constant([5])}
    writer = tf.saved_model.load(tmp_path)
    outputs = writer.serve(inputs)
    expected = model.generate(source, SEARCH, LENGTH)
    np.testing.assert_array_equal(outputs["token_ids"], expected.token_ids)
    assert_close(outputs["log_probs"], expected.log_probs)
    with pytest.raises(ValueError, match="A random search .*EpsilonGreedy"):
        model.export_generation("a.onnx", SEARCH, format="onnx")


@dataclasses.dataclass(frozen=True)
class LeastProbable(Search):
    """Search without options, constraints or streaming."""

    def select(self, gains, hypotheses):
        least = ops.where(gains > -float("inf"), -gains, gains)
        token_ids = ops.cast(ops.argmax(least, axis=-1), "int32")
        return None, token_ids, {"scores": hypotheses.scores}


def test_a_search_without_options_takes_constraints(model):
    free = model.generate(SOURCES, LeastProbable(), LENGTH).token_ids
    [first, *_] = free[0, 0]
    banned = [BannedTokens([int(first)])]
    for _ in range(2):
        kept = model.generate(SOURCES, LeastProbable(), LENGTH, constraints=banned)
        assert first in free and first not in kept.token_ids
    again = model.generate(SOURCES, LeastProbable(), LENGTH).token_ids
    np.testing.assert_array_equal(again, free)
    with pytest.raises(ValueError, match="never revises tokens.*LeastProbable"):
        model.generate_stream(SOURCES, LeastProbable())


# Errors -----------------------------------------------------------------------------


class NotASearch:
    """Object with the attributes of a search that is not a `Search`."""

    num_beams, can_stream = 1, True

    def __call__(self, step, state, constants, start_token_ids, **options):
        raise AssertionError("must not be called")


@pytest.mark.parametrize(
    "search", [NotASearch(), EpsilonGreedy, "greedy", 5, LeastProbable]
)
def test_rejects_a_value_that_is_not_a_search(model, search):
    for method in (model.generate, model.generate_stream):
        with pytest.raises(ValueError, match="`search` must be a search object"):
            method(SOURCES, search)


def test_python_rejects_a_mutable_search():
    with pytest.raises(TypeError, match="non-frozen dataclass from a frozen one"):

        @dataclasses.dataclass
        class Mutable(Search):
            pass


def test_error_names_the_missing_methods_of_a_custom_search(model):
    @dataclasses.dataclass(frozen=True)
    class Empty(Search):
        pass

    with pytest.raises(NotImplementedError, match="Empty has no method `select`"):
        model.generate(SOURCES, Empty())

    @dataclasses.dataclass(frozen=True)
    class UndeclaredRandom(EpsilonGreedy):
        is_random = False

    with pytest.raises(ValueError, match="Set `is_random = True` in a search"):
        model.generate(SOURCES, UndeclaredRandom())
