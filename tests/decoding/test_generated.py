"""Greedy search with generated rules and prefixes, compared with plain loops.

Axes in shape comments: B batch, V vocabulary.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kseq.decoding import (
    AllowedSequences,
    BannedSequences,
    BannedTokens,
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
    PAD,
    VOCABULARY_SIZE,
    assert_row_equals,
    log_softmax,
    random_script,
)
from tests.helpers import array, without_jit

ROWS = 3
words = st.integers(2, VOCABULARY_SIZE - 1)
tokens = st.integers(END, VOCABULARY_SIZE - 1)
sequences = st.lists(st.lists(tokens, min_size=1, max_size=4), min_size=1, max_size=4)


def rule(constraint, values, follows):
    """Return a strategy for a constraint and a function that tells what it allows."""
    return values.map(lambda x: (constraint(x), lambda y, v: follows(x, y, v)))


def ngrams(written, n):
    return [tuple(written[i : i + n]) for i in range(len(written) - n + 1)]


def obeys_forced(forced, written, token):
    last = max(i for i, x in enumerate(forced) if x is not None)
    if len(written) > last:
        return True
    due = forced[len(written)]
    return token != END if due is None else token == due


def is_within(names, written, token):
    ends = [[*x[: x.index(END)], END] if END in x else [*x, END] for x in names]
    longer = [*written, token]
    return any(name[: len(longer)] == longer for name in ends)


RULES = st.one_of(
    rule(MinimumLength, st.integers(1, 6), lambda x, y, v: v != END or len(y) + 1 >= x),
    rule(MaximumLength, st.integers(1, 6), lambda x, y, v: v == END or len(y) + 1 < x),
    rule(
        BannedTokens,
        st.lists(tokens, min_size=1, max_size=2),
        lambda x, y, v: v not in x,
    ),
    rule(
        ForcedTokens,
        st.lists(st.none() | tokens, min_size=1, max_size=6).filter(any),
        obeys_forced,
    ),
    rule(
        NoRepeatNGrams,
        st.integers(1, 4),
        lambda x, y, v: (*y[len(y) - x + 1 :], v) not in ngrams(y, x),
    ),
    rule(
        BannedSequences,
        sequences,
        lambda x, y, v: not any([*y, v][-len(s) :] == s for s in x),
    ),
    rule(AllowedSequences, sequences, is_within),
)
prefixes = st.lists(
    st.lists(st.sampled_from([PAD, 2, 3, 4]), min_size=LENGTH, max_size=LENGTH),
    min_size=ROWS,
    max_size=ROWS,
)


def greedy_search_in_loops(table, prefix, rules, penalty):
    """Return the result of greedy search for one row, or None if nothing is allowed."""
    number, written, token_log_probs = 0, [], []
    while END not in written and len(written) < LENGTH:
        given = prefix[len(written)]
        is_later = any(prefix[len(written) + 1 :])
        logits = table[number].copy()
        follows = log_softmax(logits)
        for token in set(written):
            logits[token] *= 1 / penalty if logits[token] > 0 else penalty
        allowed = [
            v
            for v in range(1, VOCABULARY_SIZE)
            if all(follow(written, v) for follow in rules)
            and not (v == END and is_later)
        ]
        allowed = [given] if given != PAD else allowed
        if not allowed:
            return None
        best = max(allowed, key=lambda v: logits[v])
        number = number * VOCABULARY_SIZE + best + 1
        written, token_log_probs = [*written, best], [*token_log_probs, follows[best]]
    return written, token_log_probs, None


@given(
    rules=st.lists(RULES, max_size=3),
    prefix=prefixes,
    penalty=st.sampled_from([1.0, 1.7, 50.0, 0.5]),
    seed=st.integers(0, 999),
)
def test_greedy_search_obeys_rules_and_prefix(rules, prefix, penalty, seed):
    script = random_script(ROWS, seed)
    constraints = [RepetitionPenalty(penalty), *(constraint for constraint, _ in rules)]
    follow = [follow for _, follow in rules]
    result = run_eagerly(script, GreedySearch(constraints), prefix)
    for row, table in enumerate(script):
        expected = greedy_search_in_loops(table, prefix[row], follow, penalty)
        if expected is not None:
            assert_row_equals(result, row, [expected])
        else:
            assert array(result.lengths)[row, 0] == 0
            assert array(result.log_probs)[row, 0] == -np.inf


def run_eagerly(script, search, prefix):
    """Run the search over a script without compilation, which each rule would need."""
    rows = np.arange(len(script))[:, None]

    def step(token_ids, numbers, constants):
        numbers, token_ids = array(numbers), array(token_ids)
        numbers = np.where(numbers < 0, 0, numbers * VOCABULARY_SIZE + token_ids + 1)
        known = np.minimum(numbers, script.shape[1] - 1)
        return script[rows, known].astype("float32"), numbers.astype("int32")

    with without_jit():
        state = np.full((len(script), 1), -1, "int32")
        start = [3] * len(script)
        return search(step, state, (), start, END, LENGTH, prefix=prefix)
