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
SAMPLES = Generation(
    token_ids=TOKENS,
    log_probs=LOG_PROBS,
    token_log_probs=np.arange(24.0).reshape(2, 4, 3),
    lengths=LENGTHS,
    ended=LENGTHS > 0,
    attention=np.arange(48.0).reshape(2, 4, 3, 2),
)
SCORES = np.array([[0.1, 0.5, 0.3, 9.0], [2, 7, 7, 1]])  # 9 for the empty hypothesis


def positions(result):
    """Return the positions in `SAMPLES` of the hypotheses of a result."""
    found = []
    for b, hypotheses in enumerate(result.token_ids):
        rows = TOKENS[b].tolist()
        found.append([rows.index(ids) for ids in hypotheses.tolist()])
    return found


def test_the_best_scores_come_first_and_empty_hypotheses_last():
    assert positions(best_of(SAMPLES, SCORES, n=4)) == [[1, 2, 0, 3], [1, 2, 0, 3]]
    assert positions(best_of(SAMPLES, SCORES, n=2)) == [[1, 2], [1, 2]]
    assert positions(best_of(SAMPLES, SCORES)) == [[1], [1]]


def test_all_fields_of_a_hypothesis_are_reordered_together():
    result = best_of(SAMPLES, SCORES, n=3)
    for b, row in enumerate(positions(result)):
        for name in vars(SAMPLES):
            expected = getattr(SAMPLES, name)[b][row]
            np.testing.assert_array_equal(getattr(result, name)[b], expected)


def test_equal_scores_keep_the_order():
    assert positions(best_of(SAMPLES, np.zeros((2, 4)), n=4)) == [[0, 1, 2, 3]] * 2
    worst = np.full((2, 4), -math.inf)  # as bad as the empty hypothesis, and before it
    assert positions(best_of(SAMPLES, worst, n=4)) == [[0, 1, 2, 3]] * 2


def test_scores_can_be_a_function_integers_or_tensors():
    assert positions(best_of(SAMPLES, lambda samples: -samples.lengths, n=4)) == [
        [0, 2, 1, 3],
        [1, 2, 3, 0],
    ]
    assert positions(best_of(SAMPLES, LENGTHS.astype("uint8"))) == [[1], [0]]
    assert positions(best_of(SAMPLES, ops.convert_to_tensor(SCORES))) == [[1], [1]]
    assert positions(best_of(SAMPLES, SCORES.tolist())) == [[1], [1]]


def test_a_generation_of_tensors_is_converted_to_arrays():
    arrays = {k: v for k, v in vars(SAMPLES).items() if k != "attention"}
    tensors = {name: ops.convert_to_tensor(x) for name, x in arrays.items()}
    result = best_of(Generation(**tensors), SCORES, n=2)
    assert positions(result) == [[1, 2], [1, 2]]
    assert result.attention is None and isinstance(result.lengths, np.ndarray)


def test_rejects_scores_of_another_shape():
    for scores in (SCORES[:, :3], SCORES[:1], SCORES[0]):
        with pytest.raises(ValueError, match=r"\(B, N\) = \(2, 4\). Received: scores"):
            best_of(SAMPLES, scores)


def test_rejects_nan_unless_the_hypothesis_is_empty():
    scores = SCORES.copy()
    scores[0, 3] = math.nan
    assert positions(best_of(SAMPLES, scores, n=4)) == [[1, 2, 0, 3], [1, 2, 0, 3]]
    scores[0, 1] = math.nan
    with pytest.raises(ValueError, match="Received: NaN for a hypothesis"):
        best_of(SAMPLES, scores)


@pytest.mark.parametrize("n, message", [(5, "at most the number"), (0, "positive")])
def test_rejects_an_invalid_number_of_hypotheses(n, message):
    with pytest.raises(ValueError, match=message):
        best_of(SAMPLES, SCORES, n)


def overlap(hypothesis, reference):
    return len(set(hypothesis) & set(reference)) / len(hypothesis)


@pytest.mark.parametrize("by_probability", [False, True])
def test_the_expected_utility_is_the_mean_over_the_other_hypotheses(by_probability):
    scores = expected_utility(SAMPLES, overlap, by_probability)
    assert scores[0, 3] == -math.inf
    for b, i in np.ndindex(2, 4):
        if not LENGTHS[b, i]:
            continue
        total = weight = 0.0
        for j in range(4):
            if j == i or not LENGTHS[b, j]:
                continue
            share = math.exp(LOG_PROBS[b, j]) if by_probability else 1.0
            texts = [TOKENS[b, k, : LENGTHS[b, k]].tolist() for k in (i, j)]
            total += share * overlap(*texts)
            weight += share
        assert scores[b, i] == pytest.approx(total / weight)


def test_the_expected_utility_of_one_hypothesis_is_zero():
    alone = best_of(SAMPLES, SCORES)
    assert expected_utility(alone, overlap).tolist() == [[0.0], [0.0]]


def test_improbable_hypotheses_are_weighted():
    far = Generation(TOKENS, LOG_PROBS - 2000, None, LENGTHS)
    np.testing.assert_allclose(
        expected_utility(far, overlap, True)[:, :3],
        expected_utility(SAMPLES, overlap, True)[:, :3],
        rtol=1e-4,
    )


def test_a_utility_can_compare_texts():
    letters = {5: "a", 6: "b", 7: "c", 8: "d", 9: "e"}

    def decode(rows):
        return ["".join(letters[i] for i in row if i != 3) for row in rows]

    compared = []

    def utility(hypothesis, reference):
        compared.append((hypothesis, reference))
        return len(set(hypothesis) & set(reference))

    scores = expected_utility(SAMPLES, utility, decode=decode)
    assert compared[:3] == [("a", "bc"), ("a", "d"), ("bc", "a")]
    assert scores[1].tolist() == [0, 0, 0, 0] and scores[0, 3] == -math.inf
