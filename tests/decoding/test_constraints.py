"""Constraints, compared with brute force over all allowed sequences.

Axes in shape comments: B batch, K beams, V vocabulary.
"""

import numpy as np
import pytest
from keras import ops

from kseq.decoding import (
    AllowedSequences,
    AllowedTokens,
    BannedSequences,
    BannedTokens,
    BeamSearch,
    ForcedTokens,
    GreedySearch,
    MaximumLength,
    MinimumLength,
    NoRepeatNGrams,
    RepetitionPenalty,
)
from tests.decoding.scripts import (
    END,
    LENGTH,
    NUM_SEQUENCES,
    PAD,
    VOCABULARY_SIZE,
    assert_row_equals,
    assert_same,
    brute_force,
    log_softmax,
    power,
    random_script,
    run_search,
)
from tests.helpers import array, assert_close, without_jit


def alternating(token_ids, lengths):
    """Allow even and odd tokens alternately; the end token is odd."""
    words = ops.arange(VOCABULARY_SIZE)
    return words % 2 == lengths[..., None] % 2


def close_neighbours(log_probs, hypotheses):
    """Allow tokens that differ by at most one from the last, as a custom constraint."""
    [last] = hypotheses.recent(1)
    distance = ops.abs(ops.arange(log_probs.shape[-1]) - last[..., None])
    is_first = hypotheses.step == 0
    return ops.where(ops.logical_or(is_first, distance < 2), log_probs, -np.inf)


def ngrams(tokens, n):
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def contains(tokens, *sequences):
    return any(x in ngrams(tokens, len(x)) for x in sequences)


def is_prefix_of_any(tokens, *sequences):
    return any([*x, END][: len(tokens)] == tokens for x in sequences)


NAMES = [[2], [2, 3, 4], [2, 3, 2, 4], [4, 4, 4, 4], [3, 1], [2, 2, 2, 2, 2, 2]]

# Each constraint, and a function that tells whether it allows a sequence.
CONSTRAINTS = {
    "minimum length": (
        [MinimumLength(3)],
        lambda x: END not in x or len(x) >= 3,
    ),
    "maximum length": (
        [MaximumLength(3)],
        lambda x: len(x) < 3 or len(x) == 3 and x[-1] == END,
    ),
    "exact length": (
        [MinimumLength(4), MaximumLength(4)],
        lambda x: (len(x) == 4) == (x[-1] == END) and len(x) <= 4,
    ),
    "banned token": ([BannedTokens([3])], lambda x: 3 not in x),
    "banned end": ([BannedTokens({END, 2})], lambda x: END not in x and 2 not in x),
    "forced tokens": (
        [ForcedTokens([None, 4, None, 2, None])],
        lambda x: x[1:2] in ([], [4]) and x[3:4] in ([], [2]) and END not in x[:4],
    ),
    "forced end": (
        [ForcedTokens([3, None, END])],
        lambda x: x[0] == 3 and (len(x) == 3) == (x[-1] == END) and len(x) <= 3,
    ),
    "allowed tokens": (
        [AllowedTokens(alternating)],
        lambda x: all(token % 2 == i % 2 for i, token in enumerate(x)),
    ),
    "allowed sequences": (
        [AllowedSequences(NAMES)],
        lambda x: is_prefix_of_any(x, [2], *NAMES[1:4], [3], NAMES[5]),
    ),
    "no repeated token": (
        [NoRepeatNGrams(1)],
        lambda x: len(set(x)) == len(x),
    ),
    "no repeated bigram": (
        [NoRepeatNGrams(2)],
        lambda x: len(set(ngrams(x, 2))) == len(ngrams(x, 2)),
    ),
    "no repeated trigram": (
        [NoRepeatNGrams(3)],
        lambda x: len(set(ngrams(x, 3))) == len(ngrams(x, 3)),
    ),
    "n-grams longer than the sequence": ([NoRepeatNGrams(6)], lambda x: True),
    "banned sequences": (
        [BannedSequences([[3, 3], [2, 4, 2], [4, 1], [2, 3, 4, 2, 1], [4, 4]])],
        lambda x: not contains(x, (3, 3), (2, 4, 2), (4, 1), (2, 3, 4, 2, 1), (4, 4)),
    ),
    "banned sequence of one token": (
        [BannedSequences([[3], [4, 2]])],
        lambda x: not contains(x, (3,), (4, 2)),
    ),
    "custom constraint": (
        [close_neighbours],
        lambda x: all(abs(a - b) < 2 for a, b in ngrams(x, 2)),
    ),
    "several constraints": (
        [MinimumLength(3), NoRepeatNGrams(2), BannedSequences([[2, 3], [4, END]])],
        lambda x: (
            (END not in x or len(x) >= 3)
            and len(set(ngrams(x, 2))) == len(ngrams(x, 2))
            and not contains(x, (2, 3), (4, END))
        ),
    ),
}
each_constraint = pytest.mark.parametrize(
    "constraints, is_allowed", CONSTRAINTS.values(), ids=CONSTRAINTS
)


@each_constraint
@pytest.mark.parametrize("length_penalty", [0, 1.3])
def test_enough_beams_find_all_allowed_sequences(
    constraints, is_allowed, length_penalty
):
    script = random_script(rows=3, seed=8)
    search = BeamSearch(NUM_SEQUENCES, length_penalty, constraints=constraints)
    result = run_search(script, search)
    forced = {p for x in constraints for p in getattr(x, "forced_places", ())}
    for row, table in enumerate(script):
        expected = brute_force(
            table, power(length_penalty), is_allowed=is_allowed, forced=forced
        )
        assert 0 < len(expected) <= NUM_SEQUENCES
        assert_row_equals(result, row, expected)


def greedy_search_in_loops(table, is_allowed):
    prefix, tokens, token_log_probs = 0, [], []
    while END not in tokens and len(tokens) < LENGTH:
        follows = log_softmax(table[prefix])
        allowed = [v for v in range(1, VOCABULARY_SIZE) if is_allowed([*tokens, v])]
        if not allowed:
            return None
        best = max(allowed, key=lambda v: follows[v])
        prefix = prefix * VOCABULARY_SIZE + best + 1
        tokens, token_log_probs = [*tokens, best], [*token_log_probs, follows[best]]
    return tokens, token_log_probs, None


@each_constraint
def test_greedy_search_takes_the_best_allowed_token(constraints, is_allowed):
    script = random_script(rows=7, seed=9)
    result = run_search(script, GreedySearch(constraints))
    assert_same(run_search(script, BeamSearch(1, 0.6, constraints=constraints)), result)
    for row, table in enumerate(script):
        expected = greedy_search_in_loops(table, is_allowed)
        if expected is None:
            assert array(result.lengths)[row, 0] == 0
            assert array(result.log_probs)[row, 0] == -np.inf
        else:
            assert_row_equals(result, row, [expected])


def prefix_index(tokens):
    """Return the index of a prefix in a script."""
    prefix = 0
    for token in tokens:
        prefix = prefix * VOCABULARY_SIZE + token + 1
    return prefix


@pytest.mark.parametrize("penalty", [1.7, 0.6])
@pytest.mark.parametrize("length_penalty", [0, 0.6])
@pytest.mark.parametrize("on", ["logits", "log_probs"])
def test_a_repetition_penalty_changes_the_ranking_but_not_log_probs(
    penalty, length_penalty, on
):
    script = random_script(rows=3, seed=10)
    constraints = [RepetitionPenalty(penalty, on)]
    search = BeamSearch(NUM_SEQUENCES, length_penalty, constraints=constraints)
    result = run_search(script, search)
    for row, table in enumerate(script):

        def constrain(tokens, log_probs, table=table):
            is_repeated = np.isin(np.arange(VOCABULARY_SIZE), tokens)
            if on == "log_probs":
                return np.where(is_repeated, log_probs * penalty, log_probs)
            logits = table[prefix_index(tokens)].copy()
            for token in set(tokens):
                positive = logits[token] > 0
                logits[token] *= 1 / penalty if positive else penalty
            return log_softmax(logits)

        expected = brute_force(table, power(length_penalty), constrain=constrain)
        assert_row_equals(result, row, expected)
        plain = brute_force(table, power(length_penalty))
        assert [x[0] for x in expected] != [x[0] for x in plain]


def generated_tokens(constraint, probs, shift):
    """Return the tokens of a model with equal probabilities at each step."""
    table = np.array([np.log(probs) + shift] * len(probs), "float32")
    result = GreedySearch([constraint])(
        lambda token_ids, state, constants: (ops.take(table, token_ids, 0), state),
        *((), (), [0], END, 3),
    )
    assert np.isfinite(array(result.log_probs)).all()
    return array(result.token_ids)[0, 0].tolist()


def test_a_penalty_on_logits_stops_an_almost_certain_token():
    probs = [0.005, 0.005, 0.98, 0.01]
    on_logits = RepetitionPenalty(100.0)
    assert generated_tokens(on_logits, probs, shift=6.0) == [2, 3, 1]
    on_log_probs = RepetitionPenalty(100.0, on="log_probs")
    for shift in (-6.0, 0.0, 6.0):
        assert generated_tokens(on_log_probs, probs, shift) == [2, 2, 2]
    # Without a shift, the logits are log-probabilities.
    assert generated_tokens(on_logits, probs, shift=0.0) == [2, 2, 2]


def test_a_penalty_keeps_impossible_tokens_impossible():
    with np.errstate(divide="ignore"):
        for on in ("logits", "log_probs"):
            written = generated_tokens(
                RepetitionPenalty(9.0, on), [0, 0, 0.9, 0.1], 6.0
            )
            assert set(written) <= {2, 3}
    banned = [BannedTokens([3]), RepetitionPenalty(9.0), BannedTokens([4])]
    result = run_search(random_script(rows=3), BeamSearch(3, constraints=banned))
    assert not np.isin(array(result.token_ids), [3, 4]).any()


def test_the_order_of_penalties_and_bans_does_not_matter():
    script = random_script(rows=3, seed=14)
    rules = [RepetitionPenalty(1.9), BannedTokens([3]), NoRepeatNGrams(2)]
    one, other = (BeamSearch(4, 0.6, constraints=x) for x in (rules, rules[::-1]))
    assert_same(run_search(script, one), run_search(script, other))


@pytest.mark.parametrize("on", ["probs", None, 1])
def test_a_penalty_must_be_on_logits_or_log_probs(on):
    with pytest.raises(ValueError, match=f'`on` must be "logits".*on={on!r}'):
        RepetitionPenalty(1.2, on)


def test_constraints_without_effect_change_nothing():
    script = random_script(rows=3, seed=11)
    nothing = [MinimumLength(1), NoRepeatNGrams(9), RepetitionPenalty(1.0)]
    plain = run_search(script, BeamSearch(5, 0.6))
    assert_same(run_search(script, BeamSearch(5, 0.6, constraints=nothing)), plain)


@pytest.mark.parametrize(
    "search",
    [
        GreedySearch([BannedTokens([END, 2, 3, 4])]),
        BeamSearch(3, 0.6, constraints=[BannedTokens([END, 2, 3, 4])]),
        BeamSearch(3, constraints=[ForcedTokens([2]), BannedTokens([2])]),
    ],
)
def test_a_hypothesis_without_allowed_tokens_is_empty(search):
    result = run_search(random_script(rows=2), search)
    assert (array(result.token_ids) == PAD).all()
    assert (array(result.lengths) == 0).all()
    assert (array(result.token_log_probs) == 0).all()
    assert (array(result.log_probs) == -np.inf).all()


def test_a_constraint_cannot_allow_padding():
    def anything(log_probs, hypotheses):
        return ops.zeros_like(log_probs)

    table = np.log(np.array([[0.9, 0.05, 0.04, 0.01]] * 4, "float32"))
    result = GreedySearch([anything])(
        lambda token_ids, state, constants: (ops.take(table, token_ids, 0), state),
        *((), (), [2], END, 3),
    )
    assert (array(result.token_ids) != PAD).sum() == array(result.lengths).sum() > 0
    assert np.isfinite(array(result.log_probs)).all()


def test_a_custom_constraint_sees_the_generated_tokens():
    seen = []

    def record(log_probs, hypotheses):
        seen.append(
            [hypotheses.token_ids, hypotheses.lengths, hypotheses.recent(2)]
            + [hypotheses.step, hypotheses.is_written, hypotheses.finished]
        )
        logits = array(hypotheses.logits)
        assert_close(log_softmax(logits)[..., 1:], array(log_probs)[..., 1:])
        return log_probs

    table = np.log(np.array([[0.1, 0.1, 0.1, 0.7], [0.25] * 4, [0.1, 0.7, 0.1, 0.1],
                             [0.1, 0.1, 0.7, 0.1]], "float32"))  # fmt: skip
    table += 3  # logits, not log-probabilities
    with without_jit():
        GreedySearch([record])(
            lambda token_ids, state, constants: (ops.take(table, token_ids, 0), state),
            *((), (), np.array([0, 2]), END, 4),
        )
    assert len(seen) == 3
    token_ids, lengths, recent, step, is_written, finished = seen[2]
    assert array(token_ids)[:, 0].tolist() == [[3, 2, 0, 0], [1, 0, 0, 0]]
    assert array(lengths)[:, 0].tolist() == [2, 1]
    assert array(finished)[:, 0].tolist() == [False, True]
    assert array(step) == 2 and array(is_written).tolist() == [True, True, False, False]
    assert [array(x)[0, 0] for x in recent] == [3, 2]
    assert [array(x)[0, 0] for x in seen[1][2]] == [-1, 3]


def test_equal_constraints_have_equal_hashes():
    pairs = [
        (BannedTokens([3, 4]), BannedTokens(np.array([3, 4]))),
        (ForcedTokens([3, None, None]), ForcedTokens((3,))),
        (BannedSequences([[3]]), BannedSequences(((3,),))),
        (AllowedSequences([[3, 4], [2]]), AllowedSequences(((3, 4), (2,)))),
        (GreedySearch([MinimumLength(2)]), GreedySearch((MinimumLength(2),))),
    ]
    for one, other in pairs:
        assert one == other and hash(one) == hash(other)
    assert BeamSearch(3, constraints=[NoRepeatNGrams(2)]) != BeamSearch(3)


def test_a_search_obeys_many_allowed_sequences():
    random = np.random.default_rng(5)
    names = random.integers(2, 97, (500, 3)).tolist()
    table = random.normal(size=(97, 97)).astype("float32")
    search = BeamSearch(4, constraints=[AllowedSequences(names)])
    result = search(
        lambda token_ids, state, constants: (ops.take(table, token_ids, 0), state),
        *((), (), np.array([2, 3, 5]), END, 4),
    )
    scores = log_softmax(table)
    for row, start in enumerate([2, 3, 5]):
        sums = [
            sum(scores[a, b] for a, b in ngrams([start, *name, END], 2))
            for name in map(list, set(map(tuple, names)))
        ]
        assert array(result.log_probs)[row, 0] <= max(sums) + 1e-4
        for tokens in array(result.token_ids)[row].tolist():
            assert tokens[:3] in names and tokens[3] == END
    assert_close(result.lengths, np.full((3, 4), 4))


# Errors -----------------------------------------------------------------------------


@pytest.mark.parametrize("constraint", [MinimumLength, MaximumLength, NoRepeatNGrams])
@pytest.mark.parametrize("number", [0, -1, 2.0, "3", None, True])
def test_a_length_must_be_a_positive_integer(constraint, number):
    with pytest.raises(ValueError, match=f"must be a positive integer.*{number!r}"):
        constraint(number)


@pytest.mark.parametrize("token_ids", [[], 3, "34", [3, -1], [2.5], None, [True]])
def test_banned_tokens_must_be_token_ids(token_ids):
    with pytest.raises(ValueError, match="`token_ids` must be token ids.*Received"):
        BannedTokens(token_ids)


@pytest.mark.parametrize("token_ids", [[], [None], 3, "34", [3, -1], None, [2.5]])
def test_forced_tokens_must_be_token_ids_or_none(token_ids):
    with pytest.raises(
        ValueError, match="`token_ids` must be a list that holds.*Received"
    ):
        ForcedTokens(token_ids)


@pytest.mark.parametrize("constraint", [BannedSequences, AllowedSequences])
@pytest.mark.parametrize("sequences", [[], [[]], [3, 4], "ab", [[3], [-1]], None])
def test_sequences_must_be_lists_of_token_ids(constraint, sequences):
    with pytest.raises(ValueError, match="`sequences` must be lists of.*Received"):
        constraint(sequences)


@pytest.mark.parametrize("penalty", [0, -1.2, "1.2", None, float("inf")])
def test_a_repetition_penalty_must_be_positive(penalty):
    with pytest.raises(ValueError, match="`penalty` must be a positive number.*Rec"):
        RepetitionPenalty(penalty)


@pytest.mark.parametrize("function", [None, [[3]], MinimumLength])
def test_allowed_tokens_require_a_function(function):
    with pytest.raises(ValueError, match="`function` must be a function.*Received"):
        AllowedTokens(function)


@pytest.mark.parametrize(
    "constraint",
    [
        BannedTokens([5]),
        ForcedTokens([None, 7]),
        BannedSequences([[2], [3, 5]]),
        AllowedSequences([[2], [3, 5]]),
    ],
)
def test_rejects_tokens_outside_the_vocabulary(constraint):
    with pytest.raises(
        ValueError, match=r"which are below 5. Received: token [57] in [A-Z]\w+\("
    ):
        run_search(random_script(rows=1), GreedySearch([constraint]))


@pytest.mark.parametrize(
    "constraints", [MinimumLength(3), None, 3, [3], "ab", [MinimumLength]]
)
@pytest.mark.parametrize("search", [GreedySearch, BeamSearch])
def test_constraints_must_be_functions(search, constraints):
    with pytest.raises(ValueError, match="`constraints` must be a list.*Received"):
        search(constraints=constraints)


def test_a_constraint_must_be_hashable():
    class Unhashable:
        __hash__ = None

        def __call__(self, log_probs, hypotheses):
            return log_probs

    with pytest.raises(ValueError, match="must be hashable.*Received.*Unhashable"):
        GreedySearch([Unhashable()])
