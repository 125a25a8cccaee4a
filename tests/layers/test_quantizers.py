"""Quantizers, compared with their formulas in NumPy.

Axes in shape comments: B batch, H rows, W columns, N codes, D size of a code.
"""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import FiniteScalarQuantizer, VectorQuantizer
from tests.helpers import (
    array,
    assert_close,
    check_layer,
    gradient,
    random_array,
)

B, H, W, N, D = 2, 3, 5, 7, 3
LEVELS = [3, 4, 5]
FEATURES = 2 * random_array(B, H, W, D)


def test_finite_scalar_quantizer_keeps_the_contract_of_layers():
    check_layer(FiniteScalarQuantizer, {"levels": LEVELS}, {"features": FEATURES})


def test_vector_quantizer_keeps_the_contract_of_layers():
    arguments = {
        "num_codes": N,
        "width": D,
        "decay": 0.9,
        "restart_below": 0.5,
        "commitment": 0.1,
        "seed": 5,
    }
    check_layer(VectorQuantizer, arguments, {"features": FEATURES})


def bounded(x, level):
    """Return the feature bounded by its outermost levels, and its derivative."""
    half = (level - 1) * 1.001 / 2
    offset = 0.0 if level % 2 else 0.5
    angle = np.tanh(x + np.arctanh(offset / half))
    return angle * half - offset, (1 - angle**2) * half


def test_a_feature_is_rounded_to_one_of_its_levels():
    codes = array(FiniteScalarQuantizer(LEVELS)(FEATURES))
    for place, level in enumerate(LEVELS):
        value, _ = bounded(FEATURES[..., place].astype("float64"), level)
        assert_close(codes[..., place], np.round(value) / (level // 2))
        assert len(np.unique(codes[..., place])) == level


def test_finite_scalar_quantizer_has_a_straight_through_gradient():
    quantizer, upstream = (
        FiniteScalarQuantizer(LEVELS),
        random_array(B, H, W, D, seed=5),
    )
    slope = gradient(lambda x: ops.sum(ops.multiply(quantizer(x), upstream)), FEATURES)
    for place, level in enumerate(LEVELS):
        _, expected = bounded(FEATURES[..., place], level)
        expected = expected / (level // 2) * upstream[..., place]
        assert_close(slope[..., place], expected)


def test_ids_and_finite_scalar_codes_are_one_to_one():
    quantizer = FiniteScalarQuantizer(LEVELS)
    numbers = np.arange(quantizer.num_codes, dtype="int32")
    codes = array(quantizer.ids_to_codes(numbers))
    assert len(np.unique(codes, axis=0)) == quantizer.num_codes == 60
    assert abs(codes).max() == 1
    assert (array(quantizer.codes_to_ids(codes)) == numbers).all()
    far = 9.0 * np.array(list(itertools.product([-1, 1], repeat=D)), "float32")
    ids = array(quantizer.codes_to_ids(quantizer(far)))
    assert ids.min() == 0 and ids.max() == quantizer.num_codes - 1


@pytest.mark.parametrize(
    "make", [lambda: FiniteScalarQuantizer(LEVELS), lambda: VectorQuantizer(N, D)]
)
def test_codes_survive_the_conversion_to_ids(make):
    quantizer = make()
    codes = quantizer(FEATURES)
    ids = quantizer.codes_to_ids(codes)
    assert tuple(ids.shape) == (B, H, W) and "int32" in str(ids.dtype)
    assert_close(quantizer.ids_to_codes(ids), codes)


def built(**options):
    quantizer = VectorQuantizer(N, D, **options)
    quantizer.build(FEATURES.shape)
    return quantizer


def nearest(vectors, codebook):
    return ((vectors[:, None] - codebook) ** 2).sum(-1).argmin(-1)


def test_a_vector_is_replaced_by_the_nearest_code():
    quantizer = built()
    vectors, codebook = FEATURES.reshape(-1, D), array(quantizer.codebook)
    codes = array(quantizer(FEATURES)).reshape(-1, D)
    assert_close(codes, codebook[nearest(vectors, codebook)])


def test_vector_quantizer_has_straight_through_and_commitment_gradients():
    quantizer, upstream = built(commitment=0.3), random_array(B, H, W, D, seed=5)
    slope = gradient(lambda x: ops.sum(ops.multiply(quantizer(x), upstream)), FEATURES)
    assert_close(slope, upstream)

    def commitment(x):
        quantizer(x)
        return quantizer.losses[-1]

    codes = array(quantizer(FEATURES))
    expected = 2 * 0.3 * (FEATURES - codes) / FEATURES.size
    assert_close(gradient(commitment, FEATURES), expected)


def test_codes_move_to_the_mean_of_their_vectors():
    quantizer = built(decay=0.6, restart_below=0)
    counts, sums = np.zeros(N), np.zeros((N, D))
    codebook = array(quantizer.codebook).astype("float64")
    for seed in range(3):
        features = 2 * random_array(B, H, W, D, seed=seed)
        vectors = features.reshape(-1, D)
        ids = nearest(vectors, codebook)
        for code in range(N):
            own = vectors[ids == code]
            counts[code] = 0.6 * counts[code] + 0.4 * len(own)
            sums[code] = 0.6 * sums[code] + 0.4 * own.sum(0)
            if counts[code] > 0:
                codebook[code] = sums[code] / counts[code]
        quantizer(features, training=True)
        assert_close(quantizer.codebook, codebook)
    before = array(quantizer.codebook)
    quantizer(features)
    assert_close(quantizer.codebook, before)


def test_an_unused_code_restarts_at_a_vector():
    quantizer = built(restart_below=0.2, seed=3)
    quantizer.codebook.assign(100 + random_array(N, D))
    quantizer(FEATURES, training=True)
    distances = abs(array(quantizer.codebook)[:, None] - FEATURES.reshape(-1, D))
    assert (distances.max(-1).min(-1) < 1e-5).sum() >= N - 1  # one code had all vectors
    quantizer(FEATURES, training=True)
    assert len(np.unique(array(quantizer.codes_to_ids(quantizer(FEATURES))))) > N / 2


@pytest.mark.parametrize(
    "make", [lambda: FiniteScalarQuantizer(LEVELS), lambda: VectorQuantizer(N, D)]
)
def test_an_autoencoder_with_a_quantizer_learns(make):
    inputs = keras.Input((D,))
    codes = make()(keras.layers.Dense(D)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(D)(codes))
    model.compile(keras.optimizers.Adam(0.03), "mse")
    x = random_array(64, D)
    losses = model.fit(x, x, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: FiniteScalarQuantizer((3, 1)), "integers of at least 2"),
        (lambda: FiniteScalarQuantizer(()), "integers of at least 2"),
        (lambda: FiniteScalarQuantizer(5), "integers of at least 2"),
        (lambda: FiniteScalarQuantizer((3, 5))(FEATURES), "size of 2, that of a code"),
        (lambda: VectorQuantizer(N, 2)(FEATURES), "size of 2, that of a code"),
        (lambda: VectorQuantizer(0, D), "`num_codes` must be a positive integer"),
        (lambda: VectorQuantizer(N, D, decay=1), "`decay` must be"),
        (lambda: VectorQuantizer(N, D, commitment=-1), "`commitment` must be"),
        (lambda: VectorQuantizer(N, D, restart_below=-1), "`restart_below` must be"),
    ],
)
def test_rejects_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
