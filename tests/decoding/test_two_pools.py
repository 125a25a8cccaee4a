"""Pool of ended hypotheses, which do not occupy beams and are never lost.

Beam search is compared with published tables, and with plain loops with and without
the pool.
"""

import itertools

import numpy as np
import pytest

from kseq.decoding import BeamSearch, MaximumLength
from tests.decoding.scripts import (
    END,
    PAD,
    assert_row_equals,
    one_pool,
    power,
    prefix_index,
    random_script,
    run_search,
    two_pools,
)
from tests.helpers import array, assert_close

W1, W2 = 2, 3
# Probabilities of the end token, W1 and W2 after each prefix: two sentences from the
# tests of fairseq, tests/test_sequence_generator.py (Ott et al., 2019). After any other
# prefix, all three are equally probable.
FAIRSEQ = [
    {
        (): [0, 0.9, 0.1],
        (W1,): [1, 0, 0],
        (W2,): [0, 0.9, 0.1],
        (W2, W1): [0, 0.1, 0.9],
        (W2, W2): [0.6, 0.2, 0.2],
        (W2, W1, W2): [1, 0, 0],
        (W2, W1, W1): [1, 0, 0],
    },
    {
        (): [0, 0.7, 0.3],
        (W1,): [0.25, 0.35, 0.4],
        (W2,): [0, 0.1, 0.9],
        (W1, W2): [0.6, 0.4, 0],
        (W2, W2): [0.01, 0, 0.99],
        (W2, W2, W2): [0.1, 0.5, 0.4],
        (W1, W2, W1): [1, 0, 0],
    },
]
W1_END = [W1, END], [0.9, 1]
W2_W1_W2_END = [W2, W1, W2, END], [0.1, 0.9, 0.9, 1]
W1_W2_END = [W1, W2, END], [0.7, 0.4, 0.6]
W1_W2_W1_END = [W1, W2, W1, END], [0.7, 0.4, 0.4, 1]
PUBLISHED = {
    "normalized": (1, 7, [W1_END, W2_W1_W2_END], [W1_W2_W1_END, W1_W2_END]),
    "not normalized": (0, 7, [W1_END, W2_W1_W2_END], [W1_W2_END, W1_W2_W1_END]),
    "short is better": (0.6, 7, [W1_END, W2_W1_W2_END], [W1_W2_END, W1_W2_W1_END]),
    "long is better": (5, 7, [W2_W1_W2_END, W1_END], [W1_W2_W1_END, W1_W2_END]),
    "three tokens at most": (
        1,
        3,
        [W1_END, ([W2, W2, END], [0.1, 0.1, 0.6])],
        [W1_W2_END, ([W2, W2, END], [0.3, 0.9, 0.01])],
    ),
}


def script_of(next_probabilities, length):
    """Return a script `(1, P, V)` from a dictionary of probabilities."""
    prefixes = [p for n in range(length) for p in itertools.product(range(4), repeat=n)]
    rows = [[0, *next_probabilities.get(prefix, [1 / 3] * 3)] for prefix in prefixes]
    assert [prefix_index(p, 4) for p in prefixes] == list(range(len(prefixes)))
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows))[None]


@pytest.mark.parametrize("name", PUBLISHED)
def test_two_beams_give_the_results_of_fairseq(name):
    length_penalty, max_length, *expected = PUBLISHED[name]
    search = BeamSearch(
        2,
        length_penalty,
        early_stopping=True,  # like fairseq, which stops when two have ended
        constraints=[MaximumLength(max_length)] if max_length == 3 else [],
    )
    script = np.concatenate([script_of(row, 5) for row in FAIRSEQ])
    result = run_search(script, search, max_length=min(max_length, 5))
    for row, hypotheses in enumerate(expected):
        for place, (tokens, probabilities) in enumerate(hypotheses):
            found = array(result.token_ids)[row, place].tolist()
            assert [token for token in found if token != PAD] == tokens
            token_log_probs = array(result.token_log_probs)[row, place, : len(tokens)]
            assert_close(token_log_probs, np.log(probabilities))


@pytest.mark.parametrize("length_penalty", [1, 1.5])
def test_ended_hypotheses_are_kept_if_better_open_ones_cannot_end(length_penalty):
    # `a, a` and `a, b` have a better mean than `end`, but only padding follows.
    pad, end, a = range(3)
    next_probabilities = {(): [0.4, 0.35, 0.25], (a,): [0.04, 0.48, 0.48]}
    script = np.full((1, 21, 4), -np.inf, "float32")
    script[..., pad] = 0.0
    for prefix, probabilities in next_probabilities.items():
        script[0, prefix_index(prefix, 4), 1:] = np.log(probabilities)
        script[0, prefix_index(prefix, 4), pad] = -np.inf
    result = run_search(script, BeamSearch(2, length_penalty), max_length=3)
    assert array(result.token_ids)[0].tolist() == [[end, pad, pad], [pad] * 3]
    assert_close(result.log_probs[0], np.array([np.log(0.4), -np.inf]))


# Numbers of beams and length penalties, each for 50 random models.
OPTIONS = [(n, p) for n in (2, 3) for p in (0, 0.6, 1, 1.7)] + [(2, -0.7), (5, 1)]


def models(seed):
    """Return tables of different spreads, half with a likely end, `(50, P, V)`."""
    script = random_script(rows=50, seed=seed)
    script *= np.linspace(0.4, 1.4, 50)[:, None, None]
    script[::2, :, END] += 1.5
    return script


@pytest.mark.parametrize("num_beams, length_penalty", OPTIONS)
def test_beam_search_equals_two_pools_in_plain_loops(num_beams, length_penalty):
    script = models(seed=num_beams)
    result = run_search(script, BeamSearch(num_beams, length_penalty))
    for row, table in enumerate(script):
        assert_row_equals(
            result, row, two_pools(table, num_beams, power(length_penalty))
        )


def test_two_pools_are_rarely_worse_than_one():
    worse, better = [], []
    for num_beams, length_penalty in OPTIONS:
        penalty = power(length_penalty)
        for table in models(seed=num_beams):
            (tokens, _, score), *_ = two_pools(table, num_beams, penalty)
            (others, lower), *_ = one_pool(table, num_beams, penalty)
            gain = score / penalty(len(tokens)) - lower / penalty(len(others))
            worse += [length_penalty] * int(gain < -1e-9)
            better += [length_penalty] * int(gain > 1e-9)
    # Without a positive penalty a longer hypothesis cannot outrank its prefix, so two
    # pools are never worse. With a positive penalty they can be, by chance.
    assert all(length_penalty > 0 for length_penalty in worse)
    assert len(worse) * 20 < len(better)
