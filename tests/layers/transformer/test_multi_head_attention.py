import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import MultiHeadAttention, look_ahead_mask
from tests.helpers import (
    array,
    assert_close,
    check_batch_equals_rows,
    check_fully_masked_rows_are_finite,
    check_layer,
    check_layer_runs,
    check_padding_changes_nothing,
    gradient,
    length_mask,
    random_array,
    randomize,
    with_keras_mask,
)

B, T, S, D, VALUE, HEADS, SHARED, C = 3, 5, 7, 11, 13, 6, 2, 4

MASK = length_mask(4, 7, 2, size=S)
MASK[0, :2] = False  # left padding as well

QUERY, VALUES = random_array(B, T, D), random_array(B, S, VALUE)

GROUPED = {"num_heads": HEADS, "key_dim": C, "num_key_value_heads": SHARED}


@keras.saving.register_keras_serializable(package="tests")
class DistanceBias(keras.layers.Layer):
    """Bias proportional to the distance, with a slope for each head, as in ALiBi."""

    def __init__(self, num_heads, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, shape):
        self.slopes = self.add_weight(shape=(self.num_heads,), name="slopes")

    def call(self, distances):
        distances = ops.cast(ops.abs(distances), self.compute_dtype)
        return ops.expand_dims(distances, -1) * self.slopes

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads}


def make(value_shape=None, **options):
    attention = MultiHeadAttention(**{"num_heads": HEADS, "key_dim": C, **options})
    attention.build((B, T, D), value_shape)
    randomize(attention)
    return attention


def affine(attention, name, x):
    projection = getattr(attention, f"{name}_projection")
    outputs, bias = x @ array(projection.kernel), projection.bias
    return outputs if bias is None else outputs + array(bias)


def read(attention, query, keys, values, bias=None):
    """Return the output and the weights `(H, S)` of one query `(D,)`."""
    q = affine(attention, "query", query).reshape(HEADS, C)
    k = affine(attention, "key", keys).reshape(len(keys), -1, C)
    v = affine(attention, "value", values).reshape(len(keys), -1, C)
    contexts, weights = [], []
    for head in range(HEADS):
        shared = head * k.shape[1] // HEADS
        scores = np.array([q[head] @ key / np.sqrt(C) for key in k[:, shared]])
        if bias is not None:
            scores = scores + bias[head]
        exponentials = np.exp(scores - scores.max())
        weights.append(exponentials / exponentials.sum())
        contexts.append(weights[-1] @ v[:, shared])
    return affine(attention, "output", np.concatenate(contexts)), weights


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("look_ahead", [False, True])
@pytest.mark.parametrize("options", [{}, GROUPED, {"relative_bias": "distance"}])
def test_outputs_do_not_depend_on_returning_attention_scores(
    options, look_ahead, training
):
    if "relative_bias" in options:
        options = {"relative_bias": DistanceBias(HEADS)}
    attention, mask = make(**options), length_mask(5, 0, 2, size=T)
    masks = {"query_mask": mask, "look_ahead": look_ahead, "training": training}

    def outputs(query, **more):
        read = attention(query, **masks, **more)
        return read[0] if more else read

    def total(query, **more):
        return ops.sum(ops.square(outputs(query, **more)))

    query = random_array(B, T, D)
    expected = outputs(query, return_attention_scores=True)
    assert_close(outputs(query), expected)
    slopes = gradient(lambda x: total(x, return_attention_scores=True), query)
    assert_close(gradient(total, query), slopes)


def test_multi_head_attention_keeps_the_contract_of_layers():
    mask = MASK.copy()
    mask[1] = False
    check_layer(
        MultiHeadAttention,
        {
            **GROUPED,
            "dropout": 0.3,
            "use_bias": False,
            "rotary": True,
            "relative_bias": lambda: DistanceBias(HEADS),
            "kernel_initializer": lambda: keras.initializers.RandomNormal(stddev=0.3),
        },
        {
            "query": QUERY,
            "value": VALUES,
            "key": random_array(B, S, 17),
            "query_mask": length_mask(5, 3, 1, size=T),
            "value_mask": mask,
        },
        {"return_attention_scores": True},
    )


def test_self_attention_keeps_the_contract_of_layers():
    check_layer_runs(
        MultiHeadAttention,
        {"num_heads": 2},
        {"query": random_array(B, T, 6), "query_mask": length_mask(5, 0, 2, size=T)},
        {"look_ahead": True},
    )


@pytest.mark.parametrize("shared", [1, SHARED, HEADS])
@pytest.mark.parametrize("use_bias", [True, False])
def test_multi_head_attention_equals_a_loop(shared, use_bias):
    attention = make(VALUES.shape, num_key_value_heads=shared, use_bias=use_bias)
    outputs, weights = attention(
        QUERY, VALUES, value_mask=MASK, return_attention_scores=True
    )
    for b, t in np.ndindex(B, T):
        real = VALUES[b, MASK[b]]
        expected, expected_weights = read(attention, QUERY[b, t], real, real)
        assert_close(outputs[b, t], expected)
        assert_close(array(weights)[b, :, t, MASK[b]].T, np.array(expected_weights))
        assert (array(weights)[b, :, t, ~MASK[b]] == 0).all()


def test_a_separate_key_is_scored_and_the_value_is_averaged():
    attention = MultiHeadAttention(HEADS, C)
    key = random_array(B, S, 17)
    attention.build(QUERY.shape, VALUES.shape, key.shape)
    randomize(attention)
    outputs = attention(QUERY, VALUES, key)
    assert_close(outputs[1, 2], read(attention, QUERY[1, 2], key[1], VALUES[1])[0])


@pytest.mark.parametrize("shared", [SHARED, HEADS])
def test_self_attention_in_one_product_equals_three(shared):
    attention = make(num_key_value_heads=shared)
    mask = MASK[:, :T]
    alone = attention(QUERY, query_mask=mask)
    assert_close(alone, attention(QUERY, QUERY, query_mask=mask, value_mask=mask))


def test_a_relative_bias_is_added_to_the_scores_by_distance():
    attention = make(VALUES.shape, relative_bias=DistanceBias(HEADS))
    slopes = array(attention.relative_bias.slopes)
    outputs = attention(QUERY, VALUES)
    for t in range(T):
        bias = np.abs(np.arange(S) - t) * slopes[:, None]
        expected, _ = read(attention, QUERY[0, t], VALUES[0], VALUES[0], bias)
        assert_close(outputs[0, t], expected)


def test_rotary_scores_depend_only_on_the_distance():
    attention = make(rotary=True)
    same = np.repeat(random_array(1, 1, D), T, axis=1)
    _, weights = attention(same, return_attention_scores=True)
    scores = np.log(array(weights)[0])  # H T T, up to a constant of each row
    ratios = scores[:, :, 1:] - scores[:, :, :-1]
    for t in range(T - 1):
        assert_close(ratios[:, t + 1, t + 1 :], ratios[:, t, t:-1])
    assert np.ptp(ratios) > 0.01


def test_look_ahead_hides_the_future():
    attention = make(rotary=True)
    changed = QUERY.copy()
    changed[:, 3:] += 1
    before = array(attention(QUERY, look_ahead=True))
    after = array(attention(changed, look_ahead=True))
    assert_close(after[:, :3], before[:, :3])
    assert (after[:, 3:] != before[:, 3:]).all()


def test_look_ahead_equals_the_look_ahead_mask():
    attention = make()
    expected = attention(QUERY, attention_mask=look_ahead_mask(T))
    assert_close(attention(QUERY, look_ahead=True), expected)


@pytest.mark.parametrize("options", [{}, {"rotary": True, "relative_bias": 1}])
def test_padding_of_the_value_changes_nothing(options):
    # Positions of queries and values are counted separately, so this holds, too.
    if "relative_bias" in options:
        options = {**options, "relative_bias": DistanceBias(HEADS)}
    attention = make(VALUES.shape, **options)

    def apply(value, mask):
        return [], [attention(QUERY, value, value_mask=mask)]

    check_padding_changes_nothing(apply, VALUES, MASK)


@pytest.mark.parametrize("rotary", [False, True])
def test_padding_changes_nothing_in_self_attention(rotary):
    attention = make(rotary=rotary)

    def apply(query, mask):
        return [attention(query, query_mask=mask, look_ahead=True)], []

    check_padding_changes_nothing(apply, random_array(B, S, D), MASK)


def test_a_batch_equals_its_rows():
    attention = make(VALUES.shape)
    check_batch_equals_rows(
        lambda q, v, m: attention(q, v, value_mask=m), QUERY, VALUES, MASK
    )


def test_fully_masked_rows_are_finite():
    attention = make(VALUES.shape)

    def apply(value, mask):
        outputs, weights = attention(
            QUERY, value, value_mask=mask, return_attention_scores=True
        )
        return [outputs - attention.output_projection.bias, weights]

    check_fully_masked_rows_are_finite(apply, VALUES, MASK, zeros=True)


def test_masked_queries_give_zeros():
    attention = make(VALUES.shape)
    mask = length_mask(5, 2, 0, size=T)
    outputs = array(attention(QUERY, VALUES, query_mask=mask))
    assert (outputs[~mask] == 0).all()
    assert_close(outputs[mask], array(attention(QUERY, VALUES))[mask])


def test_keras_masks_are_used():
    attention = make(VALUES.shape)
    query_mask = length_mask(5, 2, 3, size=T)
    expected = attention(QUERY, VALUES, query_mask=query_mask, value_mask=MASK)
    outputs = attention(
        with_keras_mask(QUERY, query_mask), with_keras_mask(VALUES, MASK)
    )
    assert_close(outputs, expected)


def test_dropout_does_not_depend_on_returning_attention_scores():
    attention, results = make(VALUES.shape, dropout=0.4), []
    for return_scores in (False, True):
        attention.dropout_layer.seed_generator.state.assign([3, 5])
        results.append(
            attention(
                QUERY, VALUES, return_attention_scores=return_scores, training=True
            )
        )
    assert_close(results[0], results[1][0], rtol=0, atol=0)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_heads": 0}, "`num_heads` must be a positive integer"),
        ({"num_heads": 3, "key_dim": 0}, "`key_dim` must be a positive integer"),
        ({"num_heads": 3, "num_key_value_heads": 0}, "must be a positive integer"),
        ({"num_heads": 3, "key_dim": -1}, "`key_dim` must be a positive integer"),
        ({"num_heads": 3, "num_key_value_heads": 2}, "must divide `num_heads`"),
        ({"num_heads": 3, "dropout": 1.0}, "`dropout` must"),
    ],
)
def test_rejects_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadAttention(**options)


def test_rejects_a_width_not_divisible_by_num_heads():
    with pytest.raises(ValueError, match="width 11 with num_heads=3"):
        MultiHeadAttention(3)(QUERY)
