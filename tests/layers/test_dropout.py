import keras
import numpy as np
import pytest

from kseq.layers import Dropout
from tests.helpers import (
    array,
    assert_close,
    check_layer,
    compiled,
    gradient,
    random_array,
)

N, M = 211, 499
ONES = np.ones((N, M), "float32")


def masks(number, dropout=0.3, seed=0):
    """Return the masks of this number of calls of a layer."""
    layer = Dropout(dropout, seed=seed)
    return np.stack([array(layer(ONES, training=True)) != 0 for _ in range(number)])


def test_dropout_keeps_the_contract_of_layers():
    check_layer(Dropout, {"dropout": 0.3, "seed": 7}, {"inputs": random_array(2, 3, 5)})


def test_kept_values_are_scaled_and_the_rest_is_zero():
    x = random_array(N, M)
    outputs = array(Dropout(0.3)(x, training=True))
    kept = outputs != 0
    assert_close(outputs[kept], x[kept] / 0.7)
    assert_close(gradient_of_sum(x), (gradient_of_sum(x) != 0) / 0.7)


def gradient_of_sum(x):
    layer = Dropout(0.3, seed=5)
    return gradient(lambda y: keras.ops.sum(layer(y, training=True)), x)


def test_nothing_is_dropped_outside_of_training():
    layer, x = Dropout(0.3), random_array(N, M)
    assert_close(layer(x), x, rtol=0, atol=0)
    assert_close(Dropout(0.0)(x, training=True), x, rtol=0, atol=0)


@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_the_dropped_share_equals_the_rate(dropout):
    kept = masks(10, dropout)
    deviation = np.sqrt(dropout * (1 - dropout) / kept.size)
    assert abs(kept.mean() - (1 - dropout)) < 4 * deviation
    # Also in every row, column and call; 4.9 deviations occur once in a million.
    for axes in ((0, 1), (0, 2), (1, 2)):
        count = kept.size / np.delete(kept.shape, axes).prod()
        shares = kept.mean(axis=axes)
        limit = 4.9 * np.sqrt(dropout * (1 - dropout) / count)
        assert abs(shares - (1 - dropout)).max() < limit


def test_neighbours_rows_and_calls_are_independent():
    kept = masks(8) - 0.7
    for axis, distance in [(0, 1), (1, 1), (2, 1), (0, 3), (1, 64), (2, 128)]:
        pairs = kept * np.roll(kept, distance, axis=axis)
        correlation = pairs.mean() / kept.var()
        assert abs(correlation) < 4.9 / np.sqrt(kept.size)


def test_the_seed_determines_the_masks():
    assert (masks(2, seed=3) == masks(2, seed=3)).all()
    assert 0.3 < (masks(2, seed=3) != masks(2, seed=4)).mean() < 0.5
    assert 0.3 < (masks(2)[0] != masks(2)[1]).mean() < 0.5


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="traces with state")
def test_each_call_of_a_compiled_function_samples_a_new_mask():
    layer = Dropout(0.3, seed=0)
    function = compiled(lambda x: layer(x, training=True))
    sampled = [array(function(ONES)) != 0 for _ in range(2)]
    np.testing.assert_array_equal(np.stack(sampled), masks(2))


def test_outputs_keep_half_precision():
    for dtype in ("float16", "bfloat16"):
        x = keras.ops.ones((2, 3), dtype)
        outputs = Dropout(0.3, dtype=dtype)(x, training=True)
        assert keras.backend.standardize_dtype(outputs.dtype) == dtype


def test_rejects_a_wrong_rate():
    with pytest.raises(ValueError, match="`dropout` must"):
        Dropout(1.0)
