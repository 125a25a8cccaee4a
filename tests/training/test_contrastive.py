import keras
import numpy as np
import pytest

from kseq.training import ContrastiveLoss
from tests.helpers import gradient, random_array

B = 5
LOGITS = 3 * random_array(B, B)
DISTINCT = np.arange(B)
REPEATED = np.array([7, 4, 7, 9, 4])


def losses(groups, logits):
    """Return the loss of each pair, one at a time, from figure 3 of the paper."""
    logits = logits.astype("float64")
    pair_losses = []
    for i in range(len(groups)):
        positives = [j for j in range(len(groups)) if groups[j] == groups[i]]
        total = 0.0
        for scores in (logits[i], logits[:, i]):
            probabilities = np.exp(scores) / np.exp(scores).sum()
            total -= np.mean([np.log(probabilities[j]) for j in positives])
        pair_losses.append(total / 2)
    return np.array(pair_losses)


@pytest.mark.parametrize("groups", [DISTINCT, REPEATED], ids=["distinct", "repeated"])
def test_the_loss_is_the_mean_of_both_cross_entropies(groups):
    loss = ContrastiveLoss()(groups, LOGITS)
    np.testing.assert_allclose(float(loss), losses(groups, LOGITS).mean(), rtol=1e-5)


def test_equal_captions_are_equally_correct():
    captions = np.array([[4, 5, 0], [6, 0, 0], [4, 5, 0], [4, 5, 6], [6, 0, 0]])
    expected = losses([0, 1, 0, 2, 1], LOGITS).mean()
    for y_true in (captions, captions.astype("int64"), captions.astype("float32")):
        np.testing.assert_allclose(
            float(ContrastiveLoss()(y_true, LOGITS)), expected, rtol=1e-5
        )


@pytest.mark.parametrize("y_true", [np.zeros(B), np.full((B, 3), 7)])
def test_rows_that_are_all_equal_count_as_distinct(y_true):
    loss = ContrastiveLoss()(y_true, LOGITS)
    np.testing.assert_allclose(float(loss), losses(DISTINCT, LOGITS).mean(), rtol=1e-5)


def test_large_numbers_are_distinguished():
    large = 2**24 + np.arange(B)  # float32 has only the even ones
    loss = ContrastiveLoss()(large.astype("int32"), LOGITS)
    np.testing.assert_allclose(float(loss), losses(DISTINCT, LOGITS).mean(), rtol=1e-5)


def test_pairs_can_have_weights():
    weights = np.array([0.0, 2.0, 0.5, 1.0, 3.0])
    loss = ContrastiveLoss()(REPEATED, LOGITS, sample_weight=weights)
    expected = (losses(REPEATED, LOGITS) * weights).sum() / weights.sum()
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)


def test_order_of_pairs_does_not_change_the_loss():
    order = np.array([3, 0, 4, 1, 2])
    loss = ContrastiveLoss()(REPEATED[order], LOGITS[order][:, order])
    np.testing.assert_allclose(float(loss), losses(REPEATED, LOGITS).mean(), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    logits = keras.ops.cast(LOGITS, dtype)
    exact = keras.ops.convert_to_numpy(keras.ops.cast(logits, "float32"))
    loss = ContrastiveLoss(dtype=dtype)(REPEATED, logits)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    np.testing.assert_allclose(float(loss), losses(REPEATED, exact).mean(), rtol=1e-5)


def test_large_logits_have_a_finite_loss_and_gradient():
    logits = 1e4 * LOGITS
    assert np.isfinite(float(ContrastiveLoss()(REPEATED, logits)))
    slope = gradient(lambda z: ContrastiveLoss()(REPEATED, z), logits)
    assert np.isfinite(slope).all()


def test_loss_of_one_pair_is_zero():
    assert float(ContrastiveLoss()(np.zeros(1), np.ones((1, 1), "float32"))) == 0


def test_loss_survives_serialization():
    loss = ContrastiveLoss(name="a_name", dtype="float64")
    config = keras.saving.serialize_keras_object(loss)
    copy = keras.saving.deserialize_keras_object(config)
    assert type(copy) is ContrastiveLoss
    assert copy.get_config() == loss.get_config()


@pytest.mark.parametrize(
    "y_true, y_pred", [(B, (B, B - 1)), (B - 1, (B, B)), (B, (B,)), (B, (B, B, 1))]
)
def test_rejects_other_shapes(y_true, y_pred):
    with pytest.raises(ValueError, match="`y_pred` must be logits of each row"):
        ContrastiveLoss()(np.arange(y_true), np.zeros(y_pred))
