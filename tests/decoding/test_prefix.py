"""What each row must begin with, beside brute force."""

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
    ALL_SEQUENCES,
    END,
    LENGTH,
    PAD,
    PENALTIES,
    VOCABULARY_SIZE,
    assert_is,
    assert_same,
    begins,
    brute_force,
    log_softmax,
    number_of,
    places,
    power,
    random_script,
    search,
)
from tests.helpers import array, assert_close

PREFIXES = [[], [3], [2, 2, 4], [4, END], [2, 3, 3, 4, 2], [4, PAD, 3]]


def padded(length):
    rows = [(row + [PAD] * length)[:length] for row in PREFIXES]
    return np.array(rows, "int32")


def behind(script, first):
    """The script of what follows a first token."""
    words = range(VOCABULARY_SIZE)
    prefixes = (p for n in range(LENGTH) for p in itertools.product(words, repeat=n))
    return script[:, [number_of([first, *prefix]) for prefix in prefixes]]


@pytest.mark.parametrize("length_penalty", [0, 1.3])
@pytest.mark.parametrize("length", [5, 9])
def test_enough_beams_find_every_sequence_with_the_prefix(length_penalty, length):
    script = random_script(rows=6, seed=20)
    how = BeamSearch(ALL_SEQUENCES, length_penalty)
    result = search(script, how, prefix=padded(length))
    for row, table in enumerate(script):
        expected = brute_force(
            table,
            power(length_penalty),
            may_write=begins(PREFIXES[row]),
            forced=places(PREFIXES[row]),
        )
        assert_is(result, row, expected)


@pytest.mark.parametrize("form, length_penalty", [("power", 1.3), ("gnmt", -0.7)])
def test_what_is_forced_does_not_count_in_the_rank(form, length_penalty):
    """By a prefix, by `ForcedTokens`, and by both at the same place."""
    script = random_script(rows=4, seed=24)
    prefixes = [[], [3], [2, PAD, 4], [PAD, 4]]
    prefix = np.array([(row + [PAD] * 3)[:3] for row in prefixes], "int32")
    forced = [PAD, 4, PAD, 2]
    options = {"length_penalty_form": form}
    options["constraints"] = [ForcedTokens([None, 4, None, 2])]
    how = BeamSearch(ALL_SEQUENCES, length_penalty, **options)
    result = search(script, how, prefix=prefix)
    for row, table in enumerate(script):
        own = [x or y for x, y in itertools.zip_longest(prefixes[row], forced)]
        fits = begins([x or PAD for x in own])
        expected = brute_force(
            table,
            PENALTIES[form](length_penalty),
            may_write=lambda x, fits=fits: fits(x) and END not in x[:4],
            forced=places([x or PAD for x in own]),
        )
        assert len(expected) > 3
        assert_is(result, row, expected)


@pytest.mark.parametrize("num_groups", [1, 2])
@pytest.mark.parametrize("options", [{}, {"num_results": 2}, {"early_stopping": True}])
def test_an_improbable_prefix_does_not_change_what_follows(num_groups, options):
    """Where nothing needs to dilute its cost, outputs do not become longer."""
    script = random_script(rows=9, seed=25, length=LENGTH + 1)
    script[:, 0, 3] -= 30.0
    how = BeamSearch(4, 1.0, num_groups=num_groups, **options)
    options = {"max_length": LENGTH + 1, "prefix": np.full((9, 1), 3)}
    result = search(script, how, **options)
    alone = search(behind(script, 3), how)
    assert (array(result.token_ids)[..., 0] == 3).all()
    np.testing.assert_array_equal(
        array(result.token_ids)[..., 1:], array(alone.token_ids)
    )
    cost = log_softmax(script[:, 0])[:, 3]  # of which the report tells
    assert (cost < -20).all()
    assert_close(result.log_probs, array(alone.log_probs) + cost[:, None])
    first = array(result.token_log_probs)[..., 0]
    assert_close(first, cost[:, None] + 0 * first)


def test_one_beam_is_greedy_search():
    script = random_script(rows=6, seed=21)
    greedy = search(script, GreedySearch(), prefix=padded(5))
    assert_same(search(script, BeamSearch(1, 0.6), prefix=padded(5)), greedy)
    for row in range(6):
        assert begins(PREFIXES[row])(array(greedy.token_ids)[row, 0].tolist())


def test_a_prefix_that_is_all_padding_is_none():
    script = random_script(rows=3, seed=22)
    nothing = np.full((3, 2), PAD)
    plain = search(script, BeamSearch(3))
    assert_same(search(script, BeamSearch(3), prefix=nothing), plain)


def test_constraints_begin_behind_the_prefix():
    script = random_script(rows=3, seed=23)
    prefix = np.array([[2, 2], [3, 2], [3, 3]], "int32")
    constraints = [BannedTokens([2, END]), NoRepeatNGrams(1)]
    how = BeamSearch(ALL_SEQUENCES, constraints=constraints)
    result = search(script, how, prefix=prefix)
    for row, table in enumerate(script):
        first = prefix[row].tolist()

        def may_write(x, first=first):
            new = x[2:]
            is_fresh = len(set(new)) == len(new) and not set(new) & {*first, 2, END}
            return begins(first)(x) and is_fresh

        expected = brute_force(table, power(0), may_write=may_write, max_length=LENGTH)
        assert all(len(x[0]) == LENGTH for x in expected)
        result_row = array(result.lengths)[row]
        assert (result_row > 0).sum() == len(expected)
        if expected:
            assert_is(result, row, expected)


def test_a_prefix_that_is_none_of_the_allowed_sequences_leaves_nothing():
    how = GreedySearch([AllowedSequences([[2, 3], [3, 2]])])
    prefix = np.array([[2, 2], [2, PAD], [2, 3]], "int32")
    result = search(random_script(rows=3), how, prefix=prefix)
    assert array(result.lengths)[:, 0].tolist() == [0, 3, 3]
