"""What each row must begin with, beside brute force."""

import numpy as np
import pytest

from kseq.decoding import (
    AllowedSequences,
    BannedTokens,
    BeamSearch,
    GreedySearch,
    NoRepeatNGrams,
)
from tests.decoding.scripts import (
    ALL_SEQUENCES,
    END,
    LENGTH,
    PAD,
    assert_is,
    assert_same,
    brute_force,
    power,
    random_script,
    search,
)
from tests.helpers import array

PREFIXES = [[], [3], [2, 2, 4], [4, END], [2, 3, 3, 4, 2], [4, PAD, 3]]


def padded(length):
    rows = [(row + [PAD] * length)[:length] for row in PREFIXES]
    return np.array(rows, "int32")


def begins(prefix):
    pairs = [(i, token) for i, token in enumerate(prefix) if token != PAD]
    last = max((i for i, _ in pairs), default=0)
    return lambda x: (
        END not in x[:last] and all(x[i] == token for i, token in pairs if i < len(x))
    )


@pytest.mark.parametrize("length_penalty", [0, 1.3])
@pytest.mark.parametrize("length", [5, 9])
def test_enough_beams_find_every_sequence_with_the_prefix(length_penalty, length):
    script = random_script(rows=6, seed=20)
    how = BeamSearch(ALL_SEQUENCES, length_penalty)
    result = search(script, how, prefix=padded(length))
    for row, table in enumerate(script):
        may_write = begins(PREFIXES[row])
        expected = brute_force(table, power(length_penalty), may_write=may_write)
        assert_is(result, row, expected)


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
