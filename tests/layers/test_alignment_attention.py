"""Attention that depends on earlier alignments: location-aware, coverage, monotonic."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import CoverageAttention, LocationAwareAttention, MonotonicAttention
from kseq.layers.monotonic_attention import monotonic_weights
from tests.helpers import (
    array,
    assert_close,
    check_batch_equals_rows,
    check_fully_masked_rows_are_finite,
    check_layer,
    check_padding_changes_nothing,
    compiled,
    gradient,
    length_mask,
    random_array,
    randomize,
    with_keras_mask,
)
from tests.layers.alignment_oracles import read_all

B, T, S, QUERY, KEY, VALUE, UNITS = 3, 5, 7, 11, 13, 2, 17

MASK = length_mask(4, 7, 1, size=S)
MASK[0, :2] = False  # left padding as well
DEAD_ROW = MASK & (np.arange(B) != 1)[:, None]

ATTENTIONS = {
    "location": (LocationAwareAttention, {"num_filters": 3, "kernel_size": 5}),
    "cumulative": (LocationAwareAttention, {"kernel_size": 3, "cumulative": True}),
    "coverage": (CoverageAttention, {}),
    "soft": (MonotonicAttention, {"mode": "soft"}),
    "hard": (MonotonicAttention, {"mode": "hard", "noise": 0.0}),
}

each_attention = pytest.mark.parametrize("kind", ATTENTIONS)


def random_initializer():
    return keras.initializers.RandomNormal(stddev=0.3)


def make(kind):
    """Return an attention with random weights, and arrays query, value and key."""
    layer_class, options = ATTENTIONS[kind]
    attention = layer_class(UNITS, **options)
    query, key = 2 * random_array(B, T, QUERY), 2 * random_array(B, S, KEY)
    value = random_array(B, S, VALUE)
    query, key, value = map(ops.convert_to_tensor, (query, key, value))
    attention(query, value, key)
    randomize(attention)
    for weight in attention.weights:
        if weight.name == "score_scale":
            weight.assign(3.0)  # so that probabilities differ
        if weight.name == "score_offset":
            weight.assign(0.5)
    return attention, query, value, key


# The contract -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer_class, options",
    [
        (
            LocationAwareAttention,
            {"num_filters": 3, "kernel_size": 5, "cumulative": True},
        ),
        (CoverageAttention, {}),
        (
            MonotonicAttention,
            {"mode": "soft", "noise": 0.5, "score_bias": 0.5, "seed": 3},
        ),
    ],
)
def test_each_attention_keeps_the_contract_of_layers(layer_class, options):
    check_layer(
        layer_class,
        {"units": UNITS, "kernel_initializer": random_initializer, **options},
        {
            "query": random_array(B, T, QUERY),
            "value": random_array(B, S, VALUE),
            "key": random_array(B, S, KEY),
            "value_mask": DEAD_ROW,
        },
        {"return_attention_scores": True},
    )


@each_attention
def test_attention_equals_a_loop(kind):
    attention, query, value, key = make(kind)
    context, weights = attention(
        query, value, key, value_mask=MASK, return_attention_scores=True
    )
    for b in range(B):
        real = MASK[b]
        arrays = array(query)[b], array(key)[b, real], array(value)[b, real]
        expected = read_all(attention, *arrays)
        assert_close([context[b], array(weights)[b][:, real]], expected)
        assert (array(weights)[b][:, ~real] == 0).all()
    assert len(np.unique(array(weights).argmax(axis=-1))) > 1


# Laws -------------------------------------------------------------------------------


@each_attention
def test_the_steps_of_a_decoder_equal_a_call(kind):
    attention, query, value, key = make(kind)
    whole = attention(query, value, key, value_mask=MASK, return_attention_scores=True)
    keys = attention.project_keys(key)
    alignment = attention.start_alignment(keys)
    assert tuple(alignment.shape) == (B, 1, S)
    for t in range(T):
        *step, alignment = attention.attend(
            query[:, t : t + 1], keys, value, ops.array(MASK), alignment
        )
        assert_close(step, [x[:, t : t + 1] for x in whole])


@each_attention
def test_the_next_step_depends_on_the_alignment(kind):
    attention, query, value, key = make(kind)
    keys = attention.project_keys(key)
    alignments = np.stack([np.eye(S)[[0] * B], np.eye(S)[[S - 1] * B]], axis=1)
    queries = ops.repeat(query[:, :1], 2, axis=1)
    alignments = ops.convert_to_tensor(alignments, "float32")
    _, weights, _ = attention.attend(queries, keys, value, None, alignments)
    assert np.abs(array(weights[:, 0] - weights[:, 1])).max() > 0.01


@each_attention
def test_keys_default_to_the_values(kind):
    attention, query, _, key = make(kind)
    assert_close(attention(query, key), attention(query, key, key))


@each_attention
def test_returning_the_scores_does_not_change_the_context(kind):
    attention, query, value, key = make(kind)
    context, weights = attention(
        query, value, key, value_mask=DEAD_ROW, return_attention_scores=True
    )
    assert tuple(context.shape) == (B, T, VALUE)
    assert tuple(weights.shape) == (B, T, S)
    same = attention(query, value, key, value_mask=DEAD_ROW)
    assert_close(same, context, rtol=0, atol=0)


@each_attention
def test_padding_does_not_change_the_context(kind):
    attention, query, _, key = make(kind)

    def apply(key, mask):
        context, weights = attention(
            query, key, value_mask=mask, return_attention_scores=True
        )
        return [ops.swapaxes(weights, 1, 2)], [context]

    check_padding_changes_nothing(apply, array(key), MASK)


@each_attention
def test_a_batch_equals_its_rows(kind):
    attention, *inputs = make(kind)
    check_batch_equals_rows(attention, *map(array, inputs), MASK)


@each_attention
def test_a_row_with_nothing_to_read_gives_zeros(kind):
    attention, query, _, key = make(kind)

    def apply(key, mask):
        return list(
            attention(query, key, value_mask=mask, return_attention_scores=True)
        )

    check_fully_masked_rows_are_finite(apply, array(key), MASK, zeros=True)


@each_attention
def test_a_masked_query_leaves_the_alignment_unchanged(kind):
    attention, query, value, key = make(kind)
    inner = np.zeros((B, T + 2, QUERY), "float32")
    is_real = np.array([True, False, True, True, False, True, True])
    inner[:, is_real] = query
    inner[:, ~is_real] = np.nan
    mask = np.tile(is_real, (B, 1))
    expected = attention(query, value, key)
    explicit = array(attention(inner, value, key, query_mask=mask))
    assert_close(explicit[:, is_real], expected)
    carried = attention(with_keras_mask(inner, mask), value, key)
    assert_close(array(carried)[:, is_real], expected)
    assert array(carried._keras_mask).tolist() == mask.tolist()


@each_attention
def test_an_explicit_mask_equals_the_keras_mask(kind):
    attention, query, value, key = make(kind)
    carried = attention(query, with_keras_mask(value, MASK), key)
    assert_close(carried, attention(query, value, key, value_mask=MASK))
    assert np.abs(array(carried) - array(attention(query, value, key))).max() > 0.01


@each_attention
def test_an_additive_mask_is_rejected(kind):
    attention, query, value, key = make(kind)
    additive = np.where(MASK, 0, -1e9).astype("float32")
    with pytest.raises(ValueError, match=r"mask with the value -1000000000\.0"):
        attention(query, value, key, value_mask=additive)


# Monotonic attention ----------------------------------------------------------------


def test_soft_weights_are_the_expectation_of_hard_ones():
    """Brute force over all tables of stops, of 2 target steps and 3 source steps."""
    random = np.random.default_rng(3)
    probabilities = random.uniform(size=(1, 2, 3)).astype("float32")
    first = ops.array([[[1.0, 0.0, 0.0]]])

    def steps(table):
        weights = monotonic_weights(ops.convert_to_tensor(table[:, :1]), first)
        return [
            weights,
            monotonic_weights(ops.convert_to_tensor(table[:, 1:]), weights),
        ]

    expected = np.zeros((2, 3))
    for stops in itertools.product([0, 1], repeat=6):
        stops = np.array(stops, "float32").reshape(1, 2, 3)
        chance = np.prod(np.where(stops, probabilities, 1 - probabilities))
        expected += chance * np.concatenate([array(x)[0] for x in steps(stops)])
    assert_close(ops.concatenate(steps(probabilities), axis=1)[0], expected)


def test_hard_attention_never_goes_back_and_may_run_off_the_end():
    attention, query, value, key = make("hard")
    attention.score_offset.assign(-0.5)
    _, weights = attention(query, value, key, return_attention_scores=True)
    weights = array(weights)
    assert set(np.unique(weights)) == {0, 1}
    for row in weights:
        places = [step.argmax() if step.any() else S for step in row]
        assert places == sorted(places)
    assert (weights.sum(axis=-1)[:, -1] == 0).any()


def test_monotonic_attention_is_soft_in_training_and_hard_otherwise():
    attention = MonotonicAttention(UNITS, noise=0.0)
    _, query, value, key = make("soft")
    results = {}
    for training in (True, False):
        results[training] = array(attention(query, value, key, training=training))
    for mode, training in (("soft", True), ("hard", False)):
        other = MonotonicAttention(UNITS, mode, noise=0.0)
        other(query, value, key)
        other.set_weights(attention.get_weights())
        for always in (True, False):
            assert_close(other(query, value, key, training=always), results[training])
    assert np.abs(results[True] - results[False]).max() > 0.01


def test_noise_is_seeded_and_only_in_training():
    _, query, value, key = make("soft")

    def results(noise, seed=5):
        keras.utils.set_random_seed(1)
        attention = MonotonicAttention(UNITS, "soft", noise, 0.0, seed=seed)
        return [
            array(attention(query, value, key, training=training))
            for training in (False, True, True)
        ]

    (plain, *exact), (same, *noisy) = results(0.0), results(2.0)
    assert_close([*exact, same], [plain] * 3)
    assert_close(results(2.0), [same, *noisy])
    for other in (noisy[1], results(2.0, seed=6)[1], plain):
        assert np.abs(other - noisy[0]).max() > 0.01


def test_noise_has_its_standard_deviation():
    attention = MonotonicAttention(UNITS, noise=3.0, seed=1)
    keys = ops.zeros((20, 500, UNITS + 1))
    noisy = array(attention.training_keys(keys))
    assert (noisy[..., :UNITS] == 0).all()
    assert abs(noisy[..., UNITS].std() - 3) < 0.1
    assert abs(noisy[..., UNITS].mean()) < 0.1


def exact_weights(probabilities, alignment):
    """Return the weights of one row by the recursion, in double precision."""
    arriving, weights = 0.0, []
    previous = 1.0
    for p, a in zip(probabilities.astype("float64"), alignment, strict=True):
        arriving = arriving * (1 - previous) + a
        weights.append(p * arriving)
        previous = p
    return np.array(weights)


@pytest.mark.parametrize("high", [1e-4, 0.01, 1.0])
def test_a_thousand_source_steps_are_exact(high):
    """With p up to 1 the product of 1 - p is 0 in double precision too."""
    random = np.random.default_rng(3)
    probabilities = random.uniform(0, high, (1, 1, 1000)).astype("float32")
    probabilities[0, 0, 500] = 1.0
    alignment = random.dirichlet(np.ones(1000)).astype("float32")
    expected = exact_weights(probabilities[0, 0], alignment)
    before = ops.convert_to_tensor(alignment[None, None])
    weights = monotonic_weights(ops.convert_to_tensor(probabilities), before)
    np.testing.assert_allclose(array(weights)[0, 0], expected, rtol=1e-5, atol=1e-12)

    def total(x):
        return ops.sum(ops.sin(9 * monotonic_weights(x, before)))

    slope = gradient(total, probabilities)
    assert np.isfinite(slope).all()
    place, step = 300, 1e-6
    moved = probabilities.astype("float64")[0, 0]
    ends = []
    for sign in (-1, 1):
        other = moved.copy()
        other[place] += sign * step
        arriving, previous, sums = 0.0, 1.0, 0.0
        for p, a in zip(other, alignment.astype("float64"), strict=True):
            arriving = arriving * (1 - previous) + a
            sums += np.sin(9 * p * arriving)
            previous = p
        ends.append(sums)
    expected_slope = (ends[1] - ends[0]) / (2 * step)
    np.testing.assert_allclose(slope[0, 0, place], expected_slope, rtol=1e-3, atol=1e-6)


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="PyTorch knows all lengths"
)
def test_a_source_of_unknown_length_is_exact():
    random = np.random.default_rng(3)
    probabilities = random.uniform(0, 0.2, (1, 1, 70)).astype("float32")
    alignment = np.eye(70, dtype="float32")[:1, None]
    if keras.backend.backend() == "jax":
        import jax

        sizes = jax.export.symbolic_shape("b, t, s")
        symbols = [jax.ShapeDtypeStruct(sizes, "float32")] * 2
        run = jax.export.export(jax.jit(monotonic_weights))(*symbols).call
    else:
        import tensorflow as tf

        signature = [tf.TensorSpec((None, None, None))] * 2
        run = tf.function(monotonic_weights, input_signature=signature)
    expected = exact_weights(probabilities[0, 0], alignment[0, 0])
    assert_close(run(probabilities, alignment)[0, 0], expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_long_sources_are_exact_in_half_precision(dtype):
    value = random_array(1, 1000, 4)
    query = np.zeros((1, 2, 4), "float32")
    weights = {}
    for policy in ("float32", dtype):
        attention = MonotonicAttention(4, "soft", 0.0, score_bias=-5.0, dtype=policy)
        attention.build(query.shape, value.shape)
        attention.score_kernel.assign(np.eye(4, 1))
        attention.key_kernel.assign(np.zeros((4, 4)))
        _, weights[policy] = attention(query, value, return_attention_scores=True)
    weights = {k: array(ops.cast(w, "float32")) for k, w in weights.items()}
    assert_close(weights[dtype], weights["float32"], rtol=0.02, atol=1e-6)
    np.testing.assert_allclose(weights["float32"][0, 0].sum(), 1, atol=0.01)


@pytest.mark.parametrize("kind", ["location", "soft"])
def test_attention_computes_the_same_in_a_compiled_function(kind):
    attention, query, value, key = make(kind)
    expected = attention(query, value, key, value_mask=MASK)
    assert_close(
        compiled(lambda: attention(query, value, key, value_mask=ops.array(MASK)))(),
        expected,
    )


# Errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: CoverageAttention(0), r"`units` must be a positive integer"),
        (lambda: LocationAwareAttention(4, 0), r"`num_filters` must be a positive"),
        (
            lambda: LocationAwareAttention(4, kernel_size=4),
            r"`kernel_size` must be odd.*Received: kernel_size=4\. Use 5\.",
        ),
        (lambda: MonotonicAttention(4, "parallel"), r"`mode` must.*mode='parallel'"),
        (lambda: MonotonicAttention(4, noise=-1), r"`noise` must.*noise=-1"),
    ],
)
def test_bad_arguments_are_rejected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
