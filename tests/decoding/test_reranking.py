import math

import numpy as np
import pytest
from keras import ops

from kseq.decoding import Generation, best_of, expected_utility

TOKENS = np.array(
    [
        [[5, 3, 0], [6, 7, 3], [8, 3, 0], [0, 0, 0]],
        [[9, 9, 3], [3, 0, 0], [6, 3, 0], [7, 3, 0]],
    ]
)
LENGTHS = np.array([[2, 3, 2, 0], [3, 1, 2, 2]])
LOG_PROBS = np.log(np.array([[0.4, 0.3, 0.2, 1.0], [0.5, 0.2, 0.1, 0.1]], "float32"))
LOG_PROBS[0, 3] = -math.inf
DRAWN = Generation(
    token_ids=TOKENS,
    log_probs=LOG_PROBS,
    token_log_probs=np.arange(24.0).reshape(2, 4, 3),
    lengths=LENGTHS,
    ended=LENGTHS > 0,
    attention=np.arange(48.0).reshape(2, 4, 3, 2),
)
SCORES = np.array([[0.1, 0.5, 0.3, 9.0], [2, 7, 7, 1]])  # 9 for what was not formed


def places(result):
    """Where the hypotheses of a result stood in `DRAWN`."""
    found = []
    for b, hypotheses in enumerate(result.token_ids):
        rows = TOKENS[b].tolist()
        found.append([rows.index(ids) for ids in hypotheses.tolist()])
    return found


def test_the_best_scores_come_first_and_what_was_not_formed_last():
    assert places(best_of(DRAWN, SCORES, n=4)) == [[1, 2, 0, 3], [1, 2, 0, 3]]
    assert places(best_of(DRAWN, SCORES, n=2)) == [[1, 2], [1, 2]]
    assert places(best_of(DRAWN, SCORES)) == [[1], [1]]


def test_everything_of_a_hypothesis_goes_with_it():
    result = best_of(DRAWN, SCORES, n=3)
    for b, row in enumerate(places(result)):
        for name in vars(DRAWN):
            expected = getattr(DRAWN, name)[b][row]
            np.testing.assert_array_equal(getattr(result, name)[b], expected)


def test_equal_scores_keep_the_order():
    assert places(best_of(DRAWN, np.zeros((2, 4)), n=4)) == [[0, 1, 2, 3]] * 2
    worst = np.full((2, 4), -math.inf)  # as bad as what was not formed, and before it
    assert places(best_of(DRAWN, worst, n=4)) == [[0, 1, 2, 3]] * 2


def test_scores_may_be_a_function_integers_or_tensors():
    assert places(best_of(DRAWN, lambda drawn: -drawn.lengths, n=4)) == [
        [0, 2, 1, 3],
        [1, 2, 3, 0],
    ]
    assert places(best_of(DRAWN, LENGTHS.astype("uint8"))) == [[1], [0]]
    assert places(best_of(DRAWN, ops.convert_to_tensor(SCORES))) == [[1], [1]]
    assert places(best_of(DRAWN, SCORES.tolist())) == [[1], [1]]


def test_a_generation_of_tensors_becomes_one_of_arrays():
    arrays = {k: v for k, v in vars(DRAWN).items() if k != "attention"}
    tensors = {name: ops.convert_to_tensor(x) for name, x in arrays.items()}
    result = best_of(Generation(**tensors), SCORES, n=2)
    assert places(result) == [[1, 2], [1, 2]]
    assert result.attention is None and isinstance(result.lengths, np.ndarray)


def test_scores_that_are_not_one_for_each_hypothesis_are_refused():
    for scores in (SCORES[:, :3], SCORES[:1], SCORES[0]):
        with pytest.raises(ValueError, match=r"\(B, N\) = \(2, 4\). Received: scores"):
            best_of(DRAWN, scores)


def test_nan_is_refused_unless_nothing_was_formed():
    scores = SCORES.copy()
    scores[0, 3] = math.nan
    assert places(best_of(DRAWN, scores, n=4)) == [[1, 2, 0, 3], [1, 2, 0, 3]]
    scores[0, 1] = math.nan
    with pytest.raises(ValueError, match="Received: NaN for a hypothesis"):
        best_of(DRAWN, scores)


@pytest.mark.parametrize("n, message", [(5, "at most the number"), (0, "positive")])
def test_a_number_that_cannot_be_kept_is_refused(n, message):
    with pytest.raises(ValueError, match=message):
        best_of(DRAWN, SCORES, n)


def overlap(hypothesis, reference):
    return len(set(hypothesis) & set(reference)) / len(hypothesis)


@pytest.mark.parametrize("by_probability", [False, True])
def test_the_expected_utility_is_the_mean_over_the_others(by_probability):
    scores = expected_utility(DRAWN, overlap, by_probability)
    assert scores[0, 3] == -math.inf
    for b, i in np.ndindex(2, 4):
        if not LENGTHS[b, i]:
            continue
        total = weight = 0.0
        for j in range(4):
            if j == i or not LENGTHS[b, j]:
                continue
            own = math.exp(LOG_PROBS[b, j]) if by_probability else 1.0
            texts = [TOKENS[b, k, : LENGTHS[b, k]].tolist() for k in (i, j)]
            total += own * overlap(*texts)
            weight += own
        assert scores[b, i] == pytest.approx(total / weight)


def test_the_expected_utility_of_one_hypothesis_is_nothing():
    alone = best_of(DRAWN, SCORES)
    assert expected_utility(alone, overlap).tolist() == [[0.0], [0.0]]


def test_improbable_hypotheses_are_weighed_too():
    far = Generation(TOKENS, LOG_PROBS - 2000, None, LENGTHS)
    np.testing.assert_allclose(
        expected_utility(far, overlap, True)[:, :3],
        expected_utility(DRAWN, overlap, True)[:, :3],
        rtol=1e-4,
    )


def test_a_utility_may_compare_texts():
    letters = {5: "a", 6: "b", 7: "c", 8: "d", 9: "e"}

    def decode(rows):
        return ["".join(letters[i] for i in row if i != 3) for row in rows]

    compared = []

    def utility(hypothesis, reference):
        compared.append((hypothesis, reference))
        return len(set(hypothesis) & set(reference))

    scores = expected_utility(DRAWN, utility, decode=decode)
    assert compared[:3] == [("a", "bc"), ("a", "d"), ("bc", "a")]
    assert scores[1].tolist() == [0, 0, 0, 0] and scores[0, 3] == -math.inf
