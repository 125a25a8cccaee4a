"""LSTM, GRU and SimpleRNN against Keras' own layers, and the laws of MinGRU too."""

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
# On both sides and in the middle there are steps that no row has.
SPARSE = np.array([[0, 1, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0]], bool)

where_it_is_compiled = pytest.mark.skipif(
    not backends.available(), reason="on torch and on GPUs no loop is compiled"
)
where_it_is_fast = pytest.mark.skipif(
    not (backends.available() or torch_kernels.available()),
    reason="on GPUs the loop is Keras'",
)


@pytest.fixture(autouse=True)
def small_layers_are_fast_too(monkeypatch):
    monkeypatch.setattr(backends, "SMALLEST_UNITS", 1)


def both(ours, theirs, **options):
    """A layer of kseq and one of Keras, with the same random weights."""
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
    """Tell whether the loop is not Keras': torch's kernels drop no states."""
    if torch_kernels.available():
        return layer._has_kernel() or bool(layer.cell.recurrent_dropout)
    return layer._is_covered(SEQUENCES)


def number_of_states(layer):
    return len(layer.state_size)


def run(layer, sequences, mask=None, states=None):
    """Outputs, zero where the mask is, and states: `[(B, T, U), (B, U), ...]`."""
    mask = None if mask is None else ops.convert_to_tensor(mask)
    outputs, *last = layer(sequences, mask=mask, initial_state=states)
    if mask is not None and layer.return_sequences:
        mask = ops.flip(mask, axis=1) if layer.go_backwards else mask
        outputs = ops.where(mask[..., None], outputs, 0)
    return [outputs, *last]


@pytest.mark.thorough(all_but=4)
@where_it_is_fast
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
def test_the_numbers_and_gradients_are_those_of_keras(
    ours, theirs, go_backwards, mask, dropouts
):
    options = dict(zip(("dropout", "recurrent_dropout"), dropouts, strict=True))
    fast, slow = both(ours, theirs, go_backwards=go_backwards, **options)
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


@where_it_is_fast
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
def test_every_option_of_keras_has_its_numbers(ours, theirs, options):
    fast, slow = both(ours, theirs, **options)
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
def test_what_is_not_covered_is_left_to_keras(ours, theirs, options):
    fast, slow = both(ours, theirs, **options)
    assert not is_fast(fast)
    assert_close(run(fast, SEQUENCES, LEFT), run(slow, SEQUENCES, LEFT))


def test_a_gru_that_resets_before_the_product_is_left_to_keras():
    fast, slow = both(GRU, keras.layers.GRU, reset_after=False)
    assert not is_fast(fast)
    assert_close(run(fast, SEQUENCES), run(slow, SEQUENCES))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="float64 is not there on JAX"
)
@pytest.mark.parametrize("layer_class", LAYERS)
def test_the_gradient_equals_finite_differences(layer_class):
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


@where_it_is_compiled
@pytest.mark.parametrize("layer_class", LAYERS)
def test_a_second_gradient_is_refused_in_words(layer_class):
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
def test_the_layers_keep_the_contract_of_layers(layer_class):
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
def test_the_laws_of_masks_hold(layer_class):
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
def test_before_the_first_real_step_the_output_is_the_first_state(
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
def test_whichever_loop_runs_the_numbers_are_the_same(
    layer_class, go_backwards, options
):
    options = {"return_sequences": True, "go_backwards": go_backwards, **options}
    layer = layer_class(UNITS, **options)
    layer.build((None, None, D))
    randomize(layer)
    for mask in (None, LEFT, RIGHT, MIXED, SPARSE):
        expected = by_the_cell_alone(layer, SEQUENCES, mask)
        mask = None if mask is None else ops.convert_to_tensor(mask)
        assert_close(layer(SEQUENCES, mask=mask), expected)


@where_it_is_fast
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("mask", [MIXED, SPARSE], ids=["mixed", "sparse"])
@pytest.mark.parametrize("layer_class", LAYERS)
def test_outputs_that_stay_at_padding_have_the_gradient_of_their_step(
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


def by_the_cell_alone(layer, sequences, mask):
    """The outputs `(B, T, U)`, from the layer's cell alone."""
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


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the others are right")
@pytest.mark.parametrize("return_sequences", [True, False])
def test_cudnn_reads_backwards_in_the_order_of_every_loop(
    return_sequences, monkeypatch
):
    options = {"return_sequences": return_sequences, "go_backwards": True}
    layer, _ = both(LSTM, keras.layers.LSTM, **options)
    expected = layer(SEQUENCES)
    found = as_on_a_gpu(monkeypatch)
    assert_close(layer(SEQUENCES), expected)
    assert found == ["cuDNN"]


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="others have it")
def test_cudnn_is_not_asked_for_half_precision(monkeypatch):
    layer, found = LSTM(UNITS, dtype="mixed_float16"), as_on_a_gpu(monkeypatch)
    layer(SEQUENCES)
    assert not found and layer.use_cudnn == "auto"


def as_on_a_gpu(monkeypatch):
    """Lets Keras find a GPU on JAX, and there, for cuDNN, a loop of JAX' own.

    Returns:
        A list that grows with each time it runs.
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
def test_chunk_by_chunk_equals_the_whole(layer_class):
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
def test_a_stateful_layer_keeps_its_states_in_half_precision(layer_class):
    layer = layer_class(UNITS, stateful=True, dtype="mixed_float16")
    last = layer(SEQUENCES)
    assert_close(layer.states[0], last)
    assert array(last).any()


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_the_weights_of_keras_files_fit_both_ways(ours, theirs, tmp_path):
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
    keras.backend.backend() != "tensorflow", reason="a gradient of a draw, on one only"
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
    keras.backend.backend() != "jax", reason="elsewhere Keras casts what comes in"
)
@pytest.mark.parametrize("layer_class", LAYERS)
def test_half_precision_takes_arrays_that_nobody_has_cast(layer_class):
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


@where_it_is_compiled
@pytest.mark.parametrize("go_backwards", [False, True])
def test_an_unknown_length_is_filled_up_without_a_trace(go_backwards):
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
    keras.backend.backend() != "tensorflow", reason="only there are shapes unknown"
)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layer_class", [GRU, LSTM])
def test_the_number_of_rows_may_be_known_of_the_inputs_alone(layer_class, training):
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
def test_numbers_that_are_no_floats_are_read_as_in_keras(ours, theirs, dtype):
    fast, slow = both(ours, theirs)
    numbers = (SEQUENCES > 0).astype(dtype)
    assert_close(fast(numbers), slow(numbers))


def test_small_layers_are_left_to_keras_where_compiling_takes_longer(monkeypatch):
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
def test_states_that_do_not_fit_are_refused_in_words(states, received, unroll):
    layer, shapes = LSTM(UNITS, unroll=unroll), [(B, UNITS)] * 2
    message = f"must have the shapes {shapes}. Received: the shapes {received}. A"
    with pytest.raises(ValueError, match=re.escape(message)):
        layer(SEQUENCES, initial_state=states)


@pytest.mark.parametrize(
    "wrong", [{"initial_state": np.zeros((B, 9))}, {"mask": np.ones((B, T + 2), bool)}]
)
def test_after_a_refused_call_dropout_is_drawn_anew(wrong):
    layer = GRU(UNITS, dropout=0.5, recurrent_dropout=0.5)
    with pytest.raises(ValueError, match="Received"):
        layer(SEQUENCES, training=True, **wrong)
    layer(SEQUENCES[:-1], training=True)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="others know every shape"
)
@pytest.mark.parametrize("units", [UNITS, 33])
def test_the_width_of_states_may_not_be_known(units):
    import tensorflow as tf

    layer, state = GRU(units), random_array(B, units)
    expected = layer(SEQUENCES, initial_state=state)
    run = tf.function(
        lambda sequences, state: layer(sequences, initial_state=state),
        input_signature=[tf.TensorSpec((None, None, D)), tf.TensorSpec((None, None))],
    )
    assert_close(run(SEQUENCES, state), expected)


def test_a_mask_may_be_a_nested_list():
    layer, _ = both(LSTM, keras.layers.LSTM)
    given = ops.convert_to_tensor(MIXED)
    assert_close(layer(SEQUENCES, mask=MIXED.tolist()), layer(SEQUENCES, mask=given))
