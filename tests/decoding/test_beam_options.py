"""Penalties, early ends and groups of beam search, beside searches in plain loops.

Axes in shape comments: B batch, K beams, N hypotheses, V vocabulary.
"""

import numpy as np
import pytest
from keras import ops

from kseq.decoding import BeamSearch, GreedySearch, NoRepeatNGrams
from tests.decoding.scripts import (
    ALL_SEQUENCES,
    END,
    LENGTH,
    PAD,
    PENALTIES,
    assert_is,
    assert_same,
    brute_force,
    power,
    random_script,
    search,
    two_pools,
)
from tests.helpers import array, assert_close, without_jit

each_form = pytest.mark.parametrize("form", PENALTIES)


@each_form
@pytest.mark.parametrize("length_penalty", [0, 0.6, 1, 2.5, -0.7])
def test_enough_beams_rank_every_sequence_by_the_penalty(form, length_penalty):
    script = random_script(rows=3, seed=40)
    how = BeamSearch(ALL_SEQUENCES, length_penalty, length_penalty_form=form)
    result = search(script, how)
    for row, table in enumerate(script):
        assert_is(result, row, brute_force(table, PENALTIES[form](length_penalty)))


def test_the_forms_differ():
    script = random_script(rows=9, seed=41)
    first = search(script, BeamSearch(5, 1.0))
    second = search(script, BeamSearch(5, 1.0, length_penalty_form="gnmt"))
    assert (array(first.token_ids) != array(second.token_ids)).any()


# Groups -----------------------------------------------------------------------------


@pytest.mark.parametrize("num_groups, num_beams", [(2, 2), (2, 6), (3, 6), (4, 4)])
@pytest.mark.parametrize("strength", [0.5, 3.0])
@pytest.mark.parametrize("form, length_penalty", [("power", 0), ("gnmt", 0.8)])
def test_groups_are_searched_one_after_the_other(
    num_groups, num_beams, strength, form, length_penalty
):
    script = random_script(rows=7, seed=42)
    options = {"num_groups": num_groups, "diversity_strength": strength}
    options["length_penalty_form"] = form
    result = search(script, BeamSearch(num_beams, length_penalty, **options))
    penalty = PENALTIES[form](length_penalty)
    for row, table in enumerate(script):
        expected = two_pools(table, num_beams, penalty, strength, num_groups)
        assert_is(result, row, expected)


def test_one_group_is_beam_search():
    script = random_script(rows=5, seed=43)
    plain = search(script, BeamSearch(4, 0.6))
    how = BeamSearch(4, 0.6, num_groups=1, diversity_strength=9.0)
    assert_same(search(script, how), plain)
    for row, table in enumerate(script):  # the loop above is one, too
        assert_is(plain, row, two_pools(table, 4, power(0.6)))


def test_groups_that_lose_nothing_find_the_same():
    script = random_script(rows=5, seed=44)
    alone = search(script, BeamSearch(2, 0.6))
    how = BeamSearch(6, 0.6, num_groups=3, diversity_strength=0)
    result = search(script, how)
    thrice = np.repeat(array(alone.token_ids), 3, axis=1)
    np.testing.assert_array_equal(array(result.token_ids), thrice)


def test_groups_that_lose_much_begin_differently():
    script = random_script(rows=9, seed=45)
    how = BeamSearch(4, num_groups=4, diversity_strength=99.0)
    result = search(script, how)
    for tokens in array(result.token_ids):
        assert sorted(tokens[:, 0].tolist()) == [1, 2, 3, 4]
    greedy = search(script, GreedySearch())
    for row in range(9):
        found = array(result.token_ids)[row].tolist()
        assert array(greedy.token_ids)[row, 0].tolist() in found


def test_the_best_of_all_groups_are_returned():
    script = random_script(rows=5, seed=46)
    options = {"num_groups": 2, "diversity_strength": 1.0}
    every = search(script, BeamSearch(6, 0.6, **options))
    few = search(script, BeamSearch(6, 0.6, num_results=3, **options))
    assert_close(few.token_ids, every.token_ids[:, :3])
    assert_close(few.log_probs, every.log_probs[:, :3])
    ranks = array(every.log_probs) / array(every.lengths) ** 0.6
    assert (np.diff(ranks, axis=1) <= 1e-6).all()


def test_groups_keep_constraints():
    script = random_script(rows=5, seed=47)
    options = {"num_groups": 2, "constraints": [NoRepeatNGrams(1)]}
    result = search(script, BeamSearch(6, **options))
    for tokens in array(result.token_ids).reshape(-1, LENGTH).tolist():
        written = [token for token in tokens if token != PAD]
        assert written and len(set(written)) == len(written)


def test_padding_may_have_another_number():
    """A frozen hypothesis goes on by word 0, which groups then must not avoid."""
    table = np.random.default_rng(3).normal(0, 1.5, (5, 5)).astype("float32")
    other = np.array([4, 1, 2, 3, 0])  # the words 0 and 4 exchanged
    how = BeamSearch(6, num_groups=3, diversity_strength=2.0)

    def tokens(table, pad):
        def step(token_ids, state, constants):
            return ops.take(table, token_ids, axis=0), state

        return array(how(step, (), (), np.array([2, 3]), END, 6, pad).token_ids)

    expected = tokens(table, 0)
    assert (expected == 4).any() and (expected[:, :, 1] == PAD).any()
    np.testing.assert_array_equal(other[tokens(table[other][:, other], 4)], expected)


# Early ends -------------------------------------------------------------------------


@each_form
@pytest.mark.parametrize("length_penalty", [0, 0.6, 2.5, -0.7])
@pytest.mark.parametrize("num_results", [1, 2, 4])
def test_a_row_that_ends_early_has_lost_nothing(form, length_penalty, num_results):
    script = random_script(rows=60, seed=48)
    options = {"length_penalty": length_penalty, "length_penalty_form": form}
    every = search(script, BeamSearch(5, **options))
    best = search(script, BeamSearch(5, num_results=num_results, **options))
    for name in ("token_ids", "lengths", "log_probs", "token_log_probs"):
        assert_close(getattr(best, name), getattr(every, name)[:, :num_results])


@pytest.mark.parametrize("length_penalty", [0, 0.6, 2.5])
@pytest.mark.parametrize("num_results", [1, 2])
def test_early_stopping_takes_the_first_that_end(length_penalty, num_results):
    script = random_script(rows=60, seed=49)
    options = {"num_results": num_results, "early_stopping": True}
    result = search(script, BeamSearch(4, length_penalty, **options))
    early = {"results": num_results, "is_early": True}
    for row, table in enumerate(script):
        assert_is(result, row, two_pools(table, 4, power(length_penalty), **early))
    patient = search(script, BeamSearch(4, length_penalty, num_results=num_results))
    is_other = (array(result.token_ids) != array(patient.token_ids)).any()
    assert is_other or not length_penalty


@pytest.mark.parametrize(
    "options, calls",
    [
        ({}, 3),  # when the best open one, of .025, is below the second best, of .04
        ({"num_results": 1}, 1),
        ({"num_results": 1, "length_penalty": 2.0}, 9),
        ({"num_results": 1, "length_penalty": 2.0, "early_stopping": True}, 1),
    ],
)
def test_the_loop_stops_when_every_row_is_done(options, calls):
    seen = []
    table = np.log(np.array([[0.05, 0.8, 0.1, 0.05]] * 4, "float32"))

    def step(token_ids, state, constants):
        seen.append(1)
        likes_end = ops.where(token_ids[..., None] == 3, 0.0, -np.inf)  # at the start
        is_end = ops.arange(4) == END
        logits = ops.where(is_end, likes_end, 0.0) + ops.take(table, token_ids, 0)
        return logits, state

    with without_jit():
        BeamSearch(2, **options)(step, (), (), np.array([3, 3]), END, 9)
    assert len(seen) == calls


# Errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value, what",
    [
        ("length_penalty_form", "google", '"power"'),
        ("length_penalty_form", None, '"power"'),
        ("early_stopping", 1, "True or False"),
        ("early_stopping", "never", "True or False"),
        ("num_groups", 0, "a positive integer"),
        ("num_groups", 2.0, "a positive integer"),
        ("diversity_strength", -1, "a number of at least 0"),
        ("diversity_strength", "1", "a number of at least 0"),
    ],
)
def test_an_option_out_of_its_range_is_an_error(name, value, what):
    with pytest.raises(ValueError, match=f"`{name}` must be {what}.*{value!r}"):
        BeamSearch(4, **{name: value})


def test_groups_must_be_of_equal_size():
    with pytest.raises(ValueError, match="`num_groups` must divide.*num_groups=3 with"):
        BeamSearch(4, num_groups=3)
