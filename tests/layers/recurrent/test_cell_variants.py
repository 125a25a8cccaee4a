import keras
import numpy as np
import pytest

from kseq.layers import (
    LayerNormGRUCell,
    LayerNormLSTMCell,
    PeepholeLSTMCell,
    RecurrentDecoder,
    RecurrentEncoder,
)
from tests.helpers import (
    array,
    assert_close,
    check_batch_equals_rows,
    check_layer_runs,
    check_padding_changes_nothing,
    check_steps_equal_sequence,
    length_mask,
    random_array,
    randomize,
    sigmoid,
)

B, S, T, D, U = 3, 6, 4, 5, 4
CELLS = [LayerNormLSTMCell, LayerNormGRUCell, PeepholeLSTMCell]
SEQUENCES, MASK = random_array(B, S, D), length_mask(6, 4, 1, size=S)


def build_cell(cell_class, **options):
    cell = cell_class(U, **options)
    cell.build((None, D))
    randomize(cell)
    return cell


def states_of(cell):
    return [random_array(B, U, seed=7 + i) for i in range(np.size(cell.state_size))]


def normalized(layer, x):
    """Return the layer normalization of `(B, N)`, by its definition."""
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    scaled = (x - mean) / np.sqrt(variance + layer.epsilon) * array(layer.gamma)
    return scaled + (array(layer.beta) if layer.center else 0)


def next_lstm(cell, x, h, c):
    products = x @ array(cell.kernel), h @ array(cell.recurrent_kernel)
    if isinstance(cell, PeepholeLSTMCell):
        i, f, g, o = np.split(sum(products) + array(cell.bias), 4, axis=-1)
        p_i, p_f, p_o = array(cell.peepholes)
        c_new = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * np.tanh(g)
        return [sigmoid(o + p_o * c_new) * np.tanh(c_new), c_new]
    layers = cell.input_normalization, cell.recurrent_normalization
    gates = sum(map(normalized, layers, products)) + array(cell.bias)
    i, f, g, o = np.split(gates, 4, axis=-1)
    c_new = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(normalized(cell.state_normalization, c_new)), c_new]


def next_gru(cell, x, h):
    x_z, x_r, x_h = np.split(x @ array(cell.kernel), 3, axis=-1)
    h_z, h_r, h_h = np.split(h @ array(cell.recurrent_kernel), 3, axis=-1)
    (b_z, b_r, b_h), (d_z, d_r, d_h) = (np.split(b, 3) for b in array(cell.bias))
    x_zr = normalized(cell.input_normalization, np.concatenate([x_z, x_r], -1))
    h_zr = normalized(cell.recurrent_normalization, np.concatenate([h_z, h_r], -1))
    z, r = np.split(
        sigmoid(x_zr + h_zr + np.concatenate([b_z + d_z, b_r + d_r])), 2, axis=-1
    )
    reset = r * (normalized(cell.recurrent_normalization_h, h_h) + d_h)
    new = np.tanh(normalized(cell.input_normalization_h, x_h) + b_h + reset)
    return [z * h + (1 - z) * new]


@pytest.mark.parametrize("cell_class", CELLS)
def test_step_equals_the_formula(cell_class):
    cell, x = build_cell(cell_class), SEQUENCES[:, 0]
    states = states_of(cell)
    expected = (next_gru if len(states) == 1 else next_lstm)(cell, x, *states)
    output, after = cell(x, states)
    assert_close(output, expected[0])
    for state, state_expected in zip(after, expected, strict=True):
        assert_close(state, state_expected)


def test_peephole_cell_with_zero_peepholes_equals_keras_lstm():
    cell, plain = PeepholeLSTMCell(U), keras.layers.LSTMCell(U)
    x, states = SEQUENCES[:, 0], [random_array(B, U), random_array(B, U, seed=1)]
    plain.build((None, D))
    randomize(plain)
    cell.build((None, D))
    cell.set_weights([*plain.get_weights(), np.zeros((3, U))])
    assert_close(cell(x, states)[0], plain(x, states)[0])
    # The output gate reads the new cell state, the other gates the old one.
    cell.set_weights([*plain.get_weights(), np.repeat([[0.0], [0.0], [1.0]], U, 1)])
    assert_close(cell(x, states)[1][1], plain(x, states)[1][1])
    assert abs(array(cell(x, states)[0]) - array(plain(x, states)[0])).max() > 1e-3


@pytest.mark.parametrize("cell_class", [LayerNormLSTMCell, LayerNormGRUCell])
def test_normalized_cells_ignore_the_scale_of_the_inputs(cell_class):
    cell = build_cell(cell_class)
    states = states_of(cell)
    large = cell(SEQUENCES[:, 0] * 1000, states)[0]
    assert_close(cell(SEQUENCES[:, 0] * 100, states)[0], large, rtol=1e-3, atol=1e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("cell_class", CELLS)
def test_encoder_of_the_cell_passes_the_layer_checks(cell_class):
    init_args = {"cell": lambda: cell_class(U), "num_layers": 2, "bidirectional": True}
    check_layer_runs(
        RecurrentEncoder, init_args, {"sequences": SEQUENCES, "mask": MASK}
    )
    encoder = RecurrentEncoder(cell_class(U), num_layers=2, bidirectional=True)
    encoder.build((None, None, D))
    randomize(encoder)

    def apply(sequences, mask):
        outputs, states = encoder(sequences, mask=mask, return_state=True)
        return [outputs], states

    check_padding_changes_nothing(apply, SEQUENCES, MASK)
    check_batch_equals_rows(lambda x: encoder(x), SEQUENCES)


@pytest.mark.thorough(all_but=2)
@pytest.mark.parametrize("cell_class", CELLS)
def test_decoder_steps_equal_the_whole_sequence(cell_class):
    decoder = RecurrentDecoder(cell_class(U), num_layers=2, attention="bahdanau")
    memory, first = random_array(B, S, D, seed=2), states_of(cell_class(U))
    shapes = [[state.shape for state in first]] * 2
    decoder.build((None, None, D), memory.shape, shapes)
    randomize(decoder)
    inputs = random_array(B, 2, T, D)
    check_steps_equal_sequence(decoder, inputs, memory, [None, MASK], [first, first])


@pytest.mark.parametrize("cell_class", CELLS)
def test_dropout_is_equal_at_every_step_and_in_training_only(cell_class):
    cell = build_cell(cell_class, dropout=0.5, recurrent_dropout=0.5, seed=0)
    layer, ones = keras.layers.RNN(cell, return_sequences=True), np.ones((B, S, D))
    assert_close(layer(ones), layer(ones))
    assert abs(array(layer(ones, training=True)) - array(layer(ones))).max() > 1e-3
    dropped = cell.get_dropout_mask(np.ones((B, D), "float32"))
    assert dropped is cell.get_dropout_mask(np.ones((B, D), "float32"))


@pytest.mark.parametrize("cell_class", CELLS)
def test_cells_run_without_bias(cell_class):
    cell = cell_class(U, use_bias=False)
    output, _ = cell(SEQUENCES[:, 0], states_of(cell))
    assert tuple(output.shape) == (B, U)


@pytest.mark.parametrize("cell_class", CELLS)
def test_rejects_options_that_the_cells_lack(cell_class):
    with pytest.raises(ValueError, match="`implementation` must be 2.*Received"):
        cell_class(U, implementation=1)


def test_rejects_a_reset_before_the_product():
    with pytest.raises(ValueError, match="`reset_after` must be True.*Received"):
        LayerNormGRUCell(U, reset_after=False)
