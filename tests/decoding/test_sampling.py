"""Sampling: distributions, reproducibility and what is reported.

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
    search,
)
from tests.decoding.test_truncation import ORACLES
from tests.helpers import array, assert_close, compiled_on_jax


def assert_distributed(counts, probabilities):
    """Pearson's chi-square is not above what happens once in a million."""
    counts, probabilities = np.ravel(counts), np.ravel(probabilities)
    assert counts[probabilities == 0].sum() == 0
    counts, probabilities = counts[probabilities > 0], probabilities[probabilities > 0]
    expected = counts.sum() * probabilities / probabilities.sum()
    assert expected.min() > 5, "too few draws for the test"
    degrees = len(counts) - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    if degrees:  # Wilson and Hilferty's approximation
        spread = 2 / (9 * degrees)
        assert (statistic / degrees) ** (1 / 3) < 1 - spread + 4.75 * spread**0.5


def draws(how, probabilities, rows=40, max_length=2):
    """Sequences of independent words, `(BK, L)`."""
    with np.errstate(divide="ignore"):  # a probability of 0 is a banned word
        log_probs = np.log(np.asarray(probabilities, "float32"))
    table = np.tile(log_probs, (len(log_probs), 1))

    def run():
        return how(
            lambda token_ids, state, constants: (ops.take(table, token_ids, 0), state),
            *((), (), np.full(rows, 2), len(probabilities) - 1, max_length),
        ).token_ids

    return array(compiled_on_jax(run)()).reshape(-1, max_length)


# The last word ends the sequence, and has no probability; nor has padding.
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
def test_two_words_in_a_row_follow_the_distribution(rules):
    expected = PROBABILITIES ** (1 / rules.get("temperature", 1))
    expected = expected / expected.sum()
    for name, value in rules.items():
        if name != "temperature":
            expected = ORACLES[name](expected, value)
    pairs = draws(Sampling(**rules, num_draws=2000, seed=1), PROBABILITIES, rows=13)
    counts = np.zeros((9, 9))
    np.add.at(counts, (pairs[:, 0], pairs[:, 1]), 1)
    assert_distributed(counts, np.outer(expected, expected))


def test_whole_sequences_have_their_probabilities():
    script = random_script(rows=2, seed=30)
    how = Sampling(num_draws=20_000, seed=2, constraints=[BannedTokens([4])])
    result = search(script, how, max_length=3)
    for row, table in enumerate(script):
        every = brute_force(table, power(0), 3, may_write=lambda x: 4 not in x)
        drawn = array(result.token_ids)[row].tolist()
        tokens = [tuple(token for token in x if token != PAD) for x in drawn]
        counts, probabilities = [], []
        for sequence, gained, _ in every:
            counts.append(tokens.count(tuple(sequence)))
            prefix, logs = 0, 0.0
            for token, own in zip(sequence, gained, strict=True):
                follows = np.exp(log_softmax(table[prefix]))
                logs += own - np.log(1 - follows[4] - follows[PAD])
                prefix = prefix * VOCABULARY_SIZE + token + 1
            probabilities.append(np.exp(logs))
        assert_close(sum(probabilities), 1.0)
        assert sum(counts) == len(tokens)
        common = np.array(probabilities) * len(tokens) > 6
        assert_distributed(np.array(counts)[common], np.array(probabilities)[common])


def test_what_is_reported_is_the_models():
    script = random_script(rows=3, seed=31)
    how = Sampling(2.0, top_k=3, num_draws=7, seed=3, constraints=[MinimumLength(2)])
    result = search(script, how)
    assert_close(ops.sum(result.token_log_probs, axis=-1), result.log_probs)
    for row, table in enumerate(script):
        known = {tuple(x): gained for x, gained, _ in brute_force(table, power(0))}
        for k, length in enumerate(array(result.lengths)[row]):
            tokens = array(result.token_ids)[row, k, :length].tolist()
            assert 2 <= length <= LENGTH
            gained = array(result.token_log_probs)[row, k]
            assert_close(gained[:length], np.array(known[tuple(tokens)]))
            assert (array(result.token_ids)[row, k, length:] == PAD).all()
    log_probs = array(result.log_probs)
    assert (np.diff(log_probs, axis=1) <= 0).all(), "best first"
    assert len(np.unique(log_probs[0])) > 2


@pytest.mark.parametrize(
    "rules", [{"top_k": 1}, {"top_p": 1e-7}, {"min_p": 1.0}, {"temperature": 1e-3}]
)
def test_without_a_choice_it_is_greedy_search(rules):
    script = random_script(rows=7, seed=32)
    greedy = search(script, GreedySearch())
    assert_same(search(script, Sampling(**rules)), greedy)


@pytest.mark.parametrize("rules", [{"top_p": 1.0}, {"min_p": 0.0}, {"typical_p": 1.0}])
def test_a_rule_that_keeps_all_changes_no_probability(rules):
    pairs = draws(Sampling(**rules, num_draws=1000, seed=4), PROBABILITIES, rows=13)
    counts = np.bincount(pairs.ravel(), minlength=9)
    assert_distributed(counts, PROBABILITIES)


# Reproducibility --------------------------------------------------------------------


def test_the_same_seed_gives_the_same_draws_and_another_seed_others():
    script = random_script(rows=5, seed=33)
    first = search(script, Sampling(num_draws=3, seed=5))
    assert_same(search(script, Sampling(num_draws=3, seed=5)), first)
    other = search(script, Sampling(num_draws=3, seed=6))
    assert (array(other.token_ids) != array(first.token_ids)).any()


def test_without_a_seed_every_call_draws_anew_and_keras_seeds_it():
    script, how = random_script(rows=5, seed=34), Sampling(num_draws=3)
    keras.utils.set_random_seed(1)
    first, second = search(script, how), search(script, how)
    assert (array(first.token_ids) != array(second.token_ids)).any()
    keras.utils.set_random_seed(1)
    assert_same(search(script, how), first)
    assert_same(search(script, how), second)


def test_rows_and_draws_of_the_same_source_differ():
    tokens = draws(
        Sampling(num_draws=20, seed=7), np.r_[0, np.full(90, 1 / 90), 0], 20, 9
    )
    assert len({tuple(x) for x in tokens.tolist()}) == 400


def test_a_batch_equals_its_rows_given_their_seeds():
    script = random_script(rows=5, seed=35)
    how = Sampling(top_p=0.9, num_draws=3, seed=8)
    batch = search(script, how)
    seeds = array(how.row_seeds(5))
    few = search(script[:2], how)
    assert_close(few.token_ids, batch.token_ids[:2])
    for row in range(5):
        own = {"row_seeds": seeds[row : row + 1]}
        alone = search(script[row : row + 1], how, **own)
        assert_close(alone.token_ids, batch.token_ids[row : row + 1])


def test_more_draws_are_drawn_besides():
    script = random_script(rows=3, seed=36)
    few = search(script, Sampling(num_draws=2, seed=9))
    many = search(script, Sampling(num_draws=5, seed=9))
    for row in range(3):
        found = array(many.token_ids)[row].tolist()
        assert all(x in found for x in array(few.token_ids)[row].tolist())


def test_longer_sequences_begin_as_shorter_ones():
    script = random_script(rows=9, seed=37)
    short = search(script, Sampling(seed=10), max_length=2)
    long = search(script, Sampling(seed=10), max_length=5)
    assert_close(long.token_ids[..., :2], short.token_ids)


def test_random_numbers_are_even_and_independent():
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
    """By unsigned arithmetic in Python."""

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
    "name, value, what",
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
def test_a_number_out_of_its_range_is_an_error(name, value, what):
    with pytest.raises(ValueError, match=f"`{name}` must be {what}.*{value!r}"):
        Sampling(**{name: value})


def test_every_word_may_be_banned():
    how = Sampling(top_p=0.5, num_draws=2, constraints=[BannedTokens([END, 2, 3, 4])])
    result = search(random_script(rows=2), how)
    assert (array(result.log_probs) == -np.inf).all()
    assert (array(result.lengths) == 0).all()
