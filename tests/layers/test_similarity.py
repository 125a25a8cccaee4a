import keras
import numpy as np
import pytest

from kseq.layers import CosineSimilarity
from tests.helpers import (
    array,
    assert_close,
    check_layer,
    gradient,
    random_array,
)

B, N, D = 3, 5, 7
FIRST, SECOND = random_array(B, D, seed=1), random_array(N, D, seed=2)


def make(**options):
    layer = CosineSimilarity(**options)
    layer.build((B, D), (N, D))
    return layer


def test_cosine_similarity_keeps_the_contract_of_layers():
    check_layer(
        CosineSimilarity,
        {"temperature": 0.3, "max_scale": 20.0},
        {"first": FIRST, "second": SECOND},
    )


def test_the_logits_are_scaled_cosines():
    logits = array(make(temperature=0.25)(FIRST, SECOND))
    assert logits.shape == (B, N)
    for b, n in np.ndindex(B, N):
        x, y = FIRST[b].astype("float64"), SECOND[n].astype("float64")
        cosine = x @ y / np.sqrt(x @ x) / np.sqrt(y @ y)
        assert_close(logits[b, n], 4 * cosine)


def test_half_precision_accepts_vectors_whose_squares_overflow():
    layer = make(dtype="mixed_float16")
    large = layer(300 * np.sign(FIRST), 300 * np.sign(SECOND))
    expected = make()(np.sign(FIRST), np.sign(SECOND))
    assert_close(keras.ops.cast(large, "float32"), expected, atol=0.02)


def test_a_vector_of_zeros_has_similarity_zero_and_a_finite_gradient():
    layer = make()
    first = FIRST.copy()
    first[1] = 0
    assert (array(layer(first, SECOND))[1] == 0).all()
    slope = gradient(lambda x: keras.ops.sum(layer(x, SECOND)), first)
    assert np.isfinite(slope).all()


def test_the_scale_is_learned_up_to_its_maximum():
    layer = make(temperature=0.2, max_scale=6.0)
    symbols = keras.Input((D,)), keras.Input((D,))
    model = keras.Model(symbols, layer(*symbols))

    def larger_is_better(_, logits):
        return -keras.ops.mean(logits)

    model.compile(keras.optimizers.SGD(0.5), larger_is_better)
    scales = []
    for _ in range(5):
        model.train_on_batch([FIRST, FIRST], np.zeros((B, 1)))
        scales.append(np.exp(array(layer.log_scale)))
    assert scales[0] > 5.1
    assert_close(scales[-1], 6.0)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"max_scale": -1.0}])
def test_rejects_options_that_are_not_positive(options):
    with pytest.raises(ValueError, match="must be a positive number"):
        CosineSimilarity(**options)


def test_rejects_an_initial_scale_above_the_maximum():
    with pytest.raises(ValueError, match="at least 1 / max_scale. Received: temp"):
        CosineSimilarity(temperature=0.001)


@pytest.mark.parametrize("shape", [(N, D + 1), (N, 2, D)])
def test_rejects_vectors_of_different_widths(shape):
    with pytest.raises(ValueError, match="must be vectors of one width"):
        CosineSimilarity()(FIRST, np.ones(shape))
