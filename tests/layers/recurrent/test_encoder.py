import keras
import numpy as np
import pytest

from kseq.layers import RecurrentDecoder, RecurrentEncoder
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
    sigmoid,
    step_cell,
    with_keras_mask,
)

B, S, D, UNITS = 3, 7, 5, 11

MASK = length_mask(5, 7, 1, size=S)
MASK[0, :2] = False  # left padding as well

SEQUENCES = random_array(B, S, D)


def build(*args, **options):
    encoder = RecurrentEncoder(*args, **options)
    encoder.build((None, None, D))
    randomize(encoder)
    return encoder


def merge(forward, backward, merge_mode):
    if merge_mode == "concat":
        return np.concatenate([forward, backward], axis=-1)
    if merge_mode == "sum":
        return forward + backward
    return forward * backward if merge_mode == "mul" else (forward + backward) / 2


def run_cell(cell, sequence):
    """Return outputs and final states of a cell for a row without padding."""
    number = 2 if isinstance(cell, keras.layers.LSTMCell) else 1
    states, outputs = [np.zeros(cell.units)] * number, []
    for x in sequence:
        states = step_cell(cell, x, states)
        outputs.append(states[0])
    return np.array(outputs), states


def run_encoder(encoder, sequence):
    """Return outputs and final states of each layer for a row without padding."""
    final = []
    for index, layer in enumerate(encoder.recurrent_layers):
        inputs = sequence
        if encoder.layer_normalization:
            norm = encoder.normalizations[index]
            deviation = np.sqrt(inputs.var(axis=-1, keepdims=True) + norm.epsilon)
            inputs = (inputs - inputs.mean(axis=-1, keepdims=True)) / deviation
            inputs = inputs * array(norm.gamma) + array(norm.beta)
        if encoder.bidirectional:
            outputs, states = run_cell(layer.forward_layer.cell, inputs)
            back, back_states = run_cell(layer.backward_layer.cell, inputs[::-1])
            outputs = merge(outputs, back[::-1], encoder.merge_mode)
            states = [
                merge(*pair, encoder.merge_mode)
                for pair in zip(states, back_states, strict=True)
            ]
        else:
            outputs, states = run_cell(layer.cell, inputs)
        if encoder.residual and outputs.shape == sequence.shape:
            if encoder.residual == "highway":
                layer = encoder.gates[index]
                gate = sigmoid(sequence @ array(layer.kernel) + array(layer.bias))
                outputs = gate * outputs + (1 - gate) * sequence
            else:
                outputs = sequence + outputs
        sequence = outputs
        final.append(states)
    return sequence, final


def test_recurrent_encoder_keeps_the_contract_of_layers():
    mask = MASK.copy()
    mask[1] = False
    check_layer(
        RecurrentEncoder,
        {
            "cell": "lstm",
            "units": UNITS,
            "num_layers": 2,
            "bidirectional": True,
            "merge_mode": "sum",
            "dropout": 0.2,
            "recurrent_dropout": 0.1,
            "zoneout": 0.05,
            "residual": "highway",
            "layer_normalization": True,
        },
        {"sequences": SEQUENCES, "mask": mask},
        {"return_state": True},
    )


def test_an_encoder_with_a_cell_object_keeps_the_contract_of_layers():
    check_layer_runs(
        RecurrentEncoder,
        {"cell": lambda: keras.layers.GRUCell(UNITS), "num_layers": 2},
        {"sequences": SEQUENCES},
    )


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "rnn"},
        {"cell": "gru"},
        {"cell": "lstm"},
        {"cell": "gru", "num_layers": 3},
        {"cell": "lstm", "num_layers": 2, "bidirectional": True},
        {"cell": "gru", "bidirectional": True, "merge_mode": "mul"},
        {"cell": "rnn", "num_layers": 2, "bidirectional": True, "merge_mode": "ave"},
        {"cell": "lstm", "num_layers": 3, "residual": True},
        {"cell": "gru", "num_layers": 2, "layer_normalization": True},
        {"cell": "gru", "num_layers": 3, "residual": "highway"},
        {
            "cell": "gru",
            "num_layers": 2,
            "bidirectional": True,
            "merge_mode": "sum",
            "residual": True,
            "layer_normalization": True,
        },
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_the_encoder_equals_a_loop(options):
    encoder = build(units=UNITS, **options)
    outputs, states = encoder(SEQUENCES, mask=MASK, return_state=True)
    assert outputs.shape[-1] == encoder.output_width
    for b in range(B):
        expected, expected_states = run_encoder(encoder, SEQUENCES[b, MASK[b]])
        assert_close(array(outputs)[b, MASK[b]], expected)
        assert_close([[s[b] for s in layer] for layer in states], expected_states)


def test_the_first_layer_is_residual_if_the_widths_agree():
    encoder = build("gru", D, residual=True)
    plain = RecurrentEncoder("gru", D)
    plain.build((None, None, D))
    plain.set_weights(encoder.get_weights())
    assert_close(encoder(SEQUENCES), SEQUENCES + array(plain(SEQUENCES)))


def test_highway_gates_need_equal_widths_and_start_with_a_negative_bias():
    encoder = RecurrentEncoder("gru", UNITS, num_layers=2, residual="highway")
    encoder.build((None, None, D))
    assert [gate is not None for gate in encoder.gates] == [False, True]
    assert_close(encoder.gates[1].bias, -np.ones(UNITS))


def test_rejects_an_unknown_residual():
    with pytest.raises(ValueError, match="`residual` must be .*Received: .*'dense'"):
        RecurrentEncoder("gru", UNITS, residual="dense")


def test_a_cell_object_equals_its_name():
    named = build("lstm", UNITS, num_layers=2)
    given = RecurrentEncoder(keras.layers.LSTMCell(UNITS), num_layers=2)
    given.build((None, None, D))
    given.set_weights(named.get_weights())
    assert given.units == UNITS
    assert_close(
        given(SEQUENCES, mask=MASK, return_state=True),
        named(SEQUENCES, mask=MASK, return_state=True),
    )


def test_copies_of_a_cell_have_its_options_and_separate_weights():
    cell = keras.layers.GRUCell(UNITS, reset_after=False, activation="relu")
    encoder = RecurrentEncoder(cell, num_layers=2, bidirectional=True)
    encoder.build((None, None, D))
    cells = [
        direction.cell
        for layer in encoder.recurrent_layers
        for direction in (layer.forward_layer, layer.backward_layer)
    ]
    assert len({id(cell.kernel) for cell in cells}) == 4
    assert all(not cell.reset_after for cell in cells)
    assert all(cell.activation is keras.activations.relu for cell in cells)


def test_returning_the_states_does_not_change_the_outputs():
    encoder = build("lstm", UNITS, num_layers=2)
    outputs, _ = encoder(SEQUENCES, mask=MASK, return_state=True)
    assert_close(encoder(SEQUENCES, mask=MASK), outputs, rtol=0, atol=0)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_changes_nothing(cell, bidirectional):
    encoder = build(
        cell, UNITS, 2, bidirectional, residual=True, layer_normalization=True
    )

    def apply(sequences, mask):
        outputs, states = encoder(sequences, mask=mask, return_state=True)
        return [outputs], states

    check_padding_changes_nothing(apply, SEQUENCES, MASK)


def test_a_batch_equals_its_rows():
    encoder = build("gru", UNITS, 2, bidirectional=True)
    check_batch_equals_rows(
        lambda x, mask: encoder(x, mask=mask, return_state=True), SEQUENCES, MASK
    )


def test_a_fully_masked_row_is_finite():
    encoder = build("lstm", UNITS, 2, bidirectional=True, layer_normalization=True)

    def apply(sequences, mask):
        outputs, states = encoder(sequences, mask=mask, return_state=True)
        return [outputs, *states[0], *states[1]]

    check_fully_masked_rows_are_finite(apply, SEQUENCES, MASK)


def test_the_keras_mask_is_used_and_kept():
    encoder = build("gru", UNITS, 2, bidirectional=True)
    carried, states = encoder(with_keras_mask(SEQUENCES, MASK), return_state=True)
    explicit = encoder(SEQUENCES, mask=MASK)
    unmasked = encoder(SEQUENCES, return_state=True)
    assert_close(carried, explicit)
    assert array(carried._keras_mask).tolist() == MASK.tolist()
    assert array(explicit._keras_mask).tolist() == MASK.tolist()
    assert np.abs(array(states[0][0]) - array(unmasked[1][0][0])).max() > 0.01


def test_dropout_drops_the_same_features_at_every_step_and_only_in_training():
    encoder = build("rnn", 101, num_layers=2, dropout=0.5)
    for layer in encoder.recurrent_layers:  # outputs depend on the current step only
        layer.cell.recurrent_kernel.assign(0 * layer.cell.recurrent_kernel)
    constant = np.repeat(SEQUENCES[:, :1], S, axis=1)
    plain, dropped = array(encoder(constant)), array(encoder(constant, training=True))
    assert_close(dropped, np.repeat(dropped[:, :1], S, axis=1))
    assert np.abs(dropped - plain).max(axis=(1, 2)).min() > 0.1
    assert_close(encoder(constant, training=False), plain, rtol=0, atol=0)


def test_dropout_applies_to_the_input_of_every_layer():
    encoder = build("rnn", 2, num_layers=2, dropout=0.5)
    top = encoder.recurrent_layers[1].cell
    top.kernel.assign(np.eye(2, dtype="float32"))
    top.recurrent_kernel.assign(np.zeros((2, 2), "float32"))
    top.bias.assign(np.zeros(2, "float32"))
    outputs = array(encoder(random_array(101, S, D), training=True))
    dropped = outputs == 0
    assert 0.3 < dropped.mean() < 0.7
    assert (dropped == dropped[:, :1]).all()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_dropout_applies_in_training_only(bidirectional):
    encoder = build("lstm", UNITS, bidirectional=bidirectional, recurrent_dropout=0.5)
    plain = array(encoder(SEQUENCES))
    assert_close(encoder(SEQUENCES, training=False), plain, rtol=0, atol=0)
    dropped = array(encoder(SEQUENCES, training=True))
    forward = slice(0, UNITS)
    assert_close(dropped[:, 0, forward], plain[:, 0, forward])  # the state was zero
    assert np.abs(dropped[:, -1, forward] - plain[:, -1, forward]).max() > 0.01


def test_rejects_an_additive_mask():
    additive = np.where(MASK, 0, -1e9).astype("float32")
    with pytest.raises(ValueError, match=r"mask with the value -1000000000\.0"):
        build("gru", UNITS)(SEQUENCES, mask=additive)


def test_a_mask_of_zeros_and_ones_equals_the_boolean_one():
    encoder = build("gru", UNITS)
    expected = encoder(SEQUENCES, mask=MASK)
    assert_close(encoder(SEQUENCES, mask=MASK.astype("int32")), expected)


def test_rejects_an_unknown_cell():
    message = '"gru", "mingru", or a Keras cell. Received: cell=\'elman\''
    with pytest.raises(ValueError, match=message):
        RecurrentEncoder("elman", UNITS)


@pytest.mark.parametrize(
    "cell", [lambda: keras.layers.Dense(5), lambda: keras.layers.LSTM(5), lambda: None]
)
def test_rejects_a_value_that_is_not_a_cell(cell):
    with pytest.raises(ValueError, match=r"or a Keras cell.*Received: cell="):
        RecurrentEncoder(cell())


def test_units_must_agree_with_a_cell_object():
    message = r"units=5 with a cell of output size 11\. Omit `units`"
    with pytest.raises(ValueError, match=message):
        RecurrentEncoder(keras.layers.GRUCell(11), units=5)


def test_rejects_recurrent_dropout_with_a_cell_object():
    with pytest.raises(ValueError, match="recurrent_dropout=0.2 with cell=my_cell"):
        cell = keras.layers.GRUCell(UNITS, name="my_cell")
        RecurrentEncoder(cell, recurrent_dropout=0.2)


@pytest.mark.parametrize(
    "name, value",
    [
        ("units", None),
        ("units", 0),
        ("num_layers", 0),
        ("dropout", 1.0),
        ("recurrent_dropout", -0.1),
        ("merge_mode", "max"),
    ],
)
def test_rejects_invalid_numbers_and_names(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must.*Received: {name}={value!r}"):
        RecurrentEncoder(**{"cell": "gru", "units": UNITS, name: value})


@pytest.mark.parametrize("layer_class", [RecurrentEncoder, RecurrentDecoder])
def test_rejects_stacked_cells(layer_class):
    cell = keras.layers.StackedRNNCells([keras.layers.GRUCell(4) for _ in range(3)])
    with pytest.raises(ValueError, match="must be one cell[\\s\\S]*`num_layers=3`"):
        layer_class(cell)
    with pytest.raises(ValueError, match="must be a name or a Keras cell"):
        layer_class(cell.cells)
