"""Sampling: distributions, reproducibility and reported values.

Axes in shape comments: B batch, K draws, V vocabulary.
"""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from kseq.decoding import BannedTokens, GreedySearch, MinimumLength, Sampling
from kseq.decoding.randomness import row_seeds, uniform
from tests.decoding.scripts import (
    END,
    LENGTH,
    PAD,
    VOCABULARY_SIZE,
    assert_same,
    brute_force,
    log_softmax,
    power,
    random_script,
    run_search,
)
from tests.decoding.test_truncation import ORACLES
from tests.helpers import array, assert_close, compiled_on_jax


def assert_distributed(counts, probabilities):
    """Check the distribution of counts by Pearson's chi-square.

    It fails by chance once in a million times.
    """
    counts, probabilities = np.ravel(counts), np.ravel(probabilities)
    assert counts[probabilities == 0].sum() == 0
    counts, probabilities = counts[probabilities > 0], probabilities[probabilities > 0]
    expected = counts.sum() * probabilities / probabilities.sum()
    assert expected.min() > 5, "too few samples for the test"
    degrees = len(counts) - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    if degrees:  # Wilson and Hilferty's approximation
        spread = 2 / (9 * degrees)
        assert (statistic / degrees) ** (1 / 3) < 1 - spread + 4.75 * spread**0.5


def sampled_tokens(search, probabilities, rows=40, max_length=2):
    """Return sequences of independent tokens, `(BK, L)`."""
    with np.errstate(divide="ignore"):  # a probability of 0 bans a token
        log_probs = np.log(np.asarray(probabilities, "float32"))
    table = np.tile(log_probs, (len(log_probs), 1))

    def run():
        return search(
            lambda token_ids, state, constants: (ops.take(table, token_ids, 0), state),
            *((), (), np.full(rows, 2), len(probabilities) - 1, max_length),
        ).token_ids

    return array(compiled_on_jax(run)()).reshape(-1, max_length)


# The last token ends the sequence. It and padding have no probability.
PROBABILITIES = np.array([0, 0.06, 0.28, 0.06, 0.14, 0.1, 0.08, 0.28, 0])
RULES = [
    {},
    {"temperature": 0.6},
    {"temperature": 2.5},
    {"top_k": 3},
    {"top_p": 0.75},
    {"min_p": 0.3},
    {"typical_p": 0.5},
    {"temperature": 1.5, "top_k": 5, "top_p": 0.9},
]


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_pairs_of_tokens_follow_the_distribution(rules):
    expected = PROBABILITIES ** (1 / rules.get("temperature", 1))
    expected = expected / expected.sum()
    for name, value in rules.items():
        if name != "temperature":
            expected = ORACLES[name](expected, value)
    pairs = sampled_tokens(
        Sampling(**rules, num_draws=2000, seed=1), PROBABILITIES, rows=13
    )
    counts = np.zeros((9, 9))
    np.add.at(counts, (pairs[:, 0], pairs[:, 1]), 1)
    assert_distributed(counts, np.outer(expected, expected))


def test_whole_sequences_follow_their_probabilities():
    script = random_script(rows=2, seed=30)
    search = Sampling(num_draws=20_000, seed=2, constraints=[BannedTokens([4])])
    result = run_search(script, search, max_length=3)
    for row, table in enumerate(script):
        every = brute_force(table, power(0), 3, is_allowed=lambda x: 4 not in x)
        sampled = array(result.token_ids)[row].tolist()
        tokens = [tuple(token for token in x if token != PAD) for x in sampled]
        counts, probabilities = [], []
        for sequence, token_log_probs, _ in every:
            counts.append(tokens.count(tuple(sequence)))
            prefix, logs = 0, 0.0
            for token, log_prob in zip(sequence, token_log_probs, strict=True):
                follows = np.exp(log_softmax(table[prefix]))
                logs += log_prob - np.log(1 - follows[4] - follows[PAD])
                prefix = prefix * VOCABULARY_SIZE + token + 1
            probabilities.append(np.exp(logs))
        assert_close(sum(probabilities), 1.0)
        assert sum(counts) == len(tokens)
        common = np.array(probabilities) * len(tokens) > 6
        assert_distributed(np.array(counts)[common], np.array(probabilities)[common])


def test_reported_log_probs_are_those_of_the_model():
    script = random_script(rows=3, seed=31)
    search = Sampling(2.0, top_k=3, num_draws=7, seed=3, constraints=[MinimumLength(2)])
    result = run_search(script, search)
    assert_close(ops.sum(result.token_log_probs, axis=-1), result.log_probs)
    for row, table in enumerate(script):
        known = {
            tuple(x): token_log_probs
            for x, token_log_probs, _ in brute_force(table, power(0))
        }
        for k, length in enumerate(array(result.lengths)[row]):
            tokens = array(result.token_ids)[row, k, :length].tolist()
            assert 2 <= length <= LENGTH
            token_log_probs = array(result.token_log_probs)[row, k]
            assert_close(token_log_probs[:length], np.array(known[tuple(tokens)]))
            assert (array(result.token_ids)[row, k, length:] == PAD).all()
    log_probs = array(result.log_probs)
    assert (np.diff(log_probs, axis=1) <= 0).all(), "best first"
    assert len(np.unique(log_probs[0])) > 2


@pytest.mark.parametrize(
    "rules", [{"top_k": 1}, {"top_p": 1e-7}, {"min_p": 1.0}, {"temperature": 1e-3}]
)
def test_sampling_without_a_choice_equals_greedy_search(rules):
    script = random_script(rows=7, seed=32)
    greedy = run_search(script, GreedySearch())
    assert_same(run_search(script, Sampling(**rules)), greedy)


@pytest.mark.parametrize("rules", [{"top_p": 1.0}, {"min_p": 0.0}, {"typical_p": 1.0}])
def test_a_rule_that_keeps_all_tokens_changes_no_probability(rules):
    pairs = sampled_tokens(
        Sampling(**rules, num_draws=1000, seed=4), PROBABILITIES, rows=13
    )
    counts = np.bincount(pairs.ravel(), minlength=9)
    assert_distributed(counts, PROBABILITIES)


# Reproducibility --------------------------------------------------------------------


def test_equal_seeds_give_equal_samples_and_other_seeds_do_not():
    script = random_script(rows=5, seed=33)
    first = run_search(script, Sampling(num_draws=3, seed=5))
    assert_same(run_search(script, Sampling(num_draws=3, seed=5)), first)
    other = run_search(script, Sampling(num_draws=3, seed=6))
    assert (array(other.token_ids) != array(first.token_ids)).any()


def test_without_a_seed_calls_differ_and_follow_the_seed_of_keras():
    script, search = random_script(rows=5, seed=34), Sampling(num_draws=3)
    keras.utils.set_random_seed(1)
    first, second = run_search(script, search), run_search(script, search)
    assert (array(first.token_ids) != array(second.token_ids)).any()
    keras.utils.set_random_seed(1)
    assert_same(run_search(script, search), first)
    assert_same(run_search(script, search), second)


def test_rows_and_samples_of_the_same_source_differ():
    tokens = sampled_tokens(
        Sampling(num_draws=20, seed=7), np.r_[0, np.full(90, 1 / 90), 0], 20, 9
    )
    assert len({tuple(x) for x in tokens.tolist()}) == 400


def test_a_batch_equals_its_rows_with_their_seeds():
    script = random_script(rows=5, seed=35)
    search = Sampling(top_p=0.9, num_draws=3, seed=8)
    batch = run_search(script, search)
    seeds = array(search.row_seeds(5))
    few = run_search(script[:2], search)
    assert_close(few.token_ids, batch.token_ids[:2])
    for row in range(5):
        options = {"row_seeds": seeds[row : row + 1]}
        alone = run_search(script[row : row + 1], search, **options)
        assert_close(alone.token_ids, batch.token_ids[row : row + 1])


def test_more_draws_include_those_of_fewer():
    script = random_script(rows=3, seed=36)
    few = run_search(script, Sampling(num_draws=2, seed=9))
    many = run_search(script, Sampling(num_draws=5, seed=9))
    for row in range(3):
        found = array(many.token_ids)[row].tolist()
        assert all(x in found for x in array(few.token_ids)[row].tolist())


def test_longer_sequences_begin_like_shorter_ones():
    script = random_script(rows=9, seed=37)
    short = run_search(script, Sampling(seed=10), max_length=2)
    long = run_search(script, Sampling(seed=10), max_length=5)
    assert_close(long.token_ids[..., :2], short.token_ids)


def test_random_numbers_are_uniform_and_independent():
    numbers = np.stack(
        [array(uniform(row_seeds(11, 200), 50, step)) for step in range(20)], axis=-1
    )
    assert numbers.shape == (200, 50, 20) and 0 <= numbers.min() <= numbers.max() < 1
    assert_distributed(np.histogram(numbers, 97, (0, 1))[0], np.full(97, 1 / 97))
    for axis in range(3):  # neighbours: rows, draws, steps
        moved = np.moveaxis(numbers, axis, 0)
        pairs = np.histogram2d(
            moved[1:].ravel(), moved[:-1].ravel(), 13, [(0, 1), (0, 1)]
        )[0]
        assert_distributed(pairs, np.full(pairs.shape, 1 / pairs.size))
    for one, other in itertools.combinations([0, 1, 2, -1, 2**31, 2**40 + 1], 2):
        same = array(row_seeds(one, 50)) == array(row_seeds(other, 50))
        assert not same.any() or (one - other) % 2**32 == 0


def test_random_numbers_are_the_same_on_every_backend():
    """The expected numbers come from unsigned arithmetic in Python."""

    def mix(x):
        x = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32
        x = ((x ^ (x >> 15)) * 0x846CA68B) % 2**32
        return x ^ (x >> 16)

    numbers = array(uniform(row_seeds(-5, 3), 4, 6))
    for row, k in itertools.product(range(3), range(4)):
        seed = mix((mix(-5 % 2**32) + row) % 2**32)
        stream = mix((seed + k * 0x9E3779B9) % 2**32)
        bits = mix((stream + mix(7)) % 2**32)
        assert numbers[row, k] == (bits >> 8) / 2**24


# Errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("temperature", 0, "a positive number"),
        ("temperature", -1.0, "a positive number"),
        ("temperature", float("nan"), "a positive number"),
        ("temperature", "1", "a positive number"),
        ("top_k", 0, "a positive integer"),
        ("top_k", 2.0, "a positive integer"),
        ("top_p", 0, "a number above 0"),
        ("top_p", 1.1, "a number above 0"),
        ("typical_p", 0.0, "a number above 0"),
        ("typical_p", True, "a number above 0"),
        ("min_p", -0.1, "a number from 0 to 1"),
        ("min_p", 1.5, "a number from 0 to 1"),
        ("num_draws", 0, "a positive integer"),
        ("num_draws", None, "a positive integer"),
        ("seed", 1.5, "an integer or None"),
        ("seed", "1", "an integer or None"),
    ],
)
def test_rejects_options_out_of_range(name, value, expected):
    with pytest.raises(ValueError, match=f"`{name}` must be {expected}.*{value!r}"):
        Sampling(**{name: value})


def test_all_tokens_can_be_banned():
    search = Sampling(
        top_p=0.5, num_draws=2, constraints=[BannedTokens([END, 2, 3, 4])]
    )
    result = run_search(random_script(rows=2), search)
    assert (array(result.log_probs) == -np.inf).all()
    assert (array(result.lengths) == 0).all()
