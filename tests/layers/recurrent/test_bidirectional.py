import keras
import numpy as np
import pytest

import kseq.layers
from kseq.layers import Bidirectional
from tests.helpers import (
    array,
    assert_close,
    check_batch_equals_rows,
    check_fully_masked_rows_are_finite,
    check_layer,
    check_layer_runs,
    check_padding_changes_nothing,
    length_mask,
    random_array,
    randomize,
    step_cell,
    with_keras_mask,
)

B, S, D, UNITS = 3, 7, 5, 2

MASK = length_mask(5, 7, 1, size=S)
MASK[0, :2] = False  # left padding as well

MERGES = {
    "concat": lambda forward, backward: np.concatenate([forward, backward], axis=-1),
    "sum": np.add,
    "mul": np.multiply,
    "ave": lambda forward, backward: (forward + backward) / 2,
}


def gru(**options):
    options = {"return_sequences": True, "return_state": True, **options}
    return keras.layers.GRU(UNITS, **options)


def lstm(**options):
    options = {"return_sequences": True, "return_state": True, **options}
    return keras.layers.LSTM(UNITS, **options)


def build(layer, merge_mode="concat"):
    layer = Bidirectional(layer, merge_mode)
    layer.build((None, None, D))
    randomize(layer)
    return layer


def run(cell, sequence, states=None):
    """Return outputs and final states of a cell for a row without padding."""
    if states is None:
        states = [np.zeros(UNITS) for _ in range(2 if is_lstm(cell) else 1)]
    outputs = []
    for x in sequence:
        states = step_cell(cell, x, states)
        outputs.append(states[0])
    return np.array(outputs), states


def is_lstm(cell):
    return isinstance(cell, keras.layers.LSTMCell)


def test_bidirectional_keeps_the_contract_of_layers():
    mask = MASK.copy()
    mask[1] = False
    check_layer(
        Bidirectional,
        {"layer": lstm, "merge_mode": "ave"},
        {"sequences": random_array(B, S, D), "mask": mask},
    )


def test_bidirectional_without_states_keeps_the_contract_of_layers():
    check_layer_runs(
        Bidirectional,
        {"layer": lambda: gru(return_state=False)},
        {"sequences": random_array(B, S, D)},
    )


@pytest.mark.parametrize("merge_mode", list(MERGES))
@pytest.mark.parametrize("make_layer", [gru, lstm])
def test_outputs_and_states_equal_two_loops(make_layer, merge_mode):
    layer = build(make_layer(), merge_mode)
    sequences = random_array(B, S, D)
    outputs, *states = layer(sequences, mask=MASK)
    merge = MERGES[merge_mode]
    for b in range(B):
        real = sequences[b, MASK[b]]
        ahead, ahead_states = run(layer.forward_layer.cell, real)
        back, back_states = run(layer.backward_layer.cell, real[::-1])
        assert_close(array(outputs)[b, MASK[b]], merge(ahead, back[::-1]))
        expected = [
            merge(*pair) for pair in zip(ahead_states, back_states, strict=True)
        ]
        assert_close([state[b] for state in states], expected)


@pytest.mark.parametrize("layers", [keras.layers, kseq.layers], ids=["keras", "kseq"])
def test_each_direction_has_its_own_initial_states(layers):
    options = {"return_sequences": True, "return_state": True}
    layer = build(layers.LSTM(UNITS, **options), "sum")
    sequences = random_array(B, S, D)
    first = [random_array(B, UNITS, seed=seed) for seed in range(4)]
    outputs, *states = layer(sequences, mask=MASK, initial_state=first)
    for b in range(B):
        real = sequences[b, MASK[b]]
        ahead_first, back_first = [s[b] for s in first[:2]], [s[b] for s in first[2:]]
        ahead, ahead_states = run(layer.forward_layer.cell, real, ahead_first)
        back, back_states = run(layer.backward_layer.cell, real[::-1], back_first)
        assert_close(array(outputs)[b, MASK[b]], ahead + back[::-1])
        expected = [f + s for f, s in zip(ahead_states, back_states, strict=True)]
        assert_close([state[b] for state in states], expected)


def test_a_functional_model_with_initial_states_can_be_saved(tmp_path):
    layer = build(gru(), "ave")
    inputs = [keras.Input((None, D)), keras.Input((UNITS,)), keras.Input((UNITS,))]
    model = keras.Model(inputs, layer(inputs[0], initial_state=inputs[1:]))
    arrays = [random_array(B, S, D), random_array(B, UNITS), random_array(B, UNITS)]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_close(loaded(arrays), layer(arrays[0], initial_state=arrays[1:]))
    assert np.abs(array(loaded(arrays)[0]) - array(layer(arrays[0])[0])).max() > 0.01


def test_rejects_too_few_initial_states():
    with pytest.raises(ValueError, match="list of 4 states, 2 for .*Received: 2"):
        build(lstm())(random_array(B, S, D), initial_state=[np.zeros((B, UNITS))] * 2)


def test_the_directions_have_separate_weights():
    layer = Bidirectional(lstm())
    layer.build((None, None, D))
    ahead, back = layer.forward_layer.get_weights(), layer.backward_layer.get_weights()
    assert (ahead[0] != back[0]).any()
    assert len(layer.trainable_weights) == 6


def test_returning_the_states_does_not_change_the_outputs():
    layer, plain = build(lstm()), build(lstm(return_state=False))
    sequences = random_array(B, S, D)
    assert_close(plain(sequences, mask=MASK), layer(sequences, mask=MASK)[0])


def test_any_keras_rnn_layer_is_accepted():
    rnn = keras.layers.RNN(
        keras.layers.SimpleRNNCell(UNITS), return_sequences=True, return_state=True
    )
    layer = build(rnn, "sum")
    sequences = random_array(B, S, D)
    outputs, state = layer(sequences)
    ahead, (ahead_state,) = run(layer.forward_layer.cell, sequences[0])
    back, (back_state,) = run(layer.backward_layer.cell, sequences[0, ::-1])
    assert_close(outputs[0], ahead + back[::-1])
    assert_close(state[0], ahead_state + back_state)


@pytest.mark.parametrize("make_layer", [gru, lstm])
def test_padding_changes_nothing(make_layer):
    layer = build(make_layer())

    def apply(sequences, mask):
        outputs, *states = layer(sequences, mask=mask)
        return [outputs], states

    check_padding_changes_nothing(apply, random_array(B, S, D), MASK)


def test_a_batch_equals_its_rows():
    layer = build(lstm())
    sequences = random_array(B, S, D)
    check_batch_equals_rows(lambda x, mask: layer(x, mask=mask), sequences, MASK)


def test_a_fully_masked_row_is_finite():
    layer = build(gru())
    check_fully_masked_rows_are_finite(
        lambda x, mask: list(layer(x, mask=mask)), random_array(B, S, D), MASK
    )


def test_the_keras_mask_is_used_and_kept():
    layer = build(lstm())
    sequences = random_array(B, S, D)
    carried = layer(with_keras_mask(sequences, MASK))
    assert_close(carried, layer(sequences, mask=MASK))
    assert array(carried[0]._keras_mask).tolist() == MASK.tolist()
    assert np.abs(array(carried[1]) - array(layer(sequences)[1])).max() > 0.01


def test_dropout_applies_in_training_only():
    layer = build(lstm(dropout=0.5))
    sequences = random_array(B, S, D)
    plain = array(layer(sequences)[0])
    assert_close(layer(sequences, training=False)[0], plain)
    dropped = array(layer(sequences, training=True)[0])
    assert (dropped[..., :UNITS] != plain[..., :UNITS]).any()
    assert (dropped[..., UNITS:] != plain[..., UNITS:]).any()


def test_rejects_an_additive_mask():
    with pytest.raises(ValueError, match=r"mask with the value -1000000000\.0"):
        additive = np.where(MASK, 0, -1e9).astype("float32")
        build(gru())(random_array(B, S, D), mask=additive)


def test_rejects_a_layer_that_returns_one_vector():
    message = r"layer=reader with return_sequences=False\. Build it with"
    with pytest.raises(ValueError, match=message):
        Bidirectional(gru(return_sequences=False, name="reader"))


def test_rejects_a_layer_that_runs_backwards():
    with pytest.raises(ValueError, match=r"runs forwards\. Received: layer=<GRU"):
        Bidirectional(gru(go_backwards=True))


def test_rejects_a_layer_that_is_not_recurrent():
    with pytest.raises(ValueError, match=r"recurrent Keras layer.*layer=<Dense"):
        Bidirectional(keras.layers.Dense(5))


def test_rejects_an_unknown_merge_mode():
    with pytest.raises(ValueError, match="\"ave\". Received: merge_mode='max'"):
        Bidirectional(gru(), "max")


@pytest.mark.parametrize("as_list", [True, False])
def test_stacked_cells_return_the_merged_states_of_each_cell(as_list):
    cells = [keras.layers.LSTMCell(3), keras.layers.GRUCell(4)]
    cell = cells if as_list else keras.layers.StackedRNNCells(cells)
    layer = keras.layers.RNN(cell, return_sequences=True, return_state=True)
    both = Bidirectional(layer)
    x = random_array(B, S, D)
    outputs, *states = both(x, mask=MASK)
    assert outputs.shape == (B, S, 8)
    shapes = [tuple(s.shape) for s in keras.tree.flatten(states)]
    assert shapes == [(B, 6), (B, 6), (B, 8)]
    ahead = both.forward_layer(x, mask=MASK)
    assert_close(outputs[..., :4], ahead[0])
    for merged, state in zip(
        keras.tree.flatten(states), keras.tree.flatten(ahead[1:]), strict=True
    ):
        assert_close(merged[:, : state.shape[-1]], state)
    assert both.compute_output_shape(x.shape)[0] == (B, S, 8)

    first = [random_array(B, n, seed=n + i) for i, n in enumerate([3, 3, 4, 3, 3, 4])]
    outputs, *_ = both(x, initial_state=first)
    structure = [first[:2], first[2]]
    assert_close(outputs[..., :4], both.forward_layer(x, initial_state=structure)[0])
