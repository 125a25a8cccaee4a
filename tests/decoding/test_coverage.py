"""The coverage penalty of beam search, beside brute force.

Axes in shape comments: B batch, K beams, P prefixes, S source steps.
"""

import numpy as np
import pytest
from keras import ops

from kseq.decoding import BeamSearch, Generation, GreedySearch, Sampling
from tests.decoding.scripts import (
    ALL_SEQUENCES,
    END,
    LENGTH,
    VOCABULARY_SIZE,
    assert_same,
    brute_force,
    log_softmax,
    random_script,
)
from tests.decoding.scripts import search as search_without
from tests.helpers import array, assert_close, compiled_on_jax

SOURCE_STEPS = 3
REAL = np.tile(np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0]], bool), (20, 1))  # B S


def random_attention(script, seed=0):
    """What each prefix of a script attends to when it goes on: `(B, P, S)`."""
    shape = (*script.shape[:2], SOURCE_STEPS)
    logits = np.random.default_rng([seed, 1]).normal(0, 2, shape)
    weights = np.exp(log_softmax(logits)) * REAL[: len(script), None]
    return weights / np.maximum(weights.sum(-1, keepdims=True), 1e-9)


def search(script, attention, how, max_length=LENGTH, **options):
    rows, num_prefixes, _ = script.shape
    table = script.reshape(-1, VOCABULARY_SIZE).astype("float32")
    weights = attention.reshape(-1, SOURCE_STEPS).astype("float32")

    def step(token_ids, state, constants):
        prefixes = state["prefixes"]
        prefixes = ops.where(
            prefixes < 0, 0, prefixes * VOCABULARY_SIZE + token_ids + 1
        )
        known = ops.minimum(prefixes, num_prefixes - 1)  # where one has ended
        places = constants["row"] * num_prefixes + known  # B K
        coverage = state["coverage"] + ops.take(weights, places, axis=0)
        state = {"prefixes": prefixes, "coverage": coverage}
        return ops.take(table, places, axis=0), state

    def run():
        padding = np.repeat(~REAL[:rows, None], how.num_beams, axis=1)
        state = {
            "prefixes": ops.full((rows, how.num_beams), -1, dtype="int32"),
            "coverage": ops.convert_to_tensor(padding.astype("float32")),
        }
        row = {"row": ops.arange(rows, dtype="int32")[:, None]}
        result = how(step, state, row, np.full(rows, 3), END, max_length, **options)
        return vars(result)

    return Generation(**compiled_on_jax(run)())


def covered(tokens, attention, is_real):
    """Wu et al., 2016, (14), for one sequence of one row."""
    prefix, total = 0, np.zeros(SOURCE_STEPS)
    for token in tokens:
        total = total + attention[prefix]
        prefix = prefix * VOCABULARY_SIZE + token + 1
    return np.log(np.minimum(total[is_real], 1.0)).sum()


def ranked(script, attention, row, beta, length_penalty, max_length=LENGTH):
    """Every sequence, best first, and what it is ranked by."""
    every = brute_force(script[row], lambda n: 1.0, max_length)

    def rank(found):
        tokens, _, score = found
        penalty = ((5 + len(tokens)) / 6) ** length_penalty
        coverage = covered(tokens, attention[row], REAL[row])
        return score / penalty + beta * coverage

    return sorted(every, key=rank, reverse=True), rank


@pytest.mark.parametrize("beta", [0.2, 3.0])
@pytest.mark.parametrize("length_penalty", [0, 0.6])
def test_enough_beams_rank_every_sequence_by_what_it_covers(beta, length_penalty):
    script = random_script(rows=3, seed=70)
    attention = random_attention(script)
    how = BeamSearch(
        ALL_SEQUENCES,
        length_penalty,
        length_penalty_form="gnmt",
        coverage_penalty=beta,
    )
    result = search(script, attention, how)
    for row in range(3):
        expected, rank = ranked(script, attention, row, beta, length_penalty)
        gained = {tuple(tokens): sums for tokens, sums, _ in expected}
        tokens = array(result.token_ids)[row].tolist()
        found = [tuple(t for t in x if t) for x in tokens]
        assert set(found) == set(gained)
        ranks = [rank((x, None, sum(gained[x]))) for x in found]
        assert_close(np.array(ranks), np.array([rank(x) for x in expected]))
        assert_close(result.log_probs[row], np.array([sum(gained[x]) for x in found]))


def test_the_penalty_changes_what_is_best():
    script = random_script(rows=3, seed=71)
    attention = random_attention(script, seed=2)
    plain = search(script, attention, BeamSearch(9))
    other = search(script, attention, BeamSearch(9, coverage_penalty=1.0))
    assert (array(plain.token_ids)[:2, 0] != array(other.token_ids)[:2, 0]).any()
    assert_same(search_without(script, BeamSearch(9)), plain)
    np.testing.assert_array_equal(  # where there is nothing to cover
        array(plain.token_ids)[2], array(other.token_ids)[2]
    )


@pytest.mark.parametrize(
    "num_results, length_penalty",
    [(1, 0.6), (2, 0), (2, 0.6), (2, -0.7), (1, 0), (1, -0.7)],
)
def test_a_row_that_ends_early_has_lost_nothing(num_results, length_penalty):
    script = random_script(rows=60, seed=72)
    attention = random_attention(script, seed=5)
    options = {"length_penalty": length_penalty, "coverage_penalty": 0.5}
    every = search(script, attention, BeamSearch(5, **options))
    how = BeamSearch(5, num_results=num_results, **options)
    best = search(script, attention, how)
    for name in ("token_ids", "lengths", "log_probs"):
        assert_close(getattr(best, name), getattr(every, name)[:, :num_results])
    assert (array(every.lengths)[:, 0] < LENGTH).sum() > 9


def test_groups_are_ranked_by_what_they_cover():
    script = random_script(rows=3, seed=73)
    attention = random_attention(script, seed=3)
    options = {"num_groups": 2, "coverage_penalty": 1.0}
    result = search(script, attention, BeamSearch(6, **options))
    for row in range(3):
        _, rank = ranked(script, attention, row, 1.0, 0)
        ranks = [
            rank(([t for t in x if t], None, log_prob))
            for x, log_prob in zip(
                array(result.token_ids)[row].tolist(),
                array(result.log_probs)[row],
                strict=True,
            )
        ]
        assert (np.diff(ranks) <= 1e-5).all()
    alone = search(script, attention, BeamSearch(3, coverage_penalty=1.0))
    twice = BeamSearch(6, diversity_strength=0, **options)
    tokens = array(search(script, attention, twice).token_ids)
    np.testing.assert_array_equal(tokens[:, ::2], array(alone.token_ids))


def test_a_source_step_that_nobody_read_is_worst_and_finite():
    script = random_script(rows=1, seed=74)
    attention = random_attention(script)
    attention[..., 1] = 0.0
    result = search(script, attention, BeamSearch(4, coverage_penalty=0.3))
    assert np.isfinite(array(result.log_probs)).all()
    assert (array(result.lengths) > 0).all()


@pytest.mark.parametrize("how", [GreedySearch(), Sampling(seed=1), BeamSearch(3)])
def test_coverage_changes_nothing_where_it_was_not_asked_for(how):
    script = random_script(rows=3, seed=75)
    result = search(script, random_attention(script), how)
    assert_same(result, search_without(script, how))


@pytest.mark.parametrize("wrong", [-0.1, "0.2", None, float("nan"), True])
def test_a_wrong_penalty_is_refused(wrong):
    message = "`coverage_penalty` must be a number of at least 0"
    with pytest.raises(ValueError, match=message):
        BeamSearch(4, coverage_penalty=wrong)


def test_a_state_that_tells_no_coverage_is_refused():
    with pytest.raises(
        ValueError, match='dictionary that has "coverage".*of ndarray|T'
    ):
        search_without(random_script(rows=1), BeamSearch(2, coverage_penalty=0.2))
