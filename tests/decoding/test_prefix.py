"""Prefixes of each row, compared with brute force."""

import itertools

import numpy as np
import pytest

from kseq.decoding import (
    AllowedSequences,
    BannedTokens,
    BeamSearch,
    ForcedTokens,
    GreedySearch,
    NoRepeatNGrams,
)
from tests.decoding.scripts import (
    END,
    LENGTH,
    NUM_SEQUENCES,
    PAD,
    PENALTIES,
    VOCABULARY_SIZE,
    assert_row_equals,
    assert_same,
    begins_with,
    brute_force,
    forced_positions,
    log_softmax,
    power,
    prefix_index,
    random_script,
    run_search,
)
from tests.helpers import array, assert_close

PREFIXES = [[], [3], [2, 2, 4], [4, END], [2, 3, 3, 4, 2], [4, PAD, 3]]


def padded(length):
    rows = [(row + [PAD] * length)[:length] for row in PREFIXES]
    return np.array(rows, "int32")


def after_token(script, first):
    """Return the script of all prefixes that begin with this token."""
    words = range(VOCABULARY_SIZE)
    prefixes = (p for n in range(LENGTH) for p in itertools.product(words, repeat=n))
    return script[:, [prefix_index([first, *prefix]) for prefix in prefixes]]


@pytest.mark.parametrize("length_penalty", [0, 1.3])
@pytest.mark.parametrize("length", [5, 9])
def test_enough_beams_find_all_sequences_with_the_prefix(length_penalty, length):
    script = random_script(rows=6, seed=20)
    search = BeamSearch(NUM_SEQUENCES, length_penalty)
    result = run_search(script, search, prefix=padded(length))
    for row, table in enumerate(script):
        expected = brute_force(
            table,
            power(length_penalty),
            is_allowed=begins_with(PREFIXES[row]),
            forced=forced_positions(PREFIXES[row]),
        )
        assert_row_equals(result, row, expected)


@pytest.mark.parametrize("form, length_penalty", [("power", 1.3), ("gnmt", -0.7)])
def test_forced_tokens_do_not_count_in_the_ranking(form, length_penalty):
    """A prefix, `ForcedTokens`, or both force the token of a position."""
    script = random_script(rows=4, seed=24)
    prefixes = [[], [3], [2, PAD, 4], [PAD, 4]]
    prefix = np.array([(row + [PAD] * 3)[:3] for row in prefixes], "int32")
    forced = [PAD, 4, PAD, 2]
    options = {"length_penalty_form": form}
    options["constraints"] = [ForcedTokens([None, 4, None, 2])]
    search = BeamSearch(NUM_SEQUENCES, length_penalty, **options)
    result = run_search(script, search, prefix=prefix)
    for row, table in enumerate(script):
        tokens = [x or y for x, y in itertools.zip_longest(prefixes[row], forced)]
        fits = begins_with([x or PAD for x in tokens])
        expected = brute_force(
            table,
            PENALTIES[form](length_penalty),
            is_allowed=lambda x, fits=fits: fits(x) and END not in x[:4],
            forced=forced_positions([x or PAD for x in tokens]),
        )
        assert len(expected) > 3
        assert_row_equals(result, row, expected)


@pytest.mark.parametrize("num_groups", [1, 2])
@pytest.mark.parametrize("options", [{}, {"num_results": 2}, {"early_stopping": True}])
def test_an_improbable_prefix_does_not_change_the_continuation(num_groups, options):
    """The cost of the prefix does not favour longer outputs."""
    script = random_script(rows=9, seed=25, length=LENGTH + 1)
    script[:, 0, 3] -= 30.0
    search = BeamSearch(4, 1.0, num_groups=num_groups, **options)
    options = {"max_length": LENGTH + 1, "prefix": np.full((9, 1), 3)}
    result = run_search(script, search, **options)
    alone = run_search(after_token(script, 3), search)
    assert (array(result.token_ids)[..., 0] == 3).all()
    np.testing.assert_array_equal(
        array(result.token_ids)[..., 1:], array(alone.token_ids)
    )
    cost = log_softmax(script[:, 0])[:, 3]  # part of the reported values
    assert (cost < -20).all()
    assert_close(result.log_probs, array(alone.log_probs) + cost[:, None])
    first = array(result.token_log_probs)[..., 0]
    assert_close(first, cost[:, None] + 0 * first)


def test_one_beam_equals_greedy_search():
    script = random_script(rows=6, seed=21)
    greedy = run_search(script, GreedySearch(), prefix=padded(5))
    assert_same(run_search(script, BeamSearch(1, 0.6), prefix=padded(5)), greedy)
    for row in range(6):
        assert begins_with(PREFIXES[row])(array(greedy.token_ids)[row, 0].tolist())


def test_a_prefix_of_padding_changes_nothing():
    script = random_script(rows=3, seed=22)
    nothing = np.full((3, 2), PAD)
    plain = run_search(script, BeamSearch(3))
    assert_same(run_search(script, BeamSearch(3), prefix=nothing), plain)


def test_constraints_apply_after_the_prefix():
    script = random_script(rows=3, seed=23)
    prefix = np.array([[2, 2], [3, 2], [3, 3]], "int32")
    constraints = [BannedTokens([2, END]), NoRepeatNGrams(1)]
    search = BeamSearch(NUM_SEQUENCES, constraints=constraints)
    result = run_search(script, search, prefix=prefix)
    for row, table in enumerate(script):
        first = prefix[row].tolist()

        def is_allowed(x, first=first):
            new = x[2:]
            is_fresh = len(set(new)) == len(new) and not set(new) & {*first, 2, END}
            return begins_with(first)(x) and is_fresh

        expected = brute_force(
            table, power(0), is_allowed=is_allowed, max_length=LENGTH
        )
        assert all(len(x[0]) == LENGTH for x in expected)
        result_row = array(result.lengths)[row]
        assert (result_row > 0).sum() == len(expected)
        if expected:
            assert_row_equals(result, row, expected)


def test_a_prefix_outside_the_allowed_sequences_gives_no_hypothesis():
    search = GreedySearch([AllowedSequences([[2, 3], [3, 2]])])
    prefix = np.array([[2, 2], [2, PAD], [2, 3]], "int32")
    result = run_search(random_script(rows=3), search, prefix=prefix)
    assert array(result.lengths)[:, 0].tolist() == [0, 3, 3]
