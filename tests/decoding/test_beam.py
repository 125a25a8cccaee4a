"""Beam search, compared with brute force on models given as tables."""

import dataclasses

import numpy as np
import pytest
from keras import ops

from kseq.decoding import BeamSearch, GreedySearch
from tests.decoding.scripts import (
    END,
    LENGTH,
    NUM_SEQUENCES,
    PAD,
    assert_row_equals,
    assert_same,
    brute_force,
    power,
    random_script,
    run_search,
)
from tests.helpers import array, assert_close


def log(probabilities):
    with np.errstate(divide="ignore"):  # a probability of 0 bans a token
        return np.log(np.array(probabilities, "float32"))


def next_token_step(table):
    """Return a step function in which the last token decides the next."""
    return lambda token_ids, state, constants: (ops.take(table, token_ids, 0), state)


@pytest.mark.parametrize("length_penalty", [0, 0.6, 1, 1.7])
def test_enough_beams_find_all_sequences_in_brute_force_order(length_penalty):
    script = random_script(rows=3)
    result = run_search(script, BeamSearch(NUM_SEQUENCES, length_penalty))
    ends = set()
    for row, table in enumerate(script):
        expected = brute_force(table, power(length_penalty))
        assert len(expected) == NUM_SEQUENCES
        assert_row_equals(result, row, expected)
        ends |= {(len(x), x[-1] == END) for x, *_ in expected[:50]}
    assert {(LENGTH, True), (LENGTH, False), (2, True)} <= ends  # among the best


@pytest.mark.parametrize("length_penalty", [0, 1])
def test_one_beam_equals_greedy_search(length_penalty):
    script = random_script(rows=7, seed=1)
    greedy = run_search(script, GreedySearch())
    assert len(set(array(greedy.lengths)[:, 0])) > 1
    assert_same(run_search(script, BeamSearch(1, length_penalty)), greedy)


def test_a_batch_equals_its_rows():
    script = random_script(rows=3, seed=2)
    search = BeamSearch(3, 0.6)
    batch = run_search(script, search)
    for row in range(3):
        alone = run_search(script[row : row + 1], search)
        rows = {
            name: None if value is None else value[row : row + 1]
            for name, value in vars(batch).items()
        }
        assert_same(dataclasses.replace(batch, **rows), alone)


def test_more_beams_find_better_hypotheses():
    script = random_script(rows=3, seed=3)
    few = run_search(script, BeamSearch(1))
    many = run_search(script, BeamSearch(NUM_SEQUENCES))
    assert (array(many.log_probs)[:, 0] >= array(few.log_probs)[:, 0] - 1e-6).all()
    assert (array(many.log_probs)[:, 0] > array(few.log_probs)[:, 0] + 1e-3).any()


@pytest.mark.parametrize("num_beams", [1, 2, 3])
def test_an_ended_hypothesis_is_not_extended(num_beams):
    # P(end) = .60, P(b) = .40, P(end | b) = .90: `b, end` (.36) must not beat `end`.
    pad, end, b, start = range(4)
    table = log([[0, 0, 1, 0], [0, 1, 0, 0], [0, 0.9, 0.1, 0], [0, 0.6, 0.4, 0]])
    result = BeamSearch(num_beams)(next_token_step(table), (), (), [start], end, 3)
    tokens = [[end, pad, pad], [b, end, pad], [b, b, end]]
    assert array(result.token_ids)[0].tolist() == tokens[:num_beams]
    assert array(result.lengths)[0].tolist() == [1, 2, 3][:num_beams]
    assert_close(result.log_probs[0], np.log([0.6, 0.36, 0.036])[:num_beams])


def test_logits_after_the_end_token_are_ignored():
    def with_nan_after_end(step):
        def step_with_nan(token_ids, state, constants):
            logits, state = step(token_ids, state, constants)
            return ops.where(token_ids[..., None] == PAD, np.nan, logits), state

        return step_with_nan

    script = random_script(rows=3, seed=4)
    search = BeamSearch(7, 0.6)
    assert_same(
        run_search(script, search, step=with_nan_after_end), run_search(script, search)
    )


def test_the_end_token_counts_in_the_length_and_the_score():
    pad, end, a, start = range(4)
    table = log([[0, 1, 0, 0], [0, 1, 0, 0], [0, 0.7, 0.3, 0], [0, 0.5, 0.5, 0]])
    # `end` has .5 and length 1, `a, end` has .35 and length 2: means of .5 and .59.
    result = BeamSearch(2, length_penalty=1.0)(
        next_token_step(table), (), (), [start], end, 2
    )
    assert array(result.token_ids)[0].tolist() == [[a, end], [end, pad]]
    assert array(result.lengths)[0].tolist() == [2, 1]
    assert_close(result.log_probs[0], np.log([0.35, 0.5]))


def test_all_rows_can_end_at_the_first_step():
    table = log([[0, 1, 0], [0, 1, 0], [0, 1, 0]])
    result = BeamSearch(2)(next_token_step(table), (), (), [2, 2], 1, 4)
    assert array(result.token_ids)[:, 0].tolist() == [[1, 0, 0, 0]] * 2
    assert array(result.lengths).tolist() == [[1, 0]] * 2
    assert_close(result.log_probs, np.array([[0, -np.inf]] * 2))


@pytest.mark.parametrize("length_penalty", [0, 0.6])
def test_surplus_beams_are_empty(length_penalty):
    pad, end, a = range(3)
    table = log([[0.2, 0.3, 0.5]] * 3)
    result = BeamSearch(7, length_penalty)(
        next_token_step(table), (), (), [a, a], end, 2
    )
    tokens = array(result.token_ids)
    for row in range(2):
        real = [[end, pad], [a, a], [a, end]]
        assert sorted(tokens[row, :3].tolist()) == sorted(real)
    assert (tokens[:, 3:] == pad).all()
    assert (array(result.lengths)[:, 3:] == 0).all()
    assert (array(result.log_probs)[:, 3:] == -np.inf).all()
    assert (array(result.token_log_probs)[:, 3:] == 0).all()
    assert_close(
        np.sort(np.exp(array(result.log_probs)[0, :3])), np.array([0.15, 0.25, 0.3])
    )


def test_ties_give_distinct_hypotheses():
    table = np.zeros((5, 5), "float32")
    result = BeamSearch(6, 1.0)(next_token_step(table), (), (), [3, 3], END, 3)
    for tokens in array(result.token_ids):
        assert len({tuple(x) for x in tokens.tolist()}) == 6
    assert_close(result.log_probs, array(result.lengths) * np.log(1 / 5))


def test_num_results_returns_the_best_hypotheses():
    script = random_script(rows=3, seed=5)
    all_results = run_search(script, BeamSearch(5, 0.6))
    best = run_search(script, BeamSearch(5, 0.6, num_results=2))
    assert tuple(best.token_ids.shape) == (3, 2, LENGTH)
    first = {k: v if v is None else v[:, :2] for k, v in vars(all_results).items()}
    assert_same(best, dataclasses.replace(all_results, **first))


@pytest.mark.parametrize("num_beams", [0, -1, 2.0, "4", None])
def test_rejects_an_invalid_number_of_beams(num_beams):
    with pytest.raises(ValueError, match="`num_beams` must be a positive integer"):
        BeamSearch(num_beams)


@pytest.mark.parametrize("length_penalty", ["0.6", None, 1j, float("nan")])
def test_a_length_penalty_must_be_a_number(length_penalty):
    with pytest.raises(ValueError, match="`length_penalty` must be a number.*Received"):
        BeamSearch(4, length_penalty)


@pytest.mark.parametrize("num_results", [0, 5, 1.5, "2"])
def test_rejects_an_invalid_number_of_results(num_results):
    with pytest.raises(ValueError, match="`num_results` must be.*num_beams=4"):
        BeamSearch(4, num_results=num_results)
