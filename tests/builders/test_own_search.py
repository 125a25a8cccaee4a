"""A search of one's own does in a model what a search of kseq does."""

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
HOW = EpsilonGreedy(0.4, seed=5)
KINDS = {"recurrent": "gru", "transformer": "transformer"}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def model(request):
    model = kseq.encoder_decoder(11, 7, request.param, request.param, width=8)
    randomize(model)
    for weight in model.weights:
        weight.assign(2.0 * weight)
    return model


def test_the_search_of_the_documentation_is_the_one_tested_here():
    examples = doctest.DocTestParser().get_examples(Search.__doc__)
    assert inspect.getsource(EpsilonGreedy) in [x.source for x in examples]


def test_without_chance_it_is_greedy_search(model):
    result = model.generate(SOURCES, EpsilonGreedy(0.0), LENGTH)
    greedy = model.generate(SOURCES, max_length=LENGTH)
    np.testing.assert_array_equal(result.token_ids, greedy.token_ids)
    other = model.generate(SOURCES, HOW, LENGTH)
    assert (other.token_ids != greedy.token_ids).any()


def test_a_batch_equals_its_rows(model):
    whole = model.generate(SOURCES, HOW, LENGTH)
    rows = model.generate(SOURCES, HOW, LENGTH, batch_size=1)
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
    tokens = np.stack(list(model.generate_stream(SOURCES, HOW, LENGTH)), axis=-1)
    whole = model.generate(SOURCES, HOW, LENGTH).token_ids[:, 0]
    np.testing.assert_array_equal(tokens, whole[:, : tokens.shape[1]])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="which exports")
def test_its_export_writes_what_generate_writes(model, tmp_path):
    import tensorflow as tf

    model.export_generation(tmp_path, EpsilonGreedy(0.4), LENGTH)
    source = np.array([[4, 5, 6, 7, 3], [8, 0, 0, 0, 0]], "int32")
    inputs = {"source": tf.constant(source), "seed": tf.constant([5])}
    writer = tf.saved_model.load(tmp_path)
    outputs = writer.serve(inputs)
    expected = model.generate(source, HOW, LENGTH)
    np.testing.assert_array_equal(outputs["token_ids"], expected.token_ids)
    assert_close(outputs["log_probs"], expected.log_probs)
    with pytest.raises(ValueError, match="A random search .*EpsilonGreedy"):
        model.export_generation("a.onnx", HOW, format="onnx")


@dataclasses.dataclass(frozen=True)
class LeastProbable(Search):
    """No option, not even constraints, and no stream."""

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


class Alike:
    """It has what a search has, but is none."""

    num_beams, can_stream = 1, True

    def __call__(self, step, state, constants, start_token_ids, **options):
        raise AssertionError("must not be called")


@pytest.mark.parametrize("search", [Alike(), EpsilonGreedy, "greedy", 5, LeastProbable])
def test_what_is_no_search_is_refused(model, search):
    for write in (model.generate, model.generate_stream):
        with pytest.raises(ValueError, match="`search` must be a search object"):
            write(SOURCES, search)


def test_a_search_that_can_change_is_refused_by_python():
    with pytest.raises(TypeError, match="non-frozen dataclass from a frozen one"):

        @dataclasses.dataclass
        class Changing(Search):
            pass


def test_what_an_own_search_lacks_is_named(model):
    @dataclasses.dataclass(frozen=True)
    class Empty(Search):
        pass

    with pytest.raises(NotImplementedError, match="Empty has no method `select`"):
        model.generate(SOURCES, Empty())

    @dataclasses.dataclass(frozen=True)
    class Unannounced(EpsilonGreedy):
        is_random = False

    with pytest.raises(ValueError, match="Set `is_random = True` in a search"):
        model.generate(SOURCES, Unannounced())
