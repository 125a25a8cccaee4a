"""CRF, compared with brute force over all paths in NumPy, in double precision.

Axes in shape comments: B batch, S steps, L labels.
"""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import CRF, linear_chain
from tests.helpers import (
    array,
    assert_close,
    compiled,
    gradient,
    random_array,
    randomize,
)

B, S, U = 5, 4, 6
MASK = np.array(
    [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0]], "bool"
)
NAMES = ["O", "B-a", "I-a", "B-b", "I-b"]
FEW, MANY = 3, 9  # the loops of many labels are compiled


def small_crf(size=FEW, **options):
    crf = CRF(size, **options)
    crf.build((None, None, U))
    randomize(crf)
    return crf


def case(size=FEW, **options):
    """Return a layer, potentials and labels."""
    labels = np.random.default_rng(size).integers(0, size, (B, S)).astype("int32")
    return small_crf(size, **options), 2 * random_array(B, S, size), labels


# The oracle ---------------------------------------------------------------------------


def weights_of(crf):
    return [array(x).astype("float64") for x in (crf.transitions, crf.starts, crf.ends)]


def score(path, potentials, weights):
    """Return the score of a path through `(n, L)`, by the definition."""
    transitions, starts, ends = weights
    total = starts[path[0]] + ends[path[-1]]
    total += sum(potentials[t, label] for t, label in enumerate(path))
    return total + sum(transitions[pair] for pair in itertools.pairwise(path))


def is_allowed(path, crf):
    allowed, first, last = crf.rules
    return (
        (first is None or first[path[0]])
        and (last is None or last[path[-1]])
        and (allowed is None or all(allowed[x] for x in itertools.pairwise(path)))
    )


def all_paths(potentials, crf, only_allowed=True):
    """Return the score and labels of every path of a row, best first."""
    paths = itertools.product(range(potentials.shape[1]), repeat=len(potentials))
    weights = weights_of(crf)
    scored = [
        (score(path, potentials.astype("float64"), weights), path)
        for path in paths
        if not only_allowed or is_allowed(path, crf)
    ]
    return sorted(scored, reverse=True)


def log_total(scored):
    return np.logaddexp.reduce([score for score, _ in scored])


def rows_of(potentials, mask=MASK):
    """Return index, real steps and their potentials for each row that has some."""
    return [
        (b, np.flatnonzero(real), potentials[b][real])
        for b, real in enumerate(mask)
        if real.any()
    ]


def losses_of(labels, potentials, crf, mask=MASK):
    losses = np.zeros(len(mask))
    for b, steps, row in rows_of(potentials, mask):
        scored = all_paths(row, crf, only_allowed=False)
        path = tuple(labels[b, steps])
        losses[b] = log_total(scored) - score(path, row, weights_of(crf))
    return losses


# Against the oracle -------------------------------------------------------------------


@pytest.mark.parametrize("size", [FEW, MANY])
@pytest.mark.parametrize("graph", [False, True])
def test_the_loss_equals_brute_force_over_all_paths(size, graph):
    crf, potentials, labels = case(size)
    loss = crf.negative_log_likelihood
    loss = compiled(loss) if graph else loss
    found = array(loss(labels, potentials, MASK))
    assert found[4] == 0
    assert_close(found, losses_of(labels, potentials, crf), atol=2e-5)
    unmasked = np.ones_like(MASK)
    expected = losses_of(labels, potentials, crf, unmasked)
    assert_close(loss(labels, potentials), expected, atol=2e-5)


@pytest.mark.parametrize("size", [FEW, MANY])
def test_the_gradient_is_the_difference_of_expected_and_true_counts(size):
    crf, potentials, labels = case(size)
    kinds = [potentials, *(array(x) for x in (crf.transitions, crf.starts, crf.ends))]
    ends = np.cumsum([x.size for x in kinds])
    shares = [1.0, -2.0, 0.5, 3.0, 7.0]

    def total(flat):
        parts = [
            ops.reshape(flat[end - x.size : end], x.shape)
            for end, x in zip(ends, kinds, strict=True)
        ]
        losses = linear_chain.negative_log_likelihood(
            ops.convert_to_tensor(labels), parts[0], parts[1:], ops.array(MASK)
        )
        return ops.sum(losses * ops.array(shares))

    expected = [np.zeros(x.shape) for x in kinds]
    for b, steps, row in rows_of(potentials):
        scored = all_paths(row, crf)
        counted = [(np.exp(s - log_total(scored)), path) for s, path in scored]
        for share, path in [*counted, (-1.0, tuple(labels[b, steps]))]:
            share *= shares[b]
            np.add.at(expected[0][b], (steps, list(path)), share)
            for pair in itertools.pairwise(path):
                expected[1][pair] += share
            expected[2][path[0]] += share
            expected[3][path[-1]] += share
    slopes = gradient(total, np.concatenate([x.ravel() for x in kinds]))
    assert_close(slopes, np.concatenate([x.ravel() for x in expected]), atol=3e-5)


OPTIONS = {
    "all": {"num_labels": FEW},
    "many": {"num_labels": MANY},
    "BIO": {"labels": NAMES},
    "custom": {
        "num_labels": FEW,
        "allowed": [[1, 0, 1], [1, 1, 0], [0, 1, 1]],
        "allowed_first": [True, True, False],
        "allowed_last": [False, True, True],
    },
}


@pytest.fixture(params=OPTIONS)
def crf_with_rules(request):
    """Return a layer with these options, and potentials."""
    options = dict(OPTIONS[request.param])
    size = options.pop("num_labels", len(NAMES))
    crf = small_crf(size, **options)
    return crf, 2 * random_array(B, S, size)


def test_marginals_equal_brute_force_over_allowed_paths(crf_with_rules):
    crf, potentials = crf_with_rules
    expected = np.zeros(potentials.shape)
    for b, steps, row in rows_of(potentials):
        scored = all_paths(row, crf)
        for value, path in scored:
            share = np.exp(value - log_total(scored))
            np.add.at(expected[b], (steps, list(path)), share)
    assert_close(crf.marginals(potentials, MASK), expected)


def test_best_scores_are_those_of_the_best_path_through_each_label(crf_with_rules):
    crf, potentials = crf_with_rules
    found = array(crf.best_scores(potentials, MASK))
    assert (found[~MASK] == 0).all()
    for b, steps, row in rows_of(potentials):
        scored = all_paths(row, crf)
        assert tuple(found[b][steps].argmax(-1)) == scored[0][1]
        for t, label in itertools.product(range(len(row)), range(row.shape[1])):
            through = [value for value, path in scored if path[t] == label]
            score = found[b, steps[t], label]
            if through:
                assert_close(score, max(through), atol=1e-4)
            else:
                assert score < -1e20


@pytest.mark.parametrize("num_paths", [1, 4, 30])
def test_best_paths_are_sorted_by_probability(crf_with_rules, num_paths):
    crf, potentials = crf_with_rules
    paths, log_probs = map(array, crf.best_paths(potentials, num_paths, MASK))
    assert paths.shape == (B, num_paths, S)
    assert (paths.transpose(0, 2, 1)[~MASK] == 0).all()
    for b, steps, row in rows_of(potentials):
        scored = all_paths(row, crf)
        best = scored[:num_paths]
        expected = [value - log_total(scored) for value, _ in best]
        assert_close(log_probs[b, : len(best)], np.array(expected), atol=2e-5)
        assert (log_probs[b, len(best) :] == -np.inf).all()
        found = [tuple(path) for path in paths[b, : len(best), steps].T]
        assert found == [path for _, path in best]
    assert log_probs[4, 0] == 0 and (log_probs[4, 1:] == -np.inf).all()


def test_bio_labels_restrict_transitions_by_default():
    allowed, first, last = CRF(labels=NAMES).rules
    for one, other in itertools.product(range(5), repeat=2):
        follows = NAMES[other][0] != "I" or NAMES[one][1:] == NAMES[other][1:]
        assert allowed[one, other] == follows, (NAMES[one], NAMES[other])
    assert first.tolist() == [True, True, False, True, False]
    assert last is None
    assert CRF(labels=["NOUN", "I-x", "X"]).rules == (None, None, None)


@pytest.mark.parametrize("labels", [NAMES, [*NAMES, "B-c", "I-c", "B-d", "I-d"]])
def test_equally_good_paths_are_not_mixed(labels):
    """With tied scores, the best labels of single steps would not form a valid path."""
    crf = CRF(labels=labels)
    crf.build((None, None, U))
    potentials = np.zeros((1, 6, len(labels)), "float32")
    potentials[:, 1::2, 2] = potentials[:, ::2, 4] = 1.0  # I-a and I-b alternately
    for steps in (3, 6):
        scores = crf.best_scores(potentials[:, :steps])
        path = tuple(array(scores).argmax(-1)[0].tolist())
        assert is_allowed(path, crf)
        best = all_paths(potentials[0, :steps, :5], crf_of_zeros(NAMES))[0][0]
        assert score(path, potentials[0], weights_of(crf)) == best


def crf_of_zeros(labels):
    crf = CRF(labels=labels)
    crf.build((None, None, U))
    return crf


# Accuracy -----------------------------------------------------------------------------


def log_total_by_recursion(potentials, weights):
    """Return `log_total` in double precision, in time linear in the steps."""
    transitions, starts, ends = weights
    before = starts + potentials[0]
    for row in potentials[1:]:
        before = np.logaddexp.reduce(before[:, None] + transitions, axis=0) + row
    return np.logaddexp.reduce(before + ends)


@pytest.mark.parametrize("size", [FEW, MANY])
def test_improbable_paths_are_not_lost(size):
    """Only paths that are e^-300 less probable reach the last label."""
    crf = small_crf(size, allowed=np.eye(size) + np.eye(size, k=1) > 0)
    potentials = random_array(1, size, size)
    potentials[0, 0, 1:] -= 300
    potentials[0, 1:, 0] -= 200
    potentials[0, -1, :-1] -= 5000
    weights = crf._weights(allowed=True)
    exact = [array(x).astype("float64") for x in weights]
    labels = np.arange(size, dtype="int32")[None]
    losses = linear_chain.negative_log_likelihood(
        ops.array(labels), ops.array(potentials), weights, ops.ones((1, size), "bool")
    )
    row = potentials[0].astype("float64")
    expected = log_total_by_recursion(row, exact) - score(labels[0], row, exact)
    assert_close(losses[0], expected, atol=1e-3)
    found = array(crf.marginals(potentials))
    assert np.isfinite(found).all()
    assert_close(found.sum(-1), np.ones((1, size)), atol=1e-5)
    assert array(crf.best_scores(potentials)).argmax(-1)[0, -1] == size - 1


def test_a_long_row_is_accurate():
    crf, steps = small_crf(MANY), 2000
    potentials = 3 * random_array(1, steps, MANY) + 5
    labels = potentials.argmax(-1).astype("int32")
    weights, row = weights_of(crf), potentials[0].astype("float64")
    expected = log_total_by_recursion(row, weights) - score(labels[0], row, weights)
    losses = crf.negative_log_likelihood(labels, potentials)
    assert_close(losses, np.array([expected]), rtol=1e-5)
    assert_close(array(crf.marginals(potentials)).sum(-1), np.ones((1, steps)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_only_the_potentials_are_in_half_precision(dtype):
    crf, potentials, labels = case(MANY)
    half = ops.cast(potentials, dtype)
    rounded = array(ops.cast(half, "float32"))
    for method, given in (
        (crf.negative_log_likelihood, (labels,)),
        (crf.marginals, ()),
        (crf.best_scores, ()),
    ):
        found = method(*given, half, mask=MASK)
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        assert_close(found, method(*given, rounded, mask=MASK))
