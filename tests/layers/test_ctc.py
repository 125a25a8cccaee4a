"""CTC, compared with brute force over all paths in NumPy, in double precision.

Axes in shape comments: B batch, S steps, T labels of a row, V labels with the blank.
"""

import functools
import itertools

import keras
import numpy as np
import pytest
from keras import ops

from kseq.decoding import (
    AllowedSequences,
    BannedTokens,
    BeamSearch,
    ForcedTokens,
    GreedySearch,
    MaximumLength,
    MinimumLength,
    NoRepeatNGrams,
    Sampling,
)
from kseq.layers import CTC
from tests.helpers import array, assert_close, compiled, gradient, random_array

B, S, U = 6, 5, 4
FEW, MANY = 3, 9  # the loops of many labels are compiled
MASK = np.array(
    [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1],
        [1, 0, 1, 0, 1],
        [1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ],
    "bool",
)
LABELS = np.array(
    [[1, 1, 2], [2, 2, 0], [1, 2, 1], [2, 1, 0], [0, 0, 0], [0, 0, 0]], "int32"
)


def case(size=FEW):
    return CTC(size), 2 * random_array(B, S, size)


# The oracle ---------------------------------------------------------------------------


def collapsed(path):
    """Return the labels of a path, by the definition."""
    runs = [label for label, _ in itertools.groupby(path)]
    return tuple(int(label) for label in runs if label != 0)


def log_softmax(logits):
    logits = logits.astype("float64")
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


@functools.cache
def paths_of(num_steps, size):
    return list(itertools.product(range(size), repeat=num_steps))


def scored_paths(logits):
    """Return every path through `(n, V)` with its log-probability."""
    log_probs, places = log_softmax(logits), np.arange(len(logits))
    return [
        (log_probs[places, list(path)].sum() if path else 0.0, path)
        for path in paths_of(*logits.shape)
    ]


def all_labelings(logits):
    """Return every labeling with its log-probability."""
    rows = {}
    for score, path in scored_paths(logits):
        rows[collapsed(path)] = np.logaddexp(rows.get(collapsed(path), -np.inf), score)
    return rows


def labels_of(labels):
    return tuple(int(label) for label in labels if label != 0)


def expected_log_probs(labels, logits, mask=MASK):
    return np.array(
        [
            all_labelings(x[real]).get(labels_of(row), -np.inf)
            for row, x, real in zip(labels, logits, mask, strict=True)
        ]
    )


# Against the oracle -------------------------------------------------------------------


@pytest.mark.parametrize("graph", [False, True])
def test_the_loss_equals_brute_force_over_all_paths(graph):
    ctc, logits = case()
    loss = ctc.negative_log_likelihood
    loss = compiled(loss) if graph else loss
    found = array(loss(LABELS, logits, MASK))
    assert found[5] == 0, "the empty path has probability 1"
    assert_close(found, -expected_log_probs(LABELS, logits), atol=2e-5)
    unmasked = np.ones_like(MASK)
    expected = -expected_log_probs(LABELS, logits, unmasked)
    assert_close(loss(LABELS, logits), expected, atol=2e-5)


def test_the_loss_without_a_mask_equals_keras():
    ctc, logits = case(MANY)
    labels = np.array(
        [[8, 3, 3], [1, 2, 0], [5, 5, 0], [7, 0, 0], [1, 1, 1], [2, 1, 2]]
    )
    expected = keras.losses.CTC(reduction="none")(labels, ops.array(logits))
    assert_close(ctc.negative_log_likelihood(labels, logits), expected)


def test_the_gradient_is_the_difference_of_expected_and_true_counts():
    ctc, logits = case()
    shares = np.array([1.0, -2.0, 0.5, 3.0, 7.0, 1.0], "float32")

    def total(logits):
        losses = ctc.negative_log_likelihood(LABELS, logits, MASK)
        return ops.sum(losses * ops.array(shares))

    expected = np.zeros(logits.shape)
    for b in range(B - 1):
        steps = np.flatnonzero(MASK[b])
        scored = scored_paths(logits[b][steps])
        right = [x for x in scored if collapsed(x[1]) == labels_of(LABELS[b])]
        for paths, sign in ((scored, 1), (right, -1)):
            whole = np.logaddexp.reduce([score for score, _ in paths])
            for score, path in paths:
                share = sign * shares[b] * np.exp(score - whole)
                np.add.at(expected[b], (steps, list(path)), share)
    assert_close(gradient(total, logits), expected, atol=3e-5)


@pytest.mark.parametrize("size", [FEW, MANY])
@pytest.mark.parametrize("graph", [False, True])
def test_the_log_likelihood_equals_brute_force_over_all_paths(size, graph):
    ctc = CTC(size)
    logits = 2 * random_array(B, S, size)[:, :4] if size == MANY else case()[1]
    mask = MASK[:, : logits.shape[1]]
    likelihood = compiled(ctc.log_likelihood) if graph else ctc.log_likelihood
    for labels in (LABELS, LABELS[:, ::-1] * (size - 1) // 2, np.full((B, 4), 1)):
        labels = labels.astype("int32")
        expected = expected_log_probs(labels, logits, mask)
        assert_close(likelihood(labels, logits, mask), expected, atol=2e-5)


def test_labels_are_aligned_by_the_best_path():
    ctc, logits = case()
    for labels in (LABELS, LABELS[:, ::-1], np.full((B, 4), 2, "int32")):
        steps, log_probs = map(array, ctc.align(labels, logits, MASK))
        assert steps.shape == labels.shape
        for b, real in enumerate(MASK):
            row, places = labels_of(labels[b]), np.flatnonzero(real)
            right = [x for x in scored_paths(logits[b][real]) if collapsed(x[1]) == row]
            if not right:
                assert log_probs[b] == -np.inf and (steps[b] == -1).all()
                continue
            score, path = max(right)
            begins = [x for i, x in enumerate(path) if x and path[i - 1 : i] != (x,)]
            where = [i for i, x in enumerate(path) if x and path[i - 1 : i] != (x,)]
            assert tuple(begins) == row
            assert_close(log_probs[b], score)
            assert steps[b, : len(row)].tolist() == places[where].tolist()
            assert (steps[b, len(row) :] == -1).all()


def test_the_best_path_is_collapsed():
    ctc, logits = case()
    logits[0, :, 0] -= 5  # not blanks alone
    found = array(ctc.best_path(logits, MASK))
    assert found.shape == (B, S) and len(labels_of(found[0])) > 2
    for row, x, real in zip(found, logits, MASK, strict=True):
        expected = collapsed(x[real].argmax(-1))
        assert row.tolist() == [*expected, *[0] * (S - len(expected))]


# Searches -----------------------------------------------------------------------------


def search_labelings(search, logits, mask=MASK, size=FEW, max_length=S + 1):
    """Return the labelings that a search finds, with their log-probabilities."""
    ctc = CTC(size)

    def run(logits, mask):
        state, constants = ctc.start(logits, mask, search.num_beams)
        start_tokens = ops.zeros((B,), "int32")
        result = search(
            ctc.step, state, constants, start_tokens, ctc.end_token_id, max_length
        )
        return result.token_ids, result.log_probs

    token_ids, log_probs = map(array, compiled(run)(logits, mask))
    token_ids = np.where(token_ids == ctc.end_token_id, 0, token_ids)
    return [
        [(labels_of(row), score) for row, score in zip(*pair, strict=True)]
        for pair in zip(token_ids, log_probs, strict=True)
    ]


def best_of(logits, is_allowed=lambda row: True):
    rows = [
        (row, score) for row, score in all_labelings(logits).items() if is_allowed(row)
    ]
    return sorted(rows, key=lambda pair: -pair[1])


def assert_same(found, expected):
    """Check that labelings, their probabilities and order are equal."""
    assert len(found) >= len(expected)
    assert [row for row, _ in found[: len(expected)]] == [row for row, _ in expected]
    scores = np.array([score for _, score in found])
    assert_close(scores[: len(expected)], np.array([x for _, x in expected]), atol=2e-5)
    assert (scores[len(expected) :] == -np.inf).all()


def test_a_wide_beam_finds_all_labelings_with_exact_probabilities():
    _, logits = case()
    widest = max(
        len(all_labelings(x[real])) for x, real in zip(logits, MASK, strict=True)
    )
    for found, x, real in zip(
        search_labelings(BeamSearch(widest + 3), logits), logits, MASK, strict=True
    ):
        assert_same(found, best_of(x[real]))


def test_beam_search_is_exact_with_many_labels():
    logits, mask = 2 * random_array(B, 3, MANY), MASK[:, 2:]
    found = search_labelings(BeamSearch(30), logits, mask, MANY, 4)
    for rows, x, real in zip(found, logits, mask, strict=True):
        assert_same(rows[:3], best_of(x[real])[:3])


def test_narrow_searches_report_exact_probabilities():
    _, logits = case()
    for search in (GreedySearch(), BeamSearch(2), Sampling(num_draws=3, seed=5)):
        for found, x, real in zip(
            search_labelings(search, logits), logits, MASK, strict=True
        ):
            rows = all_labelings(x[real])
            for row, score in found:
                assert score == -np.inf or score == pytest.approx(rows[row], abs=2e-5)


RULES = {
    "banned": (BannedTokens([1]), lambda row: 1 not in row),
    "at least two": (MinimumLength(3), lambda row: len(row) >= 2),
    "at most two": (MaximumLength(3), lambda row: len(row) <= 2),
    "allowed": (
        AllowedSequences([[1, 2], [2], [2, 2]]),
        lambda row: row in ((1, 2), (2,), (2, 2)),
    ),
    "no label twice": (NoRepeatNGrams(1), lambda row: len(set(row)) == len(row)),
    "forced": (ForcedTokens([2]), lambda row: row[:1] == (2,)),
}


@pytest.mark.parametrize("rule", RULES)
def test_constraints_apply_to_labels(rule):
    _, logits = case()
    constraint, is_allowed = RULES[rule]
    search = BeamSearch(60, constraints=[constraint])
    for found, x, real in zip(
        search_labelings(search, logits), logits, MASK, strict=True
    ):
        assert_same(found, best_of(x[real], is_allowed))


# Accuracy -----------------------------------------------------------------------------


def test_improbable_labelings_are_not_lost():
    """The first label is e^-300 and the last e^-400 less probable than others."""
    ctc = CTC(FEW)
    logits = np.zeros((1, 4, FEW), "float32")
    logits[0, :2, 1] = 300
    logits[0, 2:, 2] = -400
    labels = np.array([[2, 1, 2]], "int32")
    expected = all_labelings(logits[0])[2, 1, 2]
    assert expected < -600
    assert_close(ctc.log_likelihood(labels, logits), [expected], rtol=1e-5)
    assert_close(-array(ctc.negative_log_likelihood(labels, logits)), [expected])
    state, constants = ctc.start(logits)
    search = GreedySearch(constraints=[ForcedTokens([2, 1, 2, FEW])])
    found = search(ctc.step, state, constants, [0], FEW, 5)
    assert array(found.token_ids).tolist() == [[[2, 1, 2, FEW, 0]]]
    assert_close(found.log_probs, [[expected]], rtol=1e-5)


def test_a_long_row_is_accurate():
    ctc, steps = CTC(MANY), 1000
    logits = 3 * random_array(1, steps, MANY)
    labels = array(ctc.best_path(logits))[:, :300]
    exact = forward(labels[0], log_softmax(logits[0]))
    assert_close(ctc.log_likelihood(labels, logits), [exact], rtol=1e-5)
    short = logits[:, :600]
    assert_close(
        ctc.log_likelihood(labels[:, :99], short),
        -array(ctc.negative_log_likelihood(labels[:, :99], short)),
        rtol=1e-5,
    )


def forward(labels, log_probs):
    """Return the log-likelihood by the recursion of Graves et al., 4.1."""
    symbols = [0, *itertools.chain.from_iterable((x, 0) for x in labels)]
    scores = np.full(len(symbols), -np.inf)
    scores[:2] = log_probs[0, symbols[:2]]
    for row in log_probs[1:]:
        before = [scores, [-np.inf, *scores[:-1]], [-np.inf, -np.inf, *scores[:-2]]]
        for place, symbol in enumerate(symbols):
            if symbol == 0 or place < 2 or symbol == symbols[place - 2]:
                before[2][place] = -np.inf
        scores = np.logaddexp.reduce(before) + row[symbols]
    return np.logaddexp(*scores[-2:])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_only_the_logits_are_in_half_precision(dtype):
    ctc, logits = case()
    half = ops.cast(logits, dtype)
    rounded = array(ops.cast(half, "float32"))
    for method in (ctc.negative_log_likelihood, ctc.log_likelihood):
        found = method(LABELS, half, MASK)
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        assert_close(found, method(LABELS, rounded, MASK))
    assert_close(ctc.best_path(half, MASK), ctc.best_path(rounded, MASK))
