"""MinGRU: its formula in NumPy, its gradient, and the memory of its first weights."""

import keras
import numpy as np
import pytest
from keras import ops

import kseq
from kseq.layers import (
    Bidirectional,
    MinGRU,
    MinGRUCell,
    RecurrentDecoder,
    RecurrentEncoder,
    backends,
    torch_kernels,
)
from tests.helpers import (
    array,
    assert_close,
    check_batch_equals_rows,
    check_config_keeps_every_argument,
    check_layer_runs,
    check_padding_changes_nothing,
    check_steps_equal_sequence,
    gradient,
    length_mask,
    random_array,
    randomize,
    recurrent_gradient,
    sigmoid,
)

B, T, D, UNITS = 3, 5, 4, 7
SEQUENCES, STATE = random_array(B, T, D), random_array(B, UNITS, seed=9)
MASKS = {
    "no mask": None,
    "left": length_mask(5, 2, 3, size=T)[:, ::-1],
    "right": length_mask(5, 2, 3, size=T),
    "gaps": np.array([[0, 0, 1, 0, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool),
    "steps of no row": np.array([[0, 1, 0, 1, 0]] * 2 + [[0, 0, 0, 1, 0]], bool),
}
each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
each_direction = pytest.mark.parametrize("go_backwards", [False, True])


@pytest.fixture(autouse=True)
def compile_small_layers_too(monkeypatch):
    monkeypatch.setattr(backends, "SMALLEST_UNITS", 1)


def build(layer=None, **options):
    options = {"return_sequences": True, "return_state": True, **options}
    layer = layer or MinGRU(UNITS, **options)
    layer.build((None, None, D))
    randomize(layer)
    return layer


def run_formula(layer, sequences, mask=None, state=None):
    """Return all outputs, `(B, T, U)`, step by step."""
    kernel, bias = (array(weight).astype("float64") for weight in layer.weights)
    h = np.zeros((len(sequences), UNITS)) if state is None else state
    outputs = []
    for t in range(sequences.shape[1])[:: -1 if layer.go_backwards else 1]:
        gate, new = np.split(sequences[:, t] @ kernel + bias, 2, axis=-1)
        z = sigmoid(gate)
        is_real = True if mask is None else mask[:, t, None]
        h = np.where(is_real, (1 - z) * h + z * new, h)
        outputs.append(h)
    return np.stack(outputs, axis=1)


@each_direction
@each_mask
def test_outputs_and_states_equal_the_formula(mask, go_backwards):
    layer = build(go_backwards=go_backwards)
    given = None if mask is None else ops.convert_to_tensor(mask)
    outputs, last = layer(SEQUENCES, mask=given, initial_state=STATE)
    expected = run_formula(layer, SEQUENCES, mask, STATE)
    assert_close(outputs, expected)
    assert_close(last, expected[:, -1])


@each_direction
@each_mask
@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_is_that_of_keras_loop(mask, go_backwards, training):
    options = {"return_sequences": True, "return_state": True}
    options["go_backwards"] = go_backwards
    fast = build(**options)
    slow = build(keras.layers.RNN(MinGRUCell(UNITS), **options))
    assert fast._is_covered(SEQUENCES) or fast._has_kernel() or not on_cpu()
    found, expected = (
        recurrent_gradient(layer, SEQUENCES, [STATE], mask, training)
        for layer in (fast, slow)
    )
    assert_close(found, expected, atol=2e-5)


def on_cpu():
    return backends.available() or torch_kernels.available()


def test_the_first_gates_remember_from_two_steps_to_all():
    layer = MinGRU(UNITS, memory=101, return_sequences=True)
    zeros = np.zeros((1, 3, D), "float32")
    first = array(layer(zeros, initial_state=np.ones((1, UNITS), "float32")))[0]
    kept = 1 - sigmoid(np.linspace(-np.log(100), 0, UNITS))
    assert_close(kept[[0, -1]], np.array([100 / 101, 1 / 2]))
    assert_close(first, kept ** np.arange(1, 4)[:, None])


def test_a_signal_of_the_first_step_reaches_the_last_of_a_thousand():
    keras.utils.set_random_seed(0)
    layer = MinGRU(32)

    def last(first):
        zeros = ops.zeros((1, 999, D))
        return ops.sum(layer(ops.concatenate([first, zeros], axis=1)) ** 2)

    slope = gradient(last, random_array(1, 1, D))
    assert abs(slope).max() > 1e-8
    forgetful = MinGRU(32, memory=2)
    forgetful.build((None, None, D))
    layer.set_weights(forgetful.get_weights())
    assert abs(gradient(last, random_array(1, 1, D))).max() < 1e-30


@pytest.mark.skipif(not on_cpu(), reason="elsewhere Keras' loop has the precision")
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_small_steps_are_not_lost_in_half_precision(dtype):
    layer = MinGRU(UNITS, dtype=dtype)
    ones = np.ones((1, 1000, D), "float32")
    layer.build(ones.shape)
    gates, candidates = np.full(UNITS, -np.log(999)), np.ones(UNITS)  # 1 / 1000 and 1
    layer.set_weights([np.zeros((D, 2 * UNITS)), np.append(gates, candidates)])
    expected = np.full((1, UNITS), 1 - 0.999**1000)  # where bfloat16 stops at 0.25
    assert_close(ops.cast(layer(ones), "float32"), expected, rtol=0.02)


def test_chunks_in_half_precision_equal_the_whole():
    layer = build(dtype="mixed_float16")
    whole, last = layer(SEQUENCES)
    first, state = layer(SEQUENCES[:, :2])
    second, state = layer(SEQUENCES[:, 2:], initial_state=state)
    both = ops.cast(ops.concatenate([first, second], axis=1), "float32")
    assert_close(both, ops.cast(whole, "float32"), atol=5e-3)
    assert_close(ops.cast(state, "float32"), ops.cast(last, "float32"), atol=5e-3)


def test_both_directions_are_two_layers():
    both = Bidirectional(MinGRU(UNITS, memory=9, return_sequences=True))
    both.build((None, None, D))
    randomize(both)
    forward, backward = both.forward_layer, both.backward_layer
    assert backward.go_backwards and backward.memory == 9
    mask = MASKS["gaps"]
    outputs = array(both(SEQUENCES, mask=ops.convert_to_tensor(mask)))
    expected = [
        run_formula(forward, SEQUENCES, mask),
        run_formula(backward, SEQUENCES, mask)[:, ::-1],
    ]
    expected = np.concatenate(expected, axis=-1)
    assert_close(outputs[mask], expected[mask])


def test_a_deep_encoder_has_the_laws_of_masks_and_batches():
    encoder = RecurrentEncoder("mingru", UNITS, num_layers=2, bidirectional=True)
    encoder.build((None, None, D))
    randomize(encoder)

    def apply(sequences, mask):
        outputs, states = encoder(sequences, mask=mask, return_state=True)
        return [outputs], states

    check_padding_changes_nothing(apply, SEQUENCES, MASKS["right"])
    check_batch_equals_rows(lambda x: encoder(x), SEQUENCES)


def test_a_decoder_of_it_agrees_step_by_step():
    decoder = RecurrentDecoder("mingru", UNITS, num_layers=2, attention="bahdanau")
    memory = random_array(B, T, D, seed=2)
    states = [[random_array(B, 3, seed=4)], [random_array(B, 2, seed=5)]]
    shapes = [[state.shape for state in layer] for layer in states]
    decoder.build((None, None, D), memory.shape, shapes)
    randomize(decoder)
    inputs = random_array(B, 2, T, D, seed=3)  # of two beams
    check_steps_equal_sequence(decoder, inputs, memory, [None, MASKS["right"]], states)


def test_it_keeps_the_contract_of_layers():
    arguments = {"units": UNITS, "memory": 9}
    options = {"return_sequences": True, "return_state": True}
    inputs = {"sequences": SEQUENCES, "mask": MASKS["gaps"]}
    check_layer_runs(MinGRU, {**arguments, **options}, inputs)
    for layer_class in (MinGRU, MinGRUCell):
        check_config_keeps_every_argument(layer_class, arguments)


def test_a_model_of_it_trains_and_generates():
    model = kseq.encoder_decoder(11, 7, "mingru", "mingru", width=8)
    assert model.encoder.cell == model.decoder.cell == "mingru"
    assert model.generate([[4, 5, 6]], max_length=3).token_ids.shape[-1] == 3


@pytest.mark.parametrize("layer_class", [MinGRU, MinGRUCell])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": 0}, "`units` must be a positive integer. Received: units=0"),
        ({"memory": 1}, "`memory` must be at least 2 steps.*Received: memory=1"),
        ({"memory": 2.5}, "`memory` must be an integer. Received: memory=2.5"),
    ],
    ids=str,
)
def test_rejects_sizes_that_are_too_small(layer_class, options, message):
    with pytest.raises(ValueError, match=message):
        layer_class(**{"units": 3, **options})
