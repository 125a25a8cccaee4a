"""Mean of probabilities, compared with NumPy, and its mask."""

import numpy as np
import pytest

from kseq.layers import MeanProbability
from tests.helpers import (
    array,
    assert_close,
    check_layer_runs,
    length_mask,
    random_array,
    with_keras_mask,
)

M, B, T, V = 3, 2, 5, 7
LOGITS = [3 * random_array(B, T, V, seed=seed) for seed in range(M)]


def softmax(x):
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_mean_probability_keeps_the_contract_of_layers():
    check_layer_runs(MeanProbability, {}, {"logits": LOGITS})


def test_the_output_is_the_mean_of_the_probabilities():
    expected = sum(softmax(logits) for logits in LOGITS) / M
    assert_close(np.exp(array(MeanProbability()(LOGITS))), expected)
    assert_close(np.exp(array(MeanProbability()(LOGITS[:1]))), softmax(LOGITS[0]))


def test_a_class_impossible_for_one_model_stays_possible():
    certain = np.array([[0.0, -np.inf]], "float32")
    merged = array(MeanProbability()([certain, certain[:, ::-1]]))
    assert_close(merged, np.log([[0.5, 0.5]]))


def test_the_mask_of_the_first_input_is_kept():
    mask = length_mask(5, 2, size=T)
    first, *others = LOGITS
    merged = MeanProbability()([with_keras_mask(first, mask), *others])
    assert (array(merged._keras_mask) == mask).all()


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (LOGITS[0], "`logits` must be a list .* Received"),
        ([LOGITS[0], LOGITS[1][..., 1:]], "one shape.* Received"),
        ([LOGITS[0], LOGITS[1][:, 1:]], "one shape.* Received"),
        ([LOGITS[0], LOGITS[1][0]], "one shape.* Received"),
        ([x[..., :1] for x in LOGITS], "two classes or more.* Received"),
    ],
)
def test_rejects_logits_that_cannot_be_merged(logits, message):
    with pytest.raises(ValueError, match=message):
        MeanProbability()(logits)
