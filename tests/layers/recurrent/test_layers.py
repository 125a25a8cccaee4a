"""LSTM, GRU and SimpleRNN compared with Keras' layers; shared checks of MinGRU."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import GRU, LSTM, MinGRU, SimpleRNN, backends, torch_kernels
from tests.helpers import (
    array,
    assert_close,
    call,
    check_batch_equals_rows,
    check_compiled_equals_eager,
    check_fully_masked_rows_are_finite,
    check_other_precisions,
    check_outputs_survive_saving,
    check_padding_changes_nothing,
    check_training_reaches_every_weight,
    compiled,
    functional_model,
    gradient,
    length_mask,
    random_array,
    randomize,
    recurrent_gradient,
    set_dropout_masks,
)

B, T, D, UNITS = 3, 5, 4, 7

PAIRS = [
    (LSTM, keras.layers.LSTM),
    (GRU, keras.layers.GRU),
    (SimpleRNN, keras.layers.SimpleRNN),
]
KERAS_LAYERS = [ours for ours, _ in PAIRS]
LAYERS = [*KERAS_LAYERS, MinGRU]

SEQUENCES = random_array(B, T, D)
LEFT, RIGHT = length_mask(5, 2, 3, size=T)[:, ::-1], length_mask(5, 2, 3, size=T)
MIXED = np.array([[0, 0, 1, 0, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
# The first, third and last steps are masked in every row.
SPARSE = np.array([[0, 1, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0]], bool)

if_compiled = pytest.mark.skipif(
    not backends.available(), reason="on torch and on GPUs no loop is compiled"
)
if_fast = pytest.mark.skipif(
    not (backends.available() or torch_kernels.available()),
    reason="on GPUs the loop is Keras'",
)


@pytest.fixture(autouse=True)
def compile_small_layers(monkeypatch):
    monkeypatch.setattr(backends, "SMALLEST_UNITS", 1)


def build_pair(ours, theirs, **options):
    """Build a layer of kseq and one of Keras with equal random weights."""
    options = {"return_sequences": True, "return_state": True, **options}
    pair = ours(UNITS, **options), theirs(UNITS, **options)
    for layer in pair:
        layer.build((None, None, D))
        randomize(layer)
    assert [w.path.split("/")[1:] for w in pair[0].weights] == [
        w.path.split("/")[1:] for w in pair[1].weights
    ]
    return pair


def is_fast(layer):
    """Return whether kseq runs the loop; torch's kernels have no recurrent dropout."""
    if torch_kernels.available():
        return layer._has_kernel() or bool(layer.cell.recurrent_dropout)
    return layer._is_covered(SEQUENCES)


def number_of_states(layer):
    return len(layer.state_size)


def run(layer, sequences, mask=None, states=None):
    """Return outputs, zero at masked steps, and states: `[(B, T, U), (B, U), ...]`."""
    mask = None if mask is None else ops.convert_to_tensor(mask)
    outputs, *last = layer(sequences, mask=mask, initial_state=states)
    if mask is not None and layer.return_sequences:
        mask = ops.flip(mask, axis=1) if layer.go_backwards else mask
        outputs = ops.where(mask[..., None], outputs, 0)
    return [outputs, *last]


@pytest.mark.thorough(all_but=4)
@if_fast
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize(
    ("go_backwards", "mask", "dropouts"),
    [
        (False, None, (0, 0)),
        (True, None, (0, 0)),
        (False, MIXED, (0, 0)),
        (True, MIXED, (0, 0)),
        (False, MIXED, (0.5, 0)),
        (False, None, (0, 0.5)),
        (True, MIXED, (0.5, 0.5)),
        (False, SPARSE, (0, 0)),
        (True, SPARSE, (0, 0.5)),
    ],
    ids=lambda x: str(x.astype(int)) if isinstance(x, np.ndarray) else str(x),
)
def test_outputs_and_gradients_equal_those_of_keras(
    ours, theirs, go_backwards, mask, dropouts
):
    options = dict(zip(("dropout", "recurrent_dropout"), dropouts, strict=True))
    fast, slow = build_pair(ours, theirs, go_backwards=go_backwards, **options)
    assert is_fast(fast)
    states = [random_array(B, UNITS, seed=9 + i) for i in range(number_of_states(fast))]
    assert_close(run(fast, SEQUENCES, mask, states), run(slow, SEQUENCES, mask, states))
    for layer in (fast, slow) if any(dropouts) else ():
        set_dropout_masks(layer.cell, SEQUENCES, UNITS)
    for training in (True, False):
        found, expected = (
            recurrent_gradient(layer, SEQUENCES, states, mask, training)
            for layer in (fast, slow)
        )
        assert_close(found, expected, atol=2e-5)


@if_fast
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@pytest.mark.parametrize(
    "options",
    [
        {"return_sequences": False},
        {"use_bias": False},
        {"zero_output_for_mask": True},
        {"zero_output_for_mask": True, "return_sequences": False, "go_backwards": True},
    ],
    ids=str,
)
def test_options_of_keras_give_equal_outputs(ours, theirs, options):
    fast, slow = build_pair(ours, theirs, **options)
    assert is_fast(fast)
    for mask in (None, LEFT, RIGHT, MIXED):
        mask = None if mask is None else ops.convert_to_tensor(mask)
        assert_close(fast(SEQUENCES, mask=mask), slow(SEQUENCES, mask=mask))


@pytest.mark.parametrize(
    "options",
    [{"unroll": True}, {"activation": "relu"}],
    ids=str,
)
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_keras_runs_the_cases_without_a_fast_loop(ours, theirs, options):
    fast, slow = build_pair(ours, theirs, **options)
    assert not is_fast(fast)
    assert_close(run(fast, SEQUENCES, LEFT), run(slow, SEQUENCES, LEFT))


def test_keras_runs_a_gru_that_resets_before_the_product():
    fast, slow = build_pair(GRU, keras.layers.GRU, reset_after=False)
    assert not is_fast(fast)
    assert_close(run(fast, SEQUENCES), run(slow, SEQUENCES))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="float64 is tested on TensorFlow only",
)
@pytest.mark.parametrize("layer_class", LAYERS)
def test_gradient_equals_finite_differences(layer_class):
    layer = layer_class(2, return_sequences=True, dtype="float64")
    layer.build((None, None, 3))
    randomize(layer)
    sequences, mask = random_array(2, 4, 3).astype("float64"), RIGHT[1:, :4]

    def total(x):
        outputs = layer(x, mask=ops.convert_to_tensor(mask), training=True)
        return ops.sum(ops.sin(3 * outputs))

    slope = gradient(total, sequences)
    for index in np.ndindex(*sequences.shape):
        step = np.zeros_like(sequences)
        step[index] = 1e-6
        difference = array(total(sequences + step)) - array(total(sequences - step))
        np.testing.assert_allclose(slope[index], difference / 2e-6, atol=1e-7)


@if_compiled
@pytest.mark.parametrize("layer_class", LAYERS)
def test_second_gradient_raises(layer_class):
    layer = layer_class(UNITS)
    layer.build((None, None, D))

    def slope(x):
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(x)
                y = ops.sum(layer(x, training=True))
            return ops.sum(tape.gradient(y, x))
        import jax

        return ops.sum(jax.grad(lambda x: ops.sum(layer(x, training=True)))(x))

    with pytest.raises(NotImplementedError, match="unroll=True"):
        gradient(slope, SEQUENCES)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_layers_pass_the_layer_checks(layer_class):
    arguments = {"units": UNITS, "return_sequences": True, "return_state": True}
    inputs = {"sequences": SEQUENCES, "mask": MIXED}
    layer = layer_class(**arguments)
    model = functional_model(layer, inputs)
    randomize(layer)
    expected = call(layer, inputs)
    check_outputs_survive_saving(model, inputs, expected)
    check_compiled_equals_eager(model, inputs, expected)
    check_other_precisions(layer, arguments, inputs, None, expected)
    check_training_reaches_every_weight(model, inputs)
    name = layer_class.__name__
    assert keras.saving.get_registered_name(layer_class) == f"kseq>{name}"


@pytest.mark.parametrize("layer_class", LAYERS)
def test_padding_and_batch_do_not_change_the_outputs(layer_class):
    layer = layer_class(UNITS, return_sequences=True, return_state=True)
    layer.build((None, None, D))
    randomize(layer)

    def apply(sequences, mask):
        outputs, *states = layer(sequences, mask=ops.convert_to_tensor(mask))
        return [outputs], states

    check_padding_changes_nothing(apply, SEQUENCES, RIGHT)
    check_batch_equals_rows(
        lambda x, m: [y[:, -1:] if y.ndim == 3 else y for y in run(layer, x, m)],
        SEQUENCES,
        LEFT,
    )
    check_fully_masked_rows_are_finite(
        lambda x, m: layer(x, mask=ops.convert_to_tensor(m)), SEQUENCES, RIGHT
    )


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("options", [{}, {"unroll": True}], ids=str)
@pytest.mark.parametrize("layer_class", LAYERS)
def test_outputs_before_the_first_real_step_are_the_initial_state(
    layer_class, options, go_backwards
):
    options = {"go_backwards": go_backwards, **options}
    layer, last = (
        layer_class(UNITS, return_sequences=sequences, **options)
        for sequences in (True, False)
    )
    states = [random_array(B, UNITS, seed=9 + i) for i in range(len(layer.state_size))]
    mask = ops.convert_to_tensor(MIXED)
    outputs = array(layer(SEQUENCES, mask=mask, initial_state=states))
    last(SEQUENCES)
    last.set_weights(layer.get_weights())
    steps = MIXED[:, ::-1] if go_backwards else MIXED
    has_begun = np.cumsum(steps, axis=1) > 0
    first = np.broadcast_to(states[0][:, None], outputs.shape)
    assert_close(outputs[~has_begun], first[~has_begun])
    assert abs(outputs - first)[has_begun].max(axis=-1).min() > 0.01
    found = last(SEQUENCES, mask=mask, initial_state=states)
    assert_close(found, outputs[:, -1])


@pytest.mark.parametrize(
    "options",
    [
        {"zero_output_for_mask": True, "unroll": True},
        {"zero_output_for_mask": True},
        {"unroll": True},
        {},
    ],
    ids=str,
)
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("layer_class", LAYERS)
def test_every_loop_equals_the_cell_step_by_step(layer_class, go_backwards, options):
    options = {"return_sequences": True, "go_backwards": go_backwards, **options}
    layer = layer_class(UNITS, **options)
    layer.build((None, None, D))
    randomize(layer)
    for mask in (None, LEFT, RIGHT, MIXED, SPARSE):
        expected = run_cell(layer, SEQUENCES, mask)
        mask = None if mask is None else ops.convert_to_tensor(mask)
        assert_close(layer(SEQUENCES, mask=mask), expected)


@if_fast
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("mask", [MIXED, SPARSE], ids=["mixed", "sparse"])
@pytest.mark.parametrize("layer_class", LAYERS)
def test_gradient_of_outputs_at_masked_steps_reaches_the_step_before(
    layer_class, mask, go_backwards
):
    fast, slow = (
        layer_class(
            UNITS,
            return_sequences=True,
            return_state=True,
            go_backwards=go_backwards,
            unroll=unroll,
        )
        for unroll in (False, True)
    )
    for layer in (fast, slow):
        layer.build((None, T, D))
        randomize(layer)
    states = [random_array(B, UNITS, seed=9 + i) for i in range(number_of_states(fast))]
    found, expected = (
        recurrent_gradient(layer, SEQUENCES, states, mask, True, all_outputs=True)
        for layer in (fast, slow)
    )
    assert_close(found, expected, atol=2e-5)


def run_cell(layer, sequences, mask):
    """Return the outputs `(B, T, U)` of the layer's cell, called step by step."""
    mask = np.ones(sequences.shape[:2], bool) if mask is None else mask
    states = [ops.zeros((B, UNITS))] * len(layer.state_size)
    outputs = []
    for t in range(T)[:: -1 if layer.go_backwards else 1]:
        is_real = ops.convert_to_tensor(mask[:, t, None])
        _, new = layer.cell(ops.convert_to_tensor(sequences[:, t]), states)
        states = [ops.where(is_real, n, s) for n, s in zip(new, states, strict=True)]
        is_shown = is_real if layer.zero_output_for_mask else True
        outputs.append(ops.where(is_shown, states[0], 0))
    return ops.stack(outputs, axis=1)


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="only Keras on JAX orders them differently"
)
@pytest.mark.parametrize("return_sequences", [True, False])
def test_cudnn_returns_backward_outputs_in_the_usual_order(
    return_sequences, monkeypatch
):
    options = {"return_sequences": return_sequences, "go_backwards": True}
    layer, _ = build_pair(LSTM, keras.layers.LSTM, **options)
    expected = layer(SEQUENCES)
    found = pretend_a_gpu(monkeypatch)
    assert_close(layer(SEQUENCES), expected)
    assert found == ["cuDNN"]


@pytest.mark.skipif(
    keras.backend.backend() != "jax",
    reason="cuDNN has half precision on other backends",
)
def test_cudnn_is_not_used_in_half_precision(monkeypatch):
    layer, found = LSTM(UNITS, dtype="mixed_float16"), pretend_a_gpu(monkeypatch)
    layer(SEQUENCES)
    assert not found and layer.use_cudnn == "auto"


def pretend_a_gpu(monkeypatch):
    """Let Keras find a GPU on JAX, and replace cuDNN by JAX' reference loop.

    Returns:
        A list, to which each run of that loop appends.
    """
    import jax
    from jax.experimental import rnn

    calls = []

    def lstm(x, h_0, c_0, weights, seq_lengths, **sizes):
        calls.append("cuDNN")
        names = "input_size", "hidden_size", "num_layers", "bidirectional"
        weights = rnn.unpack_lstm_weights(weights, *(sizes[name] for name in names))
        return rnn.lstm_ref(x, h_0, c_0, *weights, seq_lengths, **sizes)

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(rnn, "lstm", lstm)
    monkeypatch.setattr(backends, "available", lambda: False)
    return calls


@pytest.mark.parametrize("layer_class", LAYERS)
def test_chunks_with_passed_states_equal_the_whole_sequence(layer_class):
    layer = layer_class(UNITS, return_sequences=True, return_state=True)
    layer.build((None, None, D))
    randomize(layer)
    whole, *last = layer(SEQUENCES)
    first, *states = layer(SEQUENCES[:, :2])
    second, *states = layer(SEQUENCES[:, 2:], initial_state=states)
    assert_close(ops.concatenate([first, second], axis=1), whole)
    assert_close(states, last)

    streaming = layer_class(UNITS, return_sequences=True, stateful=True)
    streaming.build((B, None, D))
    streaming.set_weights(layer.get_weights())
    parts = [streaming(SEQUENCES[:, t : t + 1]) for t in range(T)]
    assert_close(ops.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("layer_class", LAYERS)
def test_stateful_layer_keeps_its_states_in_half_precision(layer_class):
    layer = layer_class(UNITS, stateful=True, dtype="mixed_float16")
    last = layer(SEQUENCES)
    assert_close(layer.states[0], last)
    assert array(last).any()


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_weight_files_are_exchanged_with_keras(ours, theirs, tmp_path):
    models = [
        keras.Sequential([keras.Input((None, D)), layer_class(UNITS, name="reader")])
        for layer_class in (ours, theirs)
    ]
    for first, second in (models, models[::-1]):
        randomize(first, seed=5)
        first.save_weights(tmp_path / "reader.weights.h5")
        randomize(second, seed=8)
        second.load_weights(tmp_path / "reader.weights.h5")
        assert_close(second(SEQUENCES), first(SEQUENCES))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="one backend is enough"
)
@pytest.mark.parametrize("layer_class", KERAS_LAYERS)
def test_dropout_drops_the_same_features_at_every_step(layer_class):
    layer = layer_class(UNITS, dropout=0.5, return_sequences=True, seed=1)
    layer.build((None, None, D))
    randomize(layer)
    assert layer._is_covered(SEQUENCES)
    ones = np.ones((B, T, D), "float32")
    slope = gradient(lambda x: ops.sum(layer(x, training=True)[:, -1]), ones)
    assert ((slope == 0) == (slope[:, :1] == 0)).all()
    assert 0 < (slope == 0).mean() < 1
    assert_close(layer(ones), layer(ones))


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="Keras casts inputs on other backends"
)
@pytest.mark.parametrize("layer_class", LAYERS)
def test_half_precision_accepts_float32_arrays(layer_class):
    import jax

    layer = layer_class(UNITS, dtype="mixed_bfloat16")
    layer.build((None, None, D))
    weights = [w.value for w in layer.trainable_variables]
    others = [w.value for w in layer.non_trainable_variables]

    def total(trainable):
        outputs, _ = layer.stateless_call(trainable, others, SEQUENCES)
        return ops.sum(ops.cast(outputs, "float32"))

    for slope in jax.grad(total)(weights):
        assert np.isfinite(array(slope)).all() and array(slope).any()


@if_compiled
@pytest.mark.parametrize("go_backwards", [False, True])
def test_unknown_length_does_not_change_the_outputs(go_backwards):
    layer = LSTM(UNITS, return_sequences=True, go_backwards=go_backwards)
    layer.build((None, None, D))
    randomize(layer)
    run_model = compiled(functional_model(layer, {"sequences": SEQUENCES}))
    for length in (1, 2, 5):
        cut = SEQUENCES[:, :length]
        [outputs] = keras.tree.flatten(run_model(cut))
        assert_close(outputs, layer(cut))
        assert outputs.shape == (B, length, UNITS)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="shapes are known on other backends"
)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer_class", [GRU, LSTM])
def test_batch_size_of_the_states_may_be_unknown(layer_class, training):
    import tensorflow as tf

    layer = layer_class(UNITS, return_sequences=True)
    sequences, states = SEQUENCES[:1], [random_array(1, UNITS)]
    states *= number_of_states(layer)
    expected = layer(sequences, initial_state=states)
    specs = [tf.TensorSpec((None, UNITS)) for _ in states]
    run = tf.function(
        lambda sequences, states: layer(
            sequences, initial_state=states, training=training
        ),
        input_signature=[tf.TensorSpec(sequences.shape), specs],
    )
    assert_close(run(sequences, states), expected)


@pytest.mark.parametrize("dtype", ["int32", "bool"])
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_integers_and_booleans_give_the_outputs_of_keras(ours, theirs, dtype):
    fast, slow = build_pair(ours, theirs)
    numbers = (SEQUENCES > 0).astype(dtype)
    assert_close(fast(numbers), slow(numbers))


def test_keras_runs_small_layers_on_tensorflow(monkeypatch):
    monkeypatch.setattr(backends, "SMALLEST_UNITS", UNITS + 1)
    is_fast = GRU(UNITS)._is_covered(SEQUENCES)
    assert is_fast == (keras.backend.backend() == "jax" and backends.available())


@pytest.mark.parametrize(
    "states, received",
    [
        ([ops.ones((B, UNITS))], [(B, UNITS)]),
        (ops.ones((B, UNITS)), (B, UNITS)),
        ([ops.ones((B, 2))] * 2, [(B, 2)] * 2),
        ([ops.ones((B + 1, UNITS))] * 2, [(B + 1, UNITS)] * 2),
    ],
    ids=["one of two", "not a list", "width", "rows"],
)
@pytest.mark.parametrize("unroll", [False, True])
def test_error_names_the_shapes_of_the_initial_states(states, received, unroll):
    layer, shapes = LSTM(UNITS, unroll=unroll), [(B, UNITS)] * 2
    message = f"must have the shapes {shapes}. Received: the shapes {received}. A"
    with pytest.raises(ValueError, match=re.escape(message)):
        layer(SEQUENCES, initial_state=states)


@pytest.mark.parametrize(
    "wrong", [{"initial_state": np.zeros((B, 9))}, {"mask": np.ones((B, T + 2), bool)}]
)
def test_dropout_is_sampled_again_after_a_rejected_call(wrong):
    layer = GRU(UNITS, dropout=0.5, recurrent_dropout=0.5)
    with pytest.raises(ValueError, match="Received"):
        layer(SEQUENCES, training=True, **wrong)
    layer(SEQUENCES[:-1], training=True)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="shapes are known on other backends"
)
@pytest.mark.parametrize("units", [UNITS, 33])
def test_width_of_the_states_may_be_unknown(units):
    import tensorflow as tf

    layer, state = GRU(units), random_array(B, units)
    expected = layer(SEQUENCES, initial_state=state)
    run = tf.function(
        lambda sequences, state: layer(sequences, initial_state=state),
        input_signature=[tf.TensorSpec((None, None, D)), tf.TensorSpec((None, None))],
    )
    assert_close(run(SEQUENCES, state), expected)


def test_mask_may_be_a_nested_list():
    layer, _ = build_pair(LSTM, keras.layers.LSTM)
    given = ops.convert_to_tensor(MIXED)
    assert_close(layer(SEQUENCES, mask=MIXED.tolist()), layer(SEQUENCES, mask=given))
