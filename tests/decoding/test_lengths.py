"""Maximum lengths of each row, compared with brute force."""

import numpy as np
import pytest

from kseq.decoding import BeamSearch, GreedySearch, RelativeLength, Sampling
from tests.decoding.scripts import (
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
from tests.helpers import array

LIMITS = [2, 5, 1, 4, 3]


@pytest.mark.parametrize("length_penalty", [0, 1.3, -0.7])
def test_enough_beams_find_all_sequences_up_to_the_length_of_each_row(length_penalty):
    script = random_script(rows=5, seed=60)
    search = BeamSearch(NUM_SEQUENCES, length_penalty)
    result = run_search(script, search, max_lengths=np.array(LIMITS))
    for row, limit in enumerate(LIMITS):
        expected = brute_force(script[row], power(length_penalty), limit)
        tokens, lengths = array(result.token_ids[row]), array(result.lengths[row])
        assert (tokens[:, limit:] == PAD).all()
        assert (lengths > 0).sum() == len(expected)
        assert_row_equals(result, row, expected)


SEARCHES = {
    "greedy": GreedySearch(),
    "beams": BeamSearch(3, 0.6),
    "groups": BeamSearch(4, 0.6, num_groups=2),
    "one result": BeamSearch(3, 2.5, num_results=1),
    "sampling": Sampling(2.0, num_draws=3, seed=1),
}


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_a_row_with_its_own_length_equals_the_row_alone(search):
    script = random_script(rows=5, seed=61)
    result = run_search(script, search, max_lengths=np.array(LIMITS))
    for row, limit in enumerate(LIMITS):
        options = {}
        if isinstance(search, Sampling):
            options["row_seeds"] = array(search.row_seeds(5))[row : row + 1]
        alone = run_search(script[row : row + 1], search, max_length=limit, **options)
        rows = {
            name: array(value)[row : row + 1]
            for name, value in vars(result).items()
            if value is not None
        }
        for name in ("token_ids", "token_log_probs"):
            assert (rows[name][..., limit:] == 0).all()
            rows[name] = rows[name][..., :limit]
        assert_same(type(result)(**rows), alone)


def test_maximum_lengths_equal_to_max_length_change_nothing():
    script = random_script(rows=5, seed=62)
    plain = run_search(script, BeamSearch(3))
    assert_same(
        run_search(script, BeamSearch(3), max_lengths=np.full(5, LENGTH)), plain
    )


@pytest.mark.parametrize(
    "factor, extra, lengths",
    [(1, 0, [1, 1, 7]), (0, 5, [5, 5, 5]), (2, 3.5, [3, 5, 17]), (0.3, 0.1, [1, 1, 2])],
)
def test_a_relative_length_is_rounded_down_and_at_least_one(factor, extra, lengths):
    assert [RelativeLength(factor, extra)(n) for n in (0, 1, 7)] == lengths


@pytest.mark.parametrize("wrong", [-1, "2", None, float("inf"), True])
@pytest.mark.parametrize("name", ["factor", "extra"])
def test_rejects_an_invalid_relative_length(name, wrong):
    with pytest.raises(ValueError, match=f"`{name}` must be a non-negative number"):
        RelativeLength(**{name: wrong})


def test_rejects_a_relative_length_of_zero():
    with pytest.raises(ValueError, match="must not both be 0"):
        RelativeLength(0, 0)
