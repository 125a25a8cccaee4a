import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import RecurrentEncoder, Zoneout
from tests.helpers import (
    array,
    assert_close,
    check_batch_equals_rows,
    check_layer_runs,
    check_padding_changes_nothing,
    compiled,
    length_mask,
    random_array,
    randomize,
    step_cell,
)

B, T, D, U = 3, 6, 5, 4
SEQUENCES, MASK = random_array(B, T, D), length_mask(6, 4, 1, size=T)
CELLS = [keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell]


def build(cell_class, zoneout, units=U, **options):
    layer = Zoneout(cell_class(units), zoneout, return_sequences=True, **options)
    layer.build((None, None, D))
    randomize(layer)
    return layer


@pytest.mark.parametrize("cell_class", CELLS)
def test_inference_averages_the_old_and_new_states(cell_class):
    number = np.size(cell_class(U).state_size)
    rates = [0.3, 0.6][:number]
    layer = build(cell_class, rates, return_state=True)
    outputs, *last = layer(SEQUENCES)
    for b in range(B):
        states = [np.zeros(U)] * number
        for t in range(T):
            new = step_cell(layer.cell, SEQUENCES[b, t], states)
            states = [
                r * s + (1 - r) * n for r, s, n in zip(rates, states, new, strict=True)
            ]
            assert_close(array(outputs)[b, t], states[0])
        assert_close([state[b] for state in last], states)


def test_training_keeps_or_replaces_the_state_of_each_unit():
    layer = build(keras.layers.GRUCell, 0.25, units=100, seed=1)
    outputs = compiled(lambda: layer(SEQUENCES, training=True))()
    outputs = array(outputs).astype("float64")
    before = np.concatenate([np.zeros((B, 1, 100)), outputs[:, :-1]], axis=1)
    kept = np.isclose(outputs, before, rtol=0, atol=1e-7)
    assert abs(kept.mean() - 0.25) < 0.03  # 1,800 samples, 3 standard deviations
    assert len({row.tobytes() for row in kept.reshape(-1, 100)}) == B * T
    for b in range(B):
        for t in range(T):
            [new] = step_cell(layer.cell, SEQUENCES[b, t], [before[b, t]])
            expected = np.where(kept[b, t], before[b, t], new)
            assert_close(outputs[b, t], expected, atol=1e-4)


def test_the_states_of_an_lstm_have_separate_masks_and_rates():
    layer = build(keras.layers.LSTMCell, [0.0, 0.9], units=50, return_state=True)
    _, h, c = layer(SEQUENCES[:, :1], training=True)
    assert (array(h) != 0).all() and 0.8 < (array(c) == 0).mean() < 1


def test_equal_seeds_give_equal_masks_and_the_next_call_differs():
    first, second = (build(keras.layers.GRUCell, 0.5, seed=3) for _ in range(2))
    outputs = array(first(SEQUENCES, training=True))
    assert_close(second(SEQUENCES, training=True), outputs)
    assert abs(array(first(SEQUENCES, training=True)) - outputs).max() > 1e-3
    assert_close(first(SEQUENCES), second(SEQUENCES))


@pytest.mark.thorough(all_but=2)
@pytest.mark.parametrize("cell_class", CELLS)
def test_zoneout_keeps_the_contract_of_layers(cell_class):
    arrays = {"sequences": SEQUENCES, "mask": MASK}
    init_args = {"cell": lambda: cell_class(U), "zoneout": 0.2, "return_state": True}
    check_layer_runs(Zoneout, init_args, arrays)
    layer = build(cell_class, 0.2, return_state=True)

    def apply(sequences, mask):
        outputs, *states = layer(sequences, mask=mask)
        return [outputs], states

    check_padding_changes_nothing(apply, SEQUENCES, MASK)
    check_batch_equals_rows(lambda x, mask: layer(x, mask=mask), SEQUENCES, MASK)


def test_the_output_before_the_first_real_step_is_the_initial_state():
    layer, first = build(keras.layers.GRUCell, 0.2), random_array(B, U, seed=9)
    late = ops.convert_to_tensor(np.arange(T) > np.array([[1], [3], [T]]))
    outputs = array(layer(SEQUENCES, mask=late, initial_state=[first]))
    assert_close(outputs[:, :2], np.stack([first, first], axis=1))
    assert_close(outputs[2], np.broadcast_to(first[2], (T, U)))
    assert abs(outputs[0, 2] - first[0]).max() > 0.01


@pytest.mark.thorough
def test_an_encoder_with_zoneout_trains_in_both_directions():
    encoder = RecurrentEncoder("lstm", U, 2, bidirectional=True, zoneout=0.2)
    model = keras.Sequential([keras.Input((None, D)), encoder])
    model.compile("adam", "mse")
    model.fit(SEQUENCES, np.zeros((B, T, 2 * U)), verbose=0)
    layer = encoder.recurrent_layers[0]
    for direction in (layer.forward_layer, layer.backward_layer):
        assert isinstance(direction, Zoneout) and direction.zoneout == 0.2


@pytest.mark.parametrize(
    "zoneout, message",
    [(1.0, "up to, but not including, 1"), ([0.1], "one for each state")],
)
def test_rejects_invalid_rates(zoneout, message):
    with pytest.raises(ValueError, match=message):
        Zoneout(keras.layers.LSTMCell(U), zoneout)


@pytest.mark.parametrize(
    "given",
    [
        keras.layers.GRU(U),
        [keras.layers.GRUCell(U)],
        keras.layers.StackedRNNCells([keras.layers.GRUCell(U)]),
    ],
    ids=lambda given: type(given).__name__,
)
def test_rejects_a_value_that_is_not_one_cell(given):
    with pytest.raises(ValueError, match="`cell` must be one cell. Received: cell="):
        Zoneout(given)
