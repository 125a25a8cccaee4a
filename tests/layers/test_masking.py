import keras
import numpy as np
import pytest
from keras import ops

from kseq import layers
from kseq.layers import (
    as_boolean_mask,
    combine_masks,
    look_ahead_mask,
    masked_softmax,
    padding_mask,
)
from kseq.layers.masking import mask_of
from tests.helpers import array, assert_close, compiled, gradient, random_array

B, T, S = 3, 5, 7

# The first row has one allowed position, the second none, the third several.
MASK = np.zeros((B, 1, S), "bool")
MASK[0, 0, 4] = True
MASK[2, 0, [0, 3, 6]] = True


def loop_softmax(scores, mask):
    weights = np.zeros(scores.shape)
    for row in np.ndindex(*scores.shape[:-1]):
        allowed = np.broadcast_to(mask, scores.shape)[row]
        if allowed.any():
            kept = scores[row][allowed].astype("float64")
            exponentials = np.exp(kept - kept.max())
            weights[row][allowed] = exponentials / exponentials.sum()
    return weights


def test_padding_mask_marks_the_real_tokens():
    token_ids = [[[5, 7, 0], [0, 7, 5]]]
    assert array(padding_mask(token_ids)).tolist() == [
        [[True, True, False], [False, True, True]]
    ]
    assert array(padding_mask(token_ids, pad_token_id=7)).tolist() == [
        [[True, False, True], [True, False, True]]
    ]


@pytest.mark.parametrize("offset", [0, 2])
@pytest.mark.parametrize("key_length", [None, S])
def test_look_ahead_mask_hides_the_future(offset, key_length):
    mask = array(look_ahead_mask(T, key_length, offset))
    assert mask.dtype == bool
    assert mask.shape == (T, key_length or T + offset)
    for t, s in np.ndindex(*mask.shape):
        assert mask[t, s] == (s <= t + offset)


def test_look_ahead_mask_of_one_step_is_a_row_of_the_whole_mask():
    whole = array(look_ahead_mask(T))
    for t in range(T):
        assert_close(look_ahead_mask(1, T, offset=t), whole[t : t + 1])


def test_look_ahead_mask_takes_an_offset_known_only_at_run_time():
    mask = compiled(lambda offset: look_ahead_mask(2, S, offset))(
        ops.convert_to_tensor(3)
    )
    assert_close(mask, look_ahead_mask(2, S, 3))


def test_combined_masks_allow_only_what_every_mask_allows():
    padding, ahead = MASK, array(look_ahead_mask(T, S))
    combined = combine_masks(padding, None, ahead.astype("int32"))
    assert array(combined).tolist() == (padding & ahead).tolist()
    assert combine_masks(None, None) is None
    assert combine_masks() is None


def test_combine_masks_rejects_an_additive_mask():
    with pytest.raises(
        ValueError, match=r"Received: mask with the value -1000000000\.0"
    ):
        combine_masks(MASK, np.where(MASK, 0.0, -1e9))


@pytest.mark.parametrize("dtype", ["bool", "int32", "int8", "float32", "float16"])
def test_masks_of_zeros_and_ones_become_boolean(dtype):
    mask = as_boolean_mask(MASK.astype(dtype))
    assert keras.backend.standardize_dtype(mask.dtype) == "bool"
    assert array(mask).tolist() == MASK.tolist()


@pytest.mark.parametrize("value", [-1e9, -np.inf, 0.5, 2, np.nan])
def test_rejects_a_mask_of_other_numbers(value):
    mask = np.where(MASK, 0.0, value).astype("float32")
    with pytest.raises(
        ValueError, match=r"Received: mask with the value -?(\d|inf|nan)"
    ):
        as_boolean_mask(mask)
    with pytest.raises(ValueError, match="Convert an additive mask"):
        masked_softmax(random_array(B, T, S), mask)


def test_a_compiled_function_rejects_a_float_mask():
    if keras.backend.backend() == "torch":
        pytest.skip("torch runs everything eagerly, so the values can be seen")
    with pytest.raises(ValueError, match="dtype=float32 in a compiled function"):
        compiled(as_boolean_mask)(ops.convert_to_tensor(MASK.astype("float32")))
    mask = compiled(as_boolean_mask)(ops.convert_to_tensor(MASK.astype("int32")))
    assert array(mask).tolist() == MASK.tolist()


@pytest.mark.parametrize("axis", [-1, 1])
def test_masked_softmax_equals_a_loop(axis):
    scores = 3 * random_array(B, T, S)
    weights = masked_softmax(
        np.moveaxis(scores, -1, axis), np.moveaxis(MASK, -1, axis), axis=axis
    )
    expected = loop_softmax(scores, MASK)
    assert_close(weights, np.moveaxis(expected, -1, axis).astype("float32"))


def test_masked_softmax_without_a_mask_allows_all():
    scores = random_array(B, T, S)
    everything = np.ones_like(MASK)
    assert_close(masked_softmax(scores), masked_softmax(scores, everything))
    assert_close(masked_softmax(scores), loop_softmax(scores, everything))


def test_compiled_masked_softmax_equals_the_eager_one():
    scores = ops.convert_to_tensor(random_array(B, T, S))
    mask = ops.convert_to_tensor(MASK)
    assert_close(compiled(masked_softmax)(scores, mask), masked_softmax(scores, mask))


def test_a_fully_masked_row_and_its_gradient_are_zero():
    scores = random_array(B, T, S)
    weights = array(masked_softmax(scores, MASK))
    assert (weights[1] == 0).all()
    slope = gradient(lambda s: ops.sum(ops.sin(5 * masked_softmax(s, MASK))), scores)
    assert (slope[1] == 0).all()
    assert (slope[2][:, MASK[2, 0]] != 0).all()


def test_one_allowed_position_has_all_the_weight_and_no_gradient():
    scores = 11 * random_array(B, T, S)
    weights = array(masked_softmax(scores, MASK))
    assert_close(weights[0, :, 4], np.ones(T), rtol=0, atol=1e-6)
    slope = gradient(lambda s: ops.sum(ops.sin(5 * masked_softmax(s, MASK))), scores)
    assert_close(slope[0], np.zeros((T, S)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1e4, 1e30, 1e38])
def test_huge_scores_stay_finite(size):
    scores = size * np.sign(random_array(B, T, S)) * 3
    expected = loop_softmax(scores, MASK)
    assert_close(masked_softmax(scores, MASK), expected.astype("float32"))
    lowest = np.full((B, T, S), -3 * size, "float32")
    expected = loop_softmax(lowest, MASK)
    assert_close(masked_softmax(lowest, MASK), expected.astype("float32"))
    slope = gradient(lambda s: ops.sum(ops.sin(5 * masked_softmax(s, MASK))), scores)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("size", [3, 100])
@pytest.mark.parametrize("dtype, rounding", [("float16", 1e-3), ("bfloat16", 4e-3)])
def test_half_precision_rounds_only_the_result(dtype, rounding, size):
    scores = ops.cast(size * random_array(B, T, S), dtype)
    weights = masked_softmax(scores, MASK)
    assert keras.backend.standardize_dtype(weights.dtype) == dtype
    expected = loop_softmax(array(ops.cast(scores, "float32")), MASK)
    assert_close(ops.cast(weights, "float32"), expected, rtol=rounding, atol=1e-7)


@pytest.mark.parametrize("garbage", [np.inf, -np.inf, np.nan])
def test_masked_scores_do_not_affect_the_result(garbage):
    scores = random_array(B, T, S)
    dirty = np.where(MASK, scores, garbage).astype("float32")
    assert_close(masked_softmax(dirty, MASK), masked_softmax(scores, MASK))
    slope = gradient(lambda s: ops.sum(ops.sin(5 * masked_softmax(s, MASK))), dirty)
    assert np.isfinite(slope).all()
    assert (slope[np.broadcast_to(~MASK, slope.shape)] == 0).all()


def test_a_single_position_has_all_the_weight_or_none():
    scores = random_array(3, 2, 1)
    assert_close(masked_softmax(scores), np.ones((3, 2, 1)))
    mask = np.array([True, False, True])[:, None, None]
    assert_close(masked_softmax(scores, mask), np.ones((3, 2, 1)) * mask)


def test_the_mask_of_a_tensor_is_found_while_tracing():
    class Masked(keras.Model):
        def call(self, series):
            masks = mask_of(keras.layers.Masking()(series)), mask_of(series)
            return [mask for mask in masks if mask is not None]

    series = np.array([[[5.0], [7.0], [0.0]], [[9.0], [0.0], [0.0]]])
    (mask,) = Masked().predict_on_batch(series)
    assert mask.tolist() == (series[..., 0] != 0).tolist()


# Masks and memories that do not fit ---------------------------------------------------

SEQUENCE_LAYERS = {
    "MeanPooling": lambda: layers.MeanPooling(),
    "RecurrentEncoder": lambda: layers.RecurrentEncoder("gru", 2),
    "TransformerEncoder": lambda: layers.TransformerEncoder(num_heads=2),
}
MEMORY_LAYERS = {
    "BahdanauAttention": (lambda: layers.BahdanauAttention(2), "value"),
    "LuongAttention": (lambda: layers.LuongAttention(), "value"),
    "LocationAwareAttention": (lambda: layers.LocationAwareAttention(2), "value"),
    "MultiHeadAttention": (lambda: layers.MultiHeadAttention(2), "value"),
    "RecurrentDecoder": (lambda: layers.RecurrentDecoder("gru", 2), "memory"),
    "TransformerDecoder": (lambda: layers.TransformerDecoder(num_heads=2), "memory"),
    "TransformerDecoder, prefix": (
        lambda: layers.TransformerDecoder(num_heads=2, cross_attention=False),
        "memory",
    ),
    "TransformerDecoderBlock": (
        lambda: layers.TransformerDecoderBlock(num_heads=2),
        "memory",
    ),
}
SEQUENCE, OTHER = random_array(B, S, 6), random_array(B, T, 6)
MASK_MESSAGE = "mask of a sequence must have .*Received: a mask of shape"


@pytest.mark.parametrize("shape", [(B, S + 1), (B + 1, S), (B, S, 1), (S,)])
@pytest.mark.parametrize("kind", SEQUENCE_LAYERS)
def test_rejects_a_mask_that_does_not_fit_its_sequence(kind, shape):
    with pytest.raises(ValueError, match=MASK_MESSAGE):
        SEQUENCE_LAYERS[kind]()(SEQUENCE, mask=np.ones(shape, "bool"))


@pytest.mark.parametrize("kind", MEMORY_LAYERS)
def test_rejects_a_mask_or_memory_that_does_not_fit(kind):
    make, name = MEMORY_LAYERS[kind]
    layer = make()
    layer(OTHER, SEQUENCE)
    with pytest.raises(ValueError, match=MASK_MESSAGE):
        layer(OTHER, SEQUENCE, **{f"{name}_mask": np.ones((B, T), "bool")})
    with pytest.raises(
        ValueError, match=rf"`{name}` must have the batch size of .* \(2, 7, 6"
    ):
        layer(OTHER, SEQUENCE[:2])
    with pytest.raises(ValueError, match=f"`{name}` must be a sequence of vectors"):
        layer(OTHER, SEQUENCE[:, 0])


@pytest.mark.parametrize(
    "layer",
    [layers.RecurrentDecoder("gru", 2), layers.TransformerDecoder(num_heads=2)],
    ids=lambda layer: type(layer).__name__,
)
def test_rejects_a_mask_that_does_not_fit_the_inputs_of_a_decoder(layer):
    with pytest.raises(ValueError, match=MASK_MESSAGE):
        layer(OTHER, SEQUENCE, inputs_mask=np.ones((B, S), "bool"))


@pytest.mark.parametrize("shape", [(T, S), (B, S, T), (B, 1, T, T), (B, T)])
@pytest.mark.parametrize(
    "layer",
    [layers.MultiHeadAttention(2), layers.TransformerEncoderBlock(2)],
    ids=lambda layer: type(layer).__name__,
)
def test_rejects_an_attention_mask_that_does_not_fit(layer, shape):
    with pytest.raises(ValueError, match="`attention_mask` must .*mask of shape"):
        layer(OTHER, attention_mask=np.ones(shape, "bool"))
