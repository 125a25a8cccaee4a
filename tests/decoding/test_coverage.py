"""Coverage penalty of beam search, compared with brute force.

Axes in shape comments: B batch, K beams, P prefixes, S source steps.
"""

import numpy as np
import pytest
from keras import ops

from kseq.decoding import BeamSearch, Generation, GreedySearch, Sampling
from tests.decoding.scripts import (
    END,
    LENGTH,
    NUM_SEQUENCES,
    VOCABULARY_SIZE,
    assert_same,
    brute_force,
    log_softmax,
    random_script,
)
from tests.decoding.scripts import run_search as run_search_without_coverage
from tests.helpers import array, assert_close, compiled_on_jax

SOURCE_STEPS = 3
REAL = np.tile(np.array([[1, 1, 1], [1, 0, 1], [0, 0, 0]], bool), (20, 1))  # B S


def random_attention(script, seed=0):
    """Return the attention of each prefix of a script, `(B, P, S)`."""
    shape = (*script.shape[:2], SOURCE_STEPS)
    logits = np.random.default_rng([seed, 1]).normal(0, 2, shape)
    weights = np.exp(log_softmax(logits)) * REAL[: len(script), None]
    return weights / np.maximum(weights.sum(-1, keepdims=True), 1e-9)


def run_search(script, attention, search, max_length=LENGTH, **options):
    rows, num_prefixes, _ = script.shape
    table = script.reshape(-1, VOCABULARY_SIZE).astype("float32")
    weights = attention.reshape(-1, SOURCE_STEPS).astype("float32")

    def step(token_ids, state, constants):
        prefixes = state["prefixes"]
        prefixes = ops.where(
            prefixes < 0, 0, prefixes * VOCABULARY_SIZE + token_ids + 1
        )
        known = ops.minimum(prefixes, num_prefixes - 1)  # for ended hypotheses
        places = constants["row"] * num_prefixes + known  # B K
        coverage = state["coverage"] + ops.take(weights, places, axis=0)
        state = {"prefixes": prefixes, "coverage": coverage}
        return ops.take(table, places, axis=0), state

    def run():
        padding = np.repeat(~REAL[:rows, None], search.num_beams, axis=1)
        state = {
            "prefixes": ops.full((rows, search.num_beams), -1, dtype="int32"),
            "coverage": ops.convert_to_tensor(padding.astype("float32")),
        }
        row = {"row": ops.arange(rows, dtype="int32")[:, None]}
        result = search(step, state, row, np.full(rows, 3), END, max_length, **options)
        return vars(result)

    return Generation(**compiled_on_jax(run)())


def covered(tokens, attention, is_real):
    """Return the coverage of a sequence of one row, Wu et al., 2016, (14)."""
    prefix, total = 0, np.zeros(SOURCE_STEPS)
    for token in tokens:
        total = total + attention[prefix]
        prefix = prefix * VOCABULARY_SIZE + token + 1
    return np.log(np.minimum(total[is_real], 1.0)).sum()


def ranked(script, attention, row, beta, length_penalty, max_length=LENGTH):
    """Return all sequences, best first, and the function that ranks them."""
    all_results = brute_force(script[row], lambda n: 1.0, max_length)

    def rank(found):
        tokens, _, score = found
        penalty = ((5 + len(tokens)) / 6) ** length_penalty
        coverage = covered(tokens, attention[row], REAL[row])
        return score / penalty + beta * coverage

    return sorted(all_results, key=rank, reverse=True), rank


@pytest.mark.parametrize("beta", [0.2, 3.0])
@pytest.mark.parametrize("length_penalty", [0, 0.6])
def test_enough_beams_rank_all_sequences_by_coverage(beta, length_penalty):
    script = random_script(rows=3, seed=70)
    attention = random_attention(script)
    search = BeamSearch(
        NUM_SEQUENCES,
        length_penalty,
        length_penalty_form="gnmt",
        coverage_penalty=beta,
    )
    result = run_search(script, attention, search)
    for row in range(3):
        expected, rank = ranked(script, attention, row, beta, length_penalty)
        token_log_probs = {tuple(tokens): sums for tokens, sums, _ in expected}
        tokens = array(result.token_ids)[row].tolist()
        found = [tuple(t for t in x if t) for x in tokens]
        assert set(found) == set(token_log_probs)
        ranks = [rank((x, None, sum(token_log_probs[x]))) for x in found]
        assert_close(np.array(ranks), np.array([rank(x) for x in expected]))
        assert_close(
            result.log_probs[row], np.array([sum(token_log_probs[x]) for x in found])
        )


def test_the_coverage_penalty_changes_the_best_hypothesis():
    script = random_script(rows=3, seed=71)
    attention = random_attention(script, seed=2)
    plain = run_search(script, attention, BeamSearch(9))
    other = run_search(script, attention, BeamSearch(9, coverage_penalty=1.0))
    assert (array(plain.token_ids)[:2, 0] != array(other.token_ids)[:2, 0]).any()
    assert_same(run_search_without_coverage(script, BeamSearch(9)), plain)
    np.testing.assert_array_equal(  # row 2 has nothing to cover
        array(plain.token_ids)[2], array(other.token_ids)[2]
    )


@pytest.mark.parametrize(
    "num_results, length_penalty",
    [(1, 0.6), (2, 0), (2, 0.6), (2, -0.7), (1, 0), (1, -0.7)],
)
def test_stopping_early_loses_no_result(num_results, length_penalty):
    script = random_script(rows=60, seed=72)
    attention = random_attention(script, seed=5)
    options = {"length_penalty": length_penalty, "coverage_penalty": 0.5}
    all_results = run_search(script, attention, BeamSearch(5, **options))
    search = BeamSearch(5, num_results=num_results, **options)
    best = run_search(script, attention, search)
    for name in ("token_ids", "lengths", "log_probs"):
        assert_close(getattr(best, name), getattr(all_results, name)[:, :num_results])
    assert (array(all_results.lengths)[:, 0] < LENGTH).sum() > 9


def test_groups_are_ranked_by_coverage():
    script = random_script(rows=3, seed=73)
    attention = random_attention(script, seed=3)
    options = {"num_groups": 2, "coverage_penalty": 1.0}
    result = run_search(script, attention, BeamSearch(6, **options))
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
    alone = run_search(script, attention, BeamSearch(3, coverage_penalty=1.0))
    twice = BeamSearch(6, diversity_strength=0, **options)
    tokens = array(run_search(script, attention, twice).token_ids)
    np.testing.assert_array_equal(tokens[:, ::2], array(alone.token_ids))


def test_a_source_step_without_attention_gives_finite_scores():
    script = random_script(rows=1, seed=74)
    attention = random_attention(script)
    attention[..., 1] = 0.0
    result = run_search(script, attention, BeamSearch(4, coverage_penalty=0.3))
    assert np.isfinite(array(result.log_probs)).all()
    assert (array(result.lengths) > 0).all()


@pytest.mark.parametrize("search", [GreedySearch(), Sampling(seed=1), BeamSearch(3)])
def test_coverage_is_ignored_without_a_coverage_penalty(search):
    script = random_script(rows=3, seed=75)
    result = run_search(script, random_attention(script), search)
    assert_same(result, run_search_without_coverage(script, search))


@pytest.mark.parametrize("wrong", [-0.1, "0.2", None, float("nan"), True])
def test_rejects_an_invalid_coverage_penalty(wrong):
    message = "`coverage_penalty` must be a non-negative number"
    with pytest.raises(ValueError, match=message):
        BeamSearch(4, coverage_penalty=wrong)


def test_rejects_a_state_without_coverage():
    with pytest.raises(
        ValueError, match='dictionary that has "coverage".*of ndarray|T'
    ):
        run_search_without_coverage(
            random_script(rows=1), BeamSearch(2, coverage_penalty=0.2)
        )
