"""Additive and multiplicative attention: formulas, laws and errors.

Axes in shape comments: T query steps, S key steps.
"""

import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import BahdanauAttention, LuongAttention
from kseq.layers.attention import times_column
from tests.helpers import (
    array,
    assert_close,
    attend,
    check_batch_equals_rows,
    check_fully_masked_rows_are_finite,
    check_layer,
    check_layer_runs,
    check_padding_changes_nothing,
    gradient,
    length_mask,
    random_array,
    randomize,
    sigmoid,
    with_keras_mask,
)

B, T, S, QUERY, KEY, VALUE, UNITS = 3, 5, 7, 11, 13, 2, 17

MASK = length_mask(4, 7, 1, size=S)
MASK[0, :2] = False  # left padding as well


def random_initializer():
    return keras.initializers.RandomNormal(stddev=0.3)


BAHDANAU = (BahdanauAttention, {"units": UNITS})
GENERAL = (LuongAttention, {"score": "general"})
DOT = (LuongAttention, {"score": "dot"})
CONCAT = (LuongAttention, {"score": "concat", "units": UNITS})
LOCAL = (LuongAttention, {"score": "general", "window": 2})
MECHANISMS = [BAHDANAU, GENERAL, DOT, CONCAT, LOCAL]

each_mechanism = pytest.mark.parametrize(
    "mechanism", MECHANISMS, ids=["bahdanau", "general", "dot", "concat", "local"]
)


def key_size(mechanism):
    return QUERY if mechanism is DOT else KEY


def expected_attention(attention, query, keys, values):
    """Return the context `(D,)` and weights `(S,)` of one query, without padding."""
    window = getattr(attention, "window", None)
    if window is None:
        return attend(attention, query, keys, values)
    kernels = {weight.name: array(weight) for weight in attention.weights}
    hidden = np.tanh(query @ kernels["window_kernel"])
    centre = len(keys) * sigmoid(hidden @ kernels["position_kernel"][:, 0])
    distances = np.arange(1, len(keys) + 1) - centre  # Luong et al., 3.2
    is_near = abs(distances) <= window
    weights = np.zeros(len(keys))
    _, weights[is_near] = attend(attention, query, keys[is_near], values[is_near])
    weights = weights * np.exp(-(distances**2) / (2 * (window / 2) ** 2))
    return weights @ values, weights


def make(mechanism, **options):
    """Return an attention with random weights, and arrays query, value and key."""
    layer_class, init_args = mechanism
    attention = layer_class(**init_args, **options)
    query, key = random_array(B, T, QUERY), random_array(B, S, key_size(mechanism))
    value = random_array(B, S, VALUE)
    attention(query, value, key)
    randomize(attention)
    return attention, query, value, key


def test_bahdanau_attention_keeps_the_contract_of_layers():
    dead = MASK.copy()
    dead[1] = False
    check_layer(
        BahdanauAttention,
        {"units": UNITS, "kernel_initializer": random_initializer},
        {
            "query": random_array(B, T, QUERY),
            "value": random_array(B, S, VALUE),
            "key": random_array(B, S, KEY),
            "value_mask": dead,
        },
        {"return_attention_scores": True},
    )


def test_luong_attention_keeps_the_contract_of_layers():
    check_layer(
        LuongAttention,
        {
            "score": "concat",
            "units": UNITS,
            "scaled": True,
            "window": 3,
            "kernel_initializer": random_initializer,
        },
        {"query": random_array(B, T, QUERY), "value": random_array(B, S, KEY)},
    )


@pytest.mark.parametrize("score", ["dot", "general"])
def test_other_scores_keep_the_contract_of_layers(score):
    dead = MASK.copy()
    dead[1] = False
    check_layer_runs(
        LuongAttention,
        {"score": score, "scaled": True},
        {
            "query": random_array(B, T, QUERY),
            "value": random_array(B, S, QUERY),
            "value_mask": dead,
        },
    )


@pytest.mark.parametrize("place", [0, 1])
def test_a_product_with_a_column_has_the_gradient_of_a_matrix_product(place):
    arrays = [random_array(B, T, S, UNITS), random_array(UNITS, 1)]

    def slope_of(product):
        def total(x):
            both = [*arrays[:place], x, *arrays[place + 1 :]]
            return ops.sum(ops.sin(3 * product(*map(ops.convert_to_tensor, both))))

        return gradient(total, arrays[place])

    expected = slope_of(lambda hidden, column: (hidden @ column)[..., 0])
    assert_close(slope_of(times_column), expected, rtol=1e-4, atol=1e-4)


@each_mechanism
@pytest.mark.parametrize("scaled", [False, True])
def test_attention_equals_a_loop(mechanism, scaled):
    if mechanism is BAHDANAU and scaled:
        pytest.skip("additive attention has no scale")
    attention, query, value, key = make(
        mechanism, **({"scaled": True} if scaled else {})
    )
    context, weights = attention(
        query, value, key, value_mask=MASK, return_attention_scores=True
    )
    for b, t in np.ndindex(B, T):
        real = MASK[b]
        expected_context, expected_weights = expected_attention(
            attention, query[b, t], key[b, real], value[b, real]
        )
        assert_close(context[b, t], expected_context)
        assert_close(array(weights)[b, t, real], expected_weights)
        assert (array(weights)[b, t, ~real] == 0).all()


@each_mechanism
def test_keys_default_to_the_values(mechanism):
    attention, query, _, key = make(mechanism)
    assert_close(attention(query, key), attention(query, key, key))


@each_mechanism
def test_returning_the_scores_does_not_change_the_context(mechanism):
    attention, query, value, key = make(mechanism)
    mask = MASK & (np.arange(B) != 1)[:, None]
    context, weights = attention(
        query, value, key, value_mask=mask, return_attention_scores=True
    )
    assert tuple(context.shape) == (B, T, VALUE)
    assert tuple(weights.shape) == (B, T, S)
    assert_close(attention(query, value, key, value_mask=mask), context, rtol=0, atol=0)


@each_mechanism
def test_project_keys_and_attend_equal_a_call(mechanism):
    attention, query, value, key = make(mechanism)
    keys = attention.project_keys(key)
    for t in range(T):
        step = attention.attend(query[:, t : t + 1], keys, value, MASK)
        whole = attention(
            query, value, key, value_mask=MASK, return_attention_scores=True
        )
        assert_close(list(step), [x[:, t : t + 1] for x in whole])


@each_mechanism
def test_padding_does_not_change_the_context(mechanism):
    attention, query, _, key = make(mechanism)

    def apply(key, mask):
        context, weights = attention(
            query, key, value_mask=mask, return_attention_scores=True
        )
        return [ops.swapaxes(weights, 1, 2)], [context]

    check_padding_changes_nothing(apply, key, MASK)


@each_mechanism
def test_a_batch_equals_its_rows(mechanism):
    attention, *inputs = make(mechanism)
    check_batch_equals_rows(attention, *inputs, MASK)


@each_mechanism
def test_a_row_with_nothing_to_read_gives_zeros(mechanism):
    attention, query, _, key = make(mechanism)

    def apply(key, mask):
        return list(
            attention(query, key, value_mask=mask, return_attention_scores=True)
        )

    check_fully_masked_rows_are_finite(apply, key, MASK, zeros=True)


@each_mechanism
def test_an_explicit_mask_equals_the_keras_mask(mechanism):
    attention, query, value, key = make(mechanism)
    carried = attention(query, with_keras_mask(value, MASK), key)
    assert_close(carried, attention(query, value, key, value_mask=MASK))
    assert np.abs(array(carried) - array(attention(query, value, key))).max() > 0.01


def test_the_context_has_the_mask_of_the_query():
    attention, query, value, _ = make(BAHDANAU)
    query_mask = length_mask(2, 5, 3, size=T)
    attention = BahdanauAttention(UNITS)
    context = attention(with_keras_mask(query, query_mask), value)
    assert array(context._keras_mask).tolist() == query_mask.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_large_scores_do_not_overflow(dtype):
    attention = LuongAttention("dot", dtype=dtype)
    query = random_array(B, T, QUERY) * 20
    context, weights = attention(query, query, return_attention_scores=True)
    assert np.isfinite(array(context)).all()
    np.testing.assert_allclose(array(weights).sum(axis=-1), 1, atol=2e-3)


def test_scaled_scores_do_not_overflow_where_products_would():
    query = np.full((1, 1, 64), 40.0, "float32")  # 64 * 40 * 40 overflows float16
    value = np.stack([query[:, 0], query[:, 0] / 2], axis=1)
    attention = LuongAttention("dot", scaled=True, dtype="float16")
    _, weights = attention(query, value, return_attention_scores=True)
    assert array(weights).tolist() == [[[1, 0]]]


@each_mechanism
def test_rejects_a_query_without_a_step_axis(mechanism):
    attention, query, value, key = make(mechanism)
    with pytest.raises(ValueError, match="`query` must be"):
        attention(query[:, 0], value, key)


@each_mechanism
def test_rejects_an_additive_mask(mechanism):
    attention, query, value, key = make(mechanism)
    additive = np.where(MASK, 0, -1e9).astype("float32")
    with pytest.raises(ValueError, match=r"mask with the value -1000000000\.0"):
        attention(query, value, key, value_mask=additive)


def test_rejects_a_float_mask_in_a_functional_model():
    if keras.backend.backend() == "torch":
        pytest.skip("torch runs everything eagerly, so the values can be seen")
    query, value = keras.Input((None, QUERY)), keras.Input((None, KEY))
    with pytest.raises(ValueError, match="dtype=float32 in a compiled function"):
        BahdanauAttention(UNITS)(query, value, value_mask=keras.Input((None,)))


@pytest.mark.parametrize("units", [0, -2, 1.5, None, True, "8"])
def test_units_must_be_a_positive_integer(units):
    message = rf"`units` must be a positive integer\. Received: units={units!r}\."
    with pytest.raises(ValueError, match=message):
        BahdanauAttention(units)
    with pytest.raises(ValueError, match=message):
        LuongAttention("concat", units=units)


def test_units_may_be_a_numpy_integer():
    for attention in (
        BahdanauAttention(np.int64(5)),
        LuongAttention("concat", units=np.int64(5)),
    ):
        assert type(attention.get_config()["units"]) is int


def test_rejects_units_with_other_scores_than_concat():
    with pytest.raises(ValueError, match='Received: units=5 with score="general"'):
        LuongAttention("general", units=5)


def test_rejects_an_unknown_score():
    message = '"dot", "general", "concat". Received: score=\'cosine\''
    with pytest.raises(ValueError, match=message):
        LuongAttention("cosine")


@pytest.mark.parametrize("window", [0, -1, 1.5, "wide"])
def test_the_window_must_be_a_positive_integer(window):
    with pytest.raises(ValueError, match=f"`window` must be.*window={window!r}"):
        LuongAttention("dot", window=window)


def test_a_window_reads_only_its_neighbourhood_of_a_long_source():
    query, value = random_array(1, 2, QUERY), random_array(1, 500, QUERY)
    attention = LuongAttention("dot", window=10)
    attention.build(query.shape, value.shape)
    attention.position_kernel.assign(np.zeros((QUERY, 1)))
    _, weights = attention(query, value, return_attention_scores=True)
    (places,) = np.nonzero(array(weights)[0].any(axis=0))
    assert [places.min() + 1, places.max() + 1] == [240, 260]  # p = 500 / 2


def test_the_dot_score_needs_a_query_and_keys_of_the_same_size():
    message = f'query size {QUERY}, key size {KEY}.*score="general"'
    with pytest.raises(ValueError, match=message):
        LuongAttention("dot")(random_array(B, T, QUERY), random_array(B, S, KEY))
