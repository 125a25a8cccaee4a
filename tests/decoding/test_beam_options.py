"""Penalties, early stopping and groups of beam search, compared with plain loops.

Axes in shape comments: B batch, K beams, N hypotheses, V vocabulary.
"""

import numpy as np
import pytest
from keras import ops

from kseq.decoding import BeamSearch, GreedySearch, NoRepeatNGrams
from tests.decoding.scripts import (
    END,
    LENGTH,
    NUM_SEQUENCES,
    PAD,
    PENALTIES,
    assert_row_equals,
    assert_same,
    brute_force,
    power,
    random_script,
    run_search,
    two_pools,
)
from tests.helpers import array, assert_close, without_jit

each_form = pytest.mark.parametrize("form", PENALTIES)


@each_form
@pytest.mark.parametrize("length_penalty", [0, 0.6, 1, 2.5, -0.7])
def test_enough_beams_rank_all_sequences_by_the_length_penalty(form, length_penalty):
    script = random_script(rows=3, seed=40)
    search = BeamSearch(NUM_SEQUENCES, length_penalty, length_penalty_form=form)
    result = run_search(script, search)
    for row, table in enumerate(script):
        assert_row_equals(
            result, row, brute_force(table, PENALTIES[form](length_penalty))
        )


def test_the_length_penalty_forms_differ():
    script = random_script(rows=9, seed=41)
    first = run_search(script, BeamSearch(5, 1.0))
    second = run_search(script, BeamSearch(5, 1.0, length_penalty_form="gnmt"))
    assert (array(first.token_ids) != array(second.token_ids)).any()


# Groups -----------------------------------------------------------------------------


@pytest.mark.parametrize("num_groups, num_beams", [(2, 2), (2, 6), (3, 6), (4, 4)])
@pytest.mark.parametrize("strength", [0.5, 3.0])
@pytest.mark.parametrize("form, length_penalty", [("power", 0), ("gnmt", 0.8)])
def test_groups_equal_plain_loops(
    num_groups, num_beams, strength, form, length_penalty
):
    script = random_script(rows=7, seed=42)
    options = {"num_groups": num_groups, "diversity_strength": strength}
    options["length_penalty_form"] = form
    result = run_search(script, BeamSearch(num_beams, length_penalty, **options))
    penalty = PENALTIES[form](length_penalty)
    for row, table in enumerate(script):
        expected = two_pools(table, num_beams, penalty, strength, num_groups)
        assert_row_equals(result, row, expected)


def test_one_group_equals_plain_beam_search():
    script = random_script(rows=5, seed=43)
    plain = run_search(script, BeamSearch(4, 0.6))
    search = BeamSearch(4, 0.6, num_groups=1, diversity_strength=9.0)
    assert_same(run_search(script, search), plain)
    for row, table in enumerate(script):  # as do plain loops
        assert_row_equals(plain, row, two_pools(table, 4, power(0.6)))


def test_groups_without_diversity_strength_find_the_same_sequences():
    script = random_script(rows=5, seed=44)
    alone = run_search(script, BeamSearch(2, 0.6))
    search = BeamSearch(6, 0.6, num_groups=3, diversity_strength=0)
    result = run_search(script, search)
    thrice = np.repeat(array(alone.token_ids), 3, axis=1)
    np.testing.assert_array_equal(array(result.token_ids), thrice)


def test_groups_with_high_diversity_strength_begin_differently():
    script = random_script(rows=9, seed=45)
    search = BeamSearch(4, num_groups=4, diversity_strength=99.0)
    result = run_search(script, search)
    for tokens in array(result.token_ids):
        assert sorted(tokens[:, 0].tolist()) == [1, 2, 3, 4]
    greedy = run_search(script, GreedySearch())
    for row in range(9):
        found = array(result.token_ids)[row].tolist()
        assert array(greedy.token_ids)[row, 0].tolist() in found


def test_num_results_returns_the_best_of_all_groups():
    script = random_script(rows=5, seed=46)
    options = {"num_groups": 2, "diversity_strength": 1.0}
    all_results = run_search(script, BeamSearch(6, 0.6, **options))
    few = run_search(script, BeamSearch(6, 0.6, num_results=3, **options))
    assert_close(few.token_ids, all_results.token_ids[:, :3])
    assert_close(few.log_probs, all_results.log_probs[:, :3])
    ranks = array(all_results.log_probs) / array(all_results.lengths) ** 0.6
    assert (np.diff(ranks, axis=1) <= 1e-6).all()


def test_groups_obey_constraints():
    script = random_script(rows=5, seed=47)
    options = {"num_groups": 2, "constraints": [NoRepeatNGrams(1)]}
    result = run_search(script, BeamSearch(6, **options))
    for tokens in array(result.token_ids).reshape(-1, LENGTH).tolist():
        written = [token for token in tokens if token != PAD]
        assert written and len(set(written)) == len(written)


def test_the_padding_token_can_have_another_id():
    """Groups must not avoid padding, which continues ended hypotheses."""
    table = np.random.default_rng(3).normal(0, 1.5, (5, 5)).astype("float32")
    other = np.array([4, 1, 2, 3, 0])  # tokens 0 and 4 exchanged
    search = BeamSearch(6, num_groups=3, diversity_strength=2.0)

    def tokens(table, pad):
        def step(token_ids, state, constants):
            return ops.take(table, token_ids, axis=0), state

        return array(search(step, (), (), np.array([2, 3]), END, 6, pad).token_ids)

    expected = tokens(table, 0)
    assert (expected == 4).any() and (expected[:, :, 1] == PAD).any()
    np.testing.assert_array_equal(other[tokens(table[other][:, other], 4)], expected)


# Early stopping ---------------------------------------------------------------------


@each_form
@pytest.mark.parametrize("length_penalty", [0, 0.6, 2.5, -0.7])
@pytest.mark.parametrize("num_results", [1, 2, 4])
def test_stopping_early_loses_no_result(form, length_penalty, num_results):
    script = random_script(rows=60, seed=48)
    options = {"length_penalty": length_penalty, "length_penalty_form": form}
    all_results = run_search(script, BeamSearch(5, **options))
    best = run_search(script, BeamSearch(5, num_results=num_results, **options))
    for name in ("token_ids", "lengths", "log_probs", "token_log_probs"):
        assert_close(getattr(best, name), getattr(all_results, name)[:, :num_results])


@pytest.mark.parametrize("length_penalty", [0, 0.6, 2.5])
@pytest.mark.parametrize("num_results", [1, 2])
def test_early_stopping_returns_the_first_ended_hypotheses(length_penalty, num_results):
    script = random_script(rows=60, seed=49)
    options = {"num_results": num_results, "early_stopping": True}
    result = run_search(script, BeamSearch(4, length_penalty, **options))
    early = {"results": num_results, "is_early": True}
    for row, table in enumerate(script):
        assert_row_equals(
            result, row, two_pools(table, 4, power(length_penalty), **early)
        )
    patient = run_search(script, BeamSearch(4, length_penalty, num_results=num_results))
    is_other = (array(result.token_ids) != array(patient.token_ids)).any()
    assert is_other or not length_penalty


@pytest.mark.parametrize(
    "options, calls",
    [
        ({}, 3),  # the best open one has .025, the second best ended one .04
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
        end_logits = ops.where(token_ids[..., None] == 3, 0.0, -np.inf)  # at the start
        is_end = ops.arange(4) == END
        logits = ops.where(is_end, end_logits, 0.0) + ops.take(table, token_ids, 0)
        return logits, state

    with without_jit():
        BeamSearch(2, **options)(step, (), (), np.array([3, 3]), END, 9)
    assert len(seen) == calls


# Errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("length_penalty_form", "google", '"power"'),
        ("length_penalty_form", None, '"power"'),
        ("early_stopping", 1, "True or False"),
        ("early_stopping", "never", "True or False"),
        ("num_groups", 0, "a positive integer"),
        ("num_groups", 2.0, "a positive integer"),
        ("diversity_strength", -1, "a non-negative number"),
        ("diversity_strength", "1", "a non-negative number"),
    ],
)
def test_rejects_options_out_of_range(name, value, expected):
    with pytest.raises(ValueError, match=f"`{name}` must be {expected}.*{value!r}"):
        BeamSearch(4, **{name: value})


def test_num_groups_must_divide_num_beams():
    with pytest.raises(ValueError, match="`num_groups` must divide.*num_groups=3 with"):
        BeamSearch(4, num_groups=3)
