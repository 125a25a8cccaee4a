"""Truncation of distributions, compared with loops written from the papers.

Axes in shape comments: B batch, K draws, V vocabulary.
"""

import numpy as np
import pytest
from keras import ops

from kseq.decoding.truncation import draw, truncated
from tests.decoding.scripts import log_softmax
from tests.helpers import array, assert_close, compiled


def top_k(probs, k):
    """Keep the k most probable tokens, Fan et al."""
    kept = np.zeros_like(probs)
    for token in sorted(range(len(probs)), key=lambda v: -probs[v])[:k]:
        kept[token] = probs[token]
    return kept / kept.sum()


def top_p(probs, p):
    """Keep the smallest set with a sum of at least p, Holtzman et al., (2)."""
    kept = np.zeros_like(probs)
    for token in sorted(range(len(probs)), key=lambda v: -probs[v]):
        if kept.sum() >= p - 1e-9:
            break
        kept[token] = probs[token]
    return kept / kept.sum()


def min_p(probs, p_base):
    """Keep tokens of at least `p_base` times the highest probability, Nguyen et al."""
    kept = np.array([p if p >= p_base * max(probs) - 1e-9 else 0.0 for p in probs])
    return kept / kept.sum()


def typical_p(probs, tau):
    """Keep tokens of smallest |H + log p|, up to a sum of tau, Meister et al."""
    entropy = -sum(p * np.log(p) for p in probs if p > 0)
    tokens = [v for v in range(len(probs)) if probs[v] > 0]
    kept = np.zeros_like(probs)
    for token in sorted(tokens, key=lambda v: abs(entropy + np.log(probs[v]))):
        if kept.sum() >= tau - 1e-9:
            break
        kept[token] = probs[token]
    return kept / kept.sum()


ORACLES = {"top_k": top_k, "top_p": top_p, "min_p": min_p, "typical_p": typical_p}


def truncated_probs(log_probs, **rules):
    """Return the distribution that the rules leave, `(B, K, V)`."""
    left, token_ids = truncated(ops.convert_to_tensor(log_probs), **rules)
    left = np.exp(array(left).astype("float64"))
    probs = np.zeros(log_probs.shape)
    if token_ids is None:
        probs = left
    else:
        np.put_along_axis(probs, array(token_ids), left, axis=-1)
    return probs / probs.sum(axis=-1, keepdims=True)


RULES = [
    {"top_k": 1},
    {"top_k": 4},
    {"top_k": 99},
    {"top_p": 1e-5},
    {"top_p": 0.3},
    {"top_p": 0.9},
    {"min_p": 0.0},
    {"min_p": 0.2},
    {"min_p": 1.0},
    {"typical_p": 1e-5},
    {"typical_p": 0.2},
    {"typical_p": 0.9},
    {"top_k": 7, "top_p": 0.8},
    {"top_p": 0.8, "min_p": 0.3},
    {"min_p": 0.1, "typical_p": 0.5},
    {"top_k": 9, "top_p": 0.95, "min_p": 0.05, "typical_p": 0.7},
]


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_rules_equal_the_papers(rules):
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (3, 5, 11)).astype("float32")
    logits[0, :, 3:5] = -np.inf  # banned by a constraint
    result = truncated_probs(log_softmax(logits), **rules)
    every = np.exp(log_softmax(logits.astype("float64"))).reshape(-1, 11)
    for actual, probs in zip(result.reshape(-1, 11), every, strict=True):
        for name, value in rules.items():
            probs = ORACLES[name](probs, value)
        assert_close(actual, probs)


@pytest.mark.parametrize(
    "rules", [{"top_p": 0.6}, {"top_p": 0.99}, {"typical_p": 0.6}, {"typical_p": 0.99}]
)
def test_a_large_vocabulary_with_many_ties_is_truncated(rules):
    random = np.random.default_rng(3)
    logits = np.round(random.normal(0, 4, (2, 3, 1009))).astype("float32")
    result = truncated_probs(log_softmax(logits), **rules).reshape(-1, 1009)
    every = np.exp(log_softmax(logits.astype("float64"))).reshape(-1, 1009)
    [(name, share)] = rules.items()
    for actual, probs in zip(result, every, strict=True):
        expected = ORACLES[name](np.round(probs, 12), share)
        assert_close(np.sort(actual), np.sort(expected))
        tokens = np.flatnonzero(actual)
        for other in set(range(1009)) - set(tokens):  # the first of equals are kept
            equals = tokens[np.isclose(probs[tokens], probs[other], rtol=1e-4)]
            assert (equals < other).all()


def test_a_sum_that_is_reached_exactly_is_enough():
    for probs in ([0.5, 0.3, 0.2], [0.3, 0.2, 0.5], [0.2, 0.5, 0.3]):
        log_probs = np.log(np.array([[probs]], "float32"))
        for share, number in {0.5: 1, 0.51: 2, 0.8: 2, 0.81: 3, 1.0: 3}.items():
            assert (truncated_probs(log_probs, top_p=share) > 0).sum() == number
    log_probs = np.log(np.array([[[0.4, 0.3, 0.2, 0.1]]], "float32"))
    assert (truncated_probs(log_probs, min_p=0.5) > 0).sum() == 3


def test_only_as_many_tied_tokens_as_needed_are_kept():
    log_probs = np.log(np.full((1, 1, 8), 1 / 8, "float32"))
    assert (truncated_probs(log_probs, top_k=3) > 0).sum() == 3
    assert (truncated_probs(log_probs, top_p=0.5) > 0).sum() == 4
    assert (truncated_probs(log_probs, top_p=0.51) > 0).sum() == 5
    assert (truncated_probs(log_probs, typical_p=0.25) > 0).sum() == 2
    assert (truncated_probs(log_probs, min_p=1.0) > 0).sum() == 8


def test_the_most_probable_token_need_not_be_typical():
    probs = np.array([[[0.6, 0.15, 0.15, 0.1]]], "float32")  # H = 1.106, -log .6 = .51
    result = truncated_probs(np.log(probs), typical_p=0.1)
    assert (result[0, 0, 0] > 0) == (
        abs(1.106 + np.log(0.6)) < abs(1.106 + np.log(0.15))
    )
    probs = np.array([[[0.4] + [0.06] * 10]], "float32")  # H = 2.05, near -log .06
    assert truncated_probs(np.log(probs), typical_p=0.3)[0, 0, 0] == 0


@pytest.mark.parametrize("rules", [{}, *RULES], ids=str)
def test_rows_without_possible_tokens_stay_empty_without_nan(rules):
    log_probs = np.full((2, 1, 11), -np.inf, "float32")
    log_probs[1, 0, 6] = 0.0
    left, token_ids = truncated(ops.convert_to_tensor(log_probs), **rules)
    assert (array(left)[0] == -np.inf).all()
    place = array(draw(left, ops.full((2, 1), 0.5)))[1, 0]
    token = place if token_ids is None else array(token_ids)[1, 0, place]
    assert token == 6


def test_a_number_selects_a_candidate_by_cumulative_probability():
    log_probs = ops.convert_to_tensor(np.log([[[0.25, 0.5, 0.25]]]), "float32")
    for number, place in [(0, 0), (0.24, 0), (0.26, 1), (0.74, 1), (0.76, 2), (1, 2)]:
        number = ops.full((1, 1), min(number, 1 - 2**-24))
        assert array(draw(log_probs, number))[0, 0] == place


@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-24])
def test_impossible_tokens_are_never_sampled(number):
    random = np.random.default_rng(2)
    log_probs = random.normal(0, 9, (7, 5, 3001)).astype("float32")
    log_probs[random.random(log_probs.shape) < 0.7] = -np.inf
    log_probs[..., -1] = log_probs[..., 0] = -np.inf
    tensors = ops.convert_to_tensor(log_probs), ops.full((7, 5), number)
    for run in (draw, compiled(draw)):
        places = array(run(*tensors))
        taken = np.take_along_axis(log_probs, places[..., None], axis=-1)
        assert np.isfinite(taken).all()
