import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import (
    AttentionPooling,
    ClassToken,
    ClassTokenPooling,
    LastStepPooling,
    MaxPooling,
    MeanPooling,
)
from tests.helpers import (
    array,
    assert_close,
    check_batch_equals_rows,
    check_fully_masked_rows_are_finite,
    check_layer,
    check_padding_changes_nothing,
    length_mask,
    random_array,
    randomize,
    with_keras_mask,
)

B, S, D, UNITS = 3, 7, 5, 11

MASK = length_mask(4, 7, 1, size=S)
MASK[0, :2] = False  # left padding as well
MASK[1, 3] = False  # and a gap
EMPTY_ROW_MASK = MASK & (np.arange(B) != 1)[:, None]

POOLINGS = [
    MeanPooling,
    MaxPooling,
    LastStepPooling,
    ClassTokenPooling,
    AttentionPooling,
]

each_pooling = pytest.mark.parametrize("pooling_class", POOLINGS)


def make(pooling_class):
    """Return a pooling with random weights, and sequences without positive values.

    A zero that is taken for a value becomes the maximum, so that the test fails.
    """
    pooling, sequences = pooling_class(), -np.abs(random_array(B, S, D))
    pooling(sequences)
    randomize(pooling)
    return pooling, sequences


def random_initializer():
    return keras.initializers.RandomNormal(stddev=0.3)


# The contract of layers -------------------------------------------------------------


@pytest.mark.parametrize("pooling_class", POOLINGS[:4])
def test_a_pooling_without_weights_keeps_the_contract_of_layers(pooling_class):
    check_layer(
        pooling_class, {}, {"sequences": random_array(B, S, D), "mask": EMPTY_ROW_MASK}
    )


def test_attention_pooling_keeps_the_contract_of_layers():
    check_layer(
        AttentionPooling,
        {"units": UNITS, "kernel_initializer": random_initializer},
        {"sequences": random_array(B, S, D), "mask": EMPTY_ROW_MASK},
        {"return_attention_scores": True},
    )


def test_a_class_token_keeps_the_contract_of_layers():
    check_layer(
        ClassToken,
        {"embeddings_initializer": random_initializer},
        {"sequences": random_array(B, S, D), "mask": EMPTY_ROW_MASK},
    )


# Oracles ----------------------------------------------------------------------------


def softmax(scores):
    exponentials = np.exp(np.array(scores) - np.max(scores))
    return exponentials / exponentials.sum()


def attention_weights(pooling, steps):
    """Return the attention weights of Yang et al. (2016), equations 5 and 6."""
    kernel, bias, query = (array(weight) for weight in pooling.weights)
    return softmax([query[:, 0] @ np.tanh(step @ kernel + bias) for step in steps])


ORACLES = {
    MeanPooling: lambda pooling, steps: sum(steps) / len(steps),
    MaxPooling: lambda pooling, steps: [max(feature) for feature in steps.T],
    LastStepPooling: lambda pooling, steps: steps[-1],
    ClassTokenPooling: lambda pooling, steps: steps[0],
    AttentionPooling: lambda pooling, steps: attention_weights(pooling, steps) @ steps,
}


@each_pooling
@pytest.mark.parametrize("mask", [MASK, None], ids=["masked", "unmasked"])
def test_a_pooling_equals_a_loop_over_the_real_steps(pooling_class, mask):
    pooling, sequences = make(pooling_class)
    pooled = pooling(sequences, mask=mask)
    assert tuple(pooled.shape) == (B, D)
    for b in range(B):
        steps = sequences[b] if mask is None else sequences[b, mask[b]]
        expected = ORACLES[pooling_class](pooling, steps)
        assert_close(pooled[b], np.array(expected, "float32"))


def test_the_attention_scores_are_the_weights_of_the_sum():
    pooling, sequences = make(AttentionPooling)
    pooled, weights = pooling(sequences, mask=MASK, return_attention_scores=True)
    assert tuple(weights.shape) == (B, S)
    assert_close(pooling(sequences, mask=MASK), pooled, rtol=0, atol=0)
    for b in range(B):
        expected = np.zeros(S, "float32")
        expected[MASK[b]] = attention_weights(pooling, sequences[b, MASK[b]])
        assert_close(weights[b], expected)


def test_attention_pooling_has_the_width_of_the_sequence_by_default():
    pooling, _ = make(AttentionPooling)
    shapes = [tuple(weight.shape) for weight in pooling.weights]
    assert shapes == [(D, D), (D,), (D, 1)]
    assert pooling.get_config()["units"] is None


# Laws -------------------------------------------------------------------------------


@each_pooling
def test_padding_does_not_change_the_vector(pooling_class):
    pooling, sequences = make(pooling_class)

    def apply(sequences, mask):
        return [], [pooling(sequences, mask=mask)]

    check_padding_changes_nothing(apply, sequences, MASK)


@each_pooling
@pytest.mark.parametrize("garbage", [3e38, -3e38, np.inf, -np.inf, np.nan])
def test_masked_values_are_not_read(pooling_class, garbage):
    pooling, sequences = make(pooling_class)
    spoiled = np.where(MASK[..., None], sequences, np.float32(garbage))
    expected = pooling(sequences, mask=MASK)
    assert_close(pooling(spoiled, mask=MASK), expected, rtol=0, atol=0)


@each_pooling
def test_a_batch_equals_its_rows(pooling_class):
    pooling, sequences = make(pooling_class)
    check_batch_equals_rows(lambda x, mask: pooling(x, mask=mask), sequences, MASK)


@each_pooling
def test_a_fully_masked_row_gives_zeros(pooling_class):
    pooling, sequences = make(pooling_class)

    def apply(sequences, mask):
        return [pooling(sequences, mask=mask)]

    check_fully_masked_rows_are_finite(apply, sequences, MASK, zeros=True)


@each_pooling
def test_an_explicit_mask_equals_the_keras_mask_which_is_removed(pooling_class):
    pooling, sequences = make(pooling_class)
    carried = pooling(with_keras_mask(sequences, MASK))
    assert_close(carried, pooling(sequences, mask=MASK))
    assert np.abs(array(carried) - array(pooling(sequences))).max() > 0.01
    assert getattr(carried, "_keras_mask", None) is None


@each_pooling
def test_accepts_a_mask_of_zeros_and_ones_and_rejects_an_additive_one(
    pooling_class,
):
    pooling, sequences = make(pooling_class)
    expected = pooling(sequences, mask=MASK)
    assert_close(pooling(sequences, mask=MASK.astype("float32")), expected)
    additive = np.where(MASK, 0, -1e9).astype("float32")
    with pytest.raises(ValueError, match=r"mask with the value -1000000000\.0"):
        pooling(sequences, mask=additive)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_mean_of_a_long_sequence_neither_overflows_nor_stalls(dtype):
    sequences = np.full((1, 2003, 1), 60.0)  # the sum is beyond float16
    mean = MeanPooling(dtype=dtype)(sequences, mask=np.ones((1, 2003), "bool"))
    assert keras.backend.standardize_dtype(mean.dtype) == dtype
    assert array(ops.cast(mean, "float32")).item() == 60


@pytest.mark.parametrize("units", [0, -2, 1.5, True, "8"])
def test_units_must_be_a_positive_integer(units):
    with pytest.raises(ValueError, match=rf"`units` must be.*: units={units!r}\."):
        AttentionPooling(units)


# The class token --------------------------------------------------------------------


def test_the_class_token_precedes_every_sequence():
    layer, sequences = ClassToken(), random_array(B, S, D)
    layer(sequences)
    randomize(layer)
    longer = array(layer(sequences))
    assert_close(longer[:, 1:], sequences, rtol=0, atol=0)
    for b in range(B):
        assert_close(longer[b, 0], array(layer.embedding)[0, 0], rtol=0, atol=0)


def test_the_mask_includes_the_class_token():
    layer, sequences = ClassToken(), random_array(B, S, D)
    expected = [[True, *row] for row in EMPTY_ROW_MASK.tolist()]
    for longer in (
        layer(sequences, mask=EMPTY_ROW_MASK),
        layer(sequences, mask=EMPTY_ROW_MASK.astype("float32")),
        layer(with_keras_mask(sequences, EMPTY_ROW_MASK)),
    ):
        assert array(longer._keras_mask).tolist() == expected
    assert getattr(layer(sequences), "_keras_mask", None) is None
    with pytest.raises(ValueError, match=r"mask with the value -1000000000\.0"):
        layer(sequences, mask=np.where(EMPTY_ROW_MASK, 0, -1e9).astype("float32"))


def test_class_token_pooling_returns_the_class_token():
    layer, sequences = ClassToken(), random_array(B, S, D)
    pooled = ClassTokenPooling()(layer(with_keras_mask(sequences, EMPTY_ROW_MASK)))
    assert_close(pooled, np.repeat(array(layer.embedding)[0], B, axis=0))
