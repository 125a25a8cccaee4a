"""The laws of all searches, on models that hypothesis makes up.

Axes in shape comments: B batch, K beams, P prefixes, V vocabulary.
"""

import functools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from kseq.decoding import BeamSearch, Generation, GreedySearch, NoRepeatNGrams, Sampling
from tests.decoding.custom_search import EpsilonGreedy
from tests.decoding.scripts import (
    END,
    PAD,
    PENALTIES,
    VOCABULARY_SIZE,
    begins,
    brute_force,
    log_softmax,
    number_of,
    one_pool,
    places,
    power,
    two_pools,
)
from tests.helpers import array, assert_close, compiled

ROWS, LENGTH = 3, 4
NUM_PREFIXES = sum(VOCABULARY_SIZE**n for n in range(LENGTH))
EVERY = sum(3**n for n in range(LENGTH)) + 3**LENGTH  # ended, and cut off
RULES = [NoRepeatNGrams(2)]
BEAMS = {
    "plain": BeamSearch(3),
    "long": BeamSearch(2, 1.5),
    "short": BeamSearch(4, -0.5, length_penalty_form="gnmt"),
    "one result": BeamSearch(3, 0.8, num_results=1),
}
SEARCHES = {
    **BEAMS,
    "greedy": GreedySearch(),
    "early": BeamSearch(4, 1.0, early_stopping=True),
    "groups": BeamSearch(4, 0.6, num_groups=2),
    "rules": BeamSearch(3, 0.6, constraints=RULES),
    "draws": Sampling(0.9, top_k=3, num_draws=3, seed=5),
    "own": EpsilonGreedy(0.4, seed=5),
}


@st.composite
def scripts(draw):
    """Logits `(B, P, V)`: of any spread, with ties, impossible words, any padding."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([0.0, 0.5, 2.0, 6.0]))
    logits = random.normal(0, 1, (ROWS, NUM_PREFIXES, VOCABULARY_SIZE)) * spread
    logits[..., END] += draw(st.floats(-4, 4))
    logits[..., PAD] += draw(st.floats(-4, 8))
    holes = random.random(logits.shape) < draw(st.sampled_from([0, 0, 0.3, 0.8]))
    holes[..., PAD] = False
    return np.where(holes, -np.inf, logits).astype("float32")


limits = st.lists(st.integers(1, LENGTH), min_size=ROWS, max_size=ROWS)
firsts, seconds = st.sampled_from([PAD, 2, 3, 4]), st.sampled_from([PAD, END, 2, 3])
prefixes = st.lists(st.tuples(firsts, seconds), min_size=ROWS, max_size=ROWS)
any_search = st.sampled_from(sorted(SEARCHES))


@functools.cache
def compiled_search(how):
    """The search as a function of all that hypothesis draws, compiled once."""

    def step(token_ids, state, constants):
        state = ops.where(state < 0, 0, state * VOCABULARY_SIZE + token_ids + 1)
        places = ops.minimum(state, NUM_PREFIXES - 1)  # where one has ended
        return ops.take_along_axis(constants, places[..., None], axis=1), state

    def run(script, prefix, max_lengths, row_seeds):
        more = {"row_seeds": row_seeds} if how.is_random else {}
        state = ops.full((ROWS, how.num_beams), -1, dtype="int32")
        start = np.full(ROWS, 3)
        more = {**more, "prefix": prefix, "max_lengths": max_lengths}
        return vars(how(step, state, script, start, END, LENGTH, **more))

    return compiled(run)


def search(how, script, prefix=None, max_lengths=None, row_seeds=None):
    prefix = np.full((ROWS, 2), PAD) if prefix is None else prefix
    max_lengths = np.full(ROWS, LENGTH) if max_lengths is None else max_lengths
    row_seeds = np.arange(ROWS) if row_seeds is None else row_seeds
    numbers = [np.array(x, "int32") for x in (prefix, max_lengths, row_seeds)]
    result = compiled_search(how)(*map(ops.convert_to_tensor, [script, *numbers]))
    result = {k: array(v) for k, v in result.items() if v is not None}
    return Generation(**result)


def hypotheses(result, row):
    """The tokens of those that exist, as tuples."""
    lengths = result.lengths[row]
    found = zip(result.token_ids[row].tolist(), lengths, strict=True)
    return [tuple(tokens[:length]) for tokens, length in found if length]


def rank(log_prob, length, penalty):
    return log_prob / penalty(max(length, 1))


@given(scripts(), prefixes, limits, st.sampled_from([("power", 0), ("gnmt", 1.3)]))
def test_enough_beams_find_every_sequence_in_order(script, prefix, limit, ranking):
    form, length_penalty = ranking
    how = BeamSearch(EVERY, length_penalty, length_penalty_form=form)
    penalty = PENALTIES[form](length_penalty)
    result = search(how, script, prefix, limit)
    for row, table in enumerate(script):
        expected = brute_force(
            table,
            penalty,
            limit[row],
            may_write=begins(prefix[row]),
            forced=places(prefix[row]),
        )
        expected = {tuple(x): score for x, _, score in expected if score > -np.inf}
        found = hypotheses(result, row)
        assert len(found) == len(set(found)) and set(found) == set(expected)
        chosen = [len(set(range(len(x))) - places(prefix[row])) for x in found]
        ranks = [
            rank(expected[x], n, penalty) for x, n in zip(found, chosen, strict=True)
        ]
        assert_close(np.array(ranks), np.sort(ranks)[::-1])


@given(scripts(), prefixes, limits, st.sampled_from([0, 1.5, -0.5]), st.booleans())
def test_one_beam_is_greedy_search(script, prefix, limit, length_penalty, has_rules):
    rules = RULES if has_rules else []
    beam = search(
        BeamSearch(1, length_penalty, constraints=rules), script, prefix, limit
    )
    greedy = search(GreedySearch(rules), script, prefix, limit)
    np.testing.assert_array_equal(beam.token_ids, greedy.token_ids)
    assert_close(beam.log_probs, greedy.log_probs)


@given(scripts(), prefixes, limits, any_search)
def test_what_is_reported_is_what_the_model_gives(script, prefix, limit, name):
    result = search(SEARCHES[name], script, prefix, limit)
    for row, table in enumerate(script):
        for place in range(result.lengths.shape[1]):
            length, written = result.lengths[row, place], result.token_ids[row, place]
            written = written[:length].tolist()
            gained = [
                log_softmax(table[number_of(written[:n])])[token]
                for n, token in enumerate(written)
            ]
            reported = result.token_log_probs[row, place]
            assert_close(reported[:length], np.array(gained))
            expected = sum(gained) if length else -np.inf
            assert_close(result.log_probs[row, place], np.array(expected))
            assert result.ended[row, place] == (END in written)
            assert PAD not in written and END not in written[:-1]
            assert not result.token_ids[row, place, length:].any()


@given(scripts(), prefixes, limits, any_search, st.integers(0, ROWS - 1))
def test_a_row_does_not_see_its_neighbours(script, prefix, limit, name, row):
    how, others = SEARCHES[name], [row] * ROWS
    batch = search(how, script, prefix, limit)
    prefix, limit = np.array(prefix)[others], np.array(limit)[others]
    alone = search(how, script[others], prefix, limit, others)
    np.testing.assert_array_equal(alone.token_ids[0], batch.token_ids[row])
    # A sum of vector instructions may round differently at another place of a row.
    assert_close(alone.log_probs[0], batch.log_probs[row], rtol=1e-6, atol=1e-6)


@given(scripts(), st.sampled_from(sorted(BEAMS)))
def test_nothing_found_is_lost(script, name):
    how = BEAMS[name]
    penalty = PENALTIES[how.length_penalty_form](how.length_penalty)
    result = search(how, script)
    for row, table in enumerate(script):
        expected = two_pools(table, how.num_beams, penalty, max_length=LENGTH)
        expected = [rank(s, len(x), penalty) for x, _, s in expected][: how.num_results]
        ranks = [
            rank(log_prob, length, penalty)
            for log_prob, length in zip(
                result.log_probs[row], result.lengths[row], strict=True
            )
            if length
        ]
        words = table[:, 2:]
        if np.ptp(words[np.isfinite(words)]) > 0.1:  # without ties all is decided
            assert_close(np.array(ranks), np.array(expected))
        assert (np.diff(ranks) <= 1e-6).all()


@given(scripts(), st.integers(2, 5), st.sampled_from([0, -0.5]))
def test_the_best_is_no_worse_than_where_what_has_ended_holds_a_beam(
    script, num_beams, length_penalty
):
    penalty = power(length_penalty)
    for table in script:
        found = two_pools(table, num_beams, penalty, max_length=LENGTH)
        best = max([rank(s, len(x), penalty) for x, _, s in found], default=-np.inf)
        x, score = one_pool(table, num_beams, penalty, max_length=LENGTH)[0]
        assert best >= rank(score, len(x), penalty) - 1e-6


@given(scripts(), st.lists(st.integers(0, 2**31 - 1), min_size=ROWS, max_size=ROWS))
def test_the_same_seed_gives_the_same_draw(script, seeds):
    how = SEARCHES["draws"]
    first, again = (search(how, script, row_seeds=seeds) for _ in range(2))
    np.testing.assert_array_equal(first.token_ids, again.token_ids)
    turned = search(how, script[::-1], row_seeds=seeds[::-1])
    np.testing.assert_array_equal(first.token_ids, turned.token_ids[::-1])
