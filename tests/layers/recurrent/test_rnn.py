"""RNN compared with `keras.layers.RNN` around the same cell."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import (
    RNN,
    LayerNormGRUCell,
    LayerNormLSTMCell,
    PeepholeLSTMCell,
    RecurrentEncoder,
    Zoneout,
    backends,
)
from tests.helpers import (
    array,
    assert_close,
    check_layer_runs,
    check_padding_changes_nothing,
    compiled,
    functional_model,
    length_mask,
    random_array,
    randomize,
    recurrent_gradient,
    set_dropout_masks,
)

B, T, D, UNITS = 3, 5, 4, 7
SEQUENCES, RIGHT = random_array(B, T, D), length_mask(5, 2, 3, size=T)
MIXED = np.array([[0, 0, 1, 0, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="Keras runs the loop on other backends",
)


@keras.saving.register_keras_serializable(package="tests")
class MinimalCell(keras.layers.Layer):
    """A custom cell: `h' = relu(W x + a R h)`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, self.units), name="recurrent_kernel"
        )
        self.a = self.add_weight(shape=(self.units,), name="a")
        self.fixed = self.add_weight(shape=(), name="fixed", trainable=False)

    def project(self, inputs):
        return ops.matmul(inputs, ops.cast(self.kernel, inputs.dtype))

    def advance(self, projected, product, states):
        a, fixed = (ops.cast(x, product.dtype) for x in (self.a, self.fixed))
        return [ops.relu(projected + a * product + fixed)]

    def call(self, inputs, states):
        product = ops.matmul(states[0], self.recurrent_kernel)
        new = self.advance(self.project(inputs), product, states)
        return new[0], new

    def get_config(self):
        return {**super().get_config(), "units": self.units}


KERAS_CELLS = [
    keras.layers.SimpleRNNCell,
    keras.layers.LSTMCell,
    keras.layers.GRUCell,
]
VARIANTS = [LayerNormLSTMCell, LayerNormGRUCell, PeepholeLSTMCell]
CELLS = [*KERAS_CELLS, *VARIANTS, MinimalCell]


@pytest.fixture(autouse=True)
def compile_small_layers_and_eager_calls(monkeypatch):
    monkeypatch.setattr(backends, "SMALLEST_UNITS", 1)
    monkeypatch.setattr(
        backends, "is_traced", lambda tensor: keras.backend.backend() != "torch"
    )


def build_pair(cell_class, cell_options=None, **options):
    """Build an RNN of kseq and of Keras around cells with equal random weights."""
    options = {"return_sequences": True, "return_state": True, **options}
    pair = [
        layer_class(cell_class(UNITS, **(cell_options or {})), **options)
        for layer_class in (RNN, keras.layers.RNN)
    ]
    for layer in pair:
        layer.build((None, None, D))
        randomize(layer)
    return pair


def initial_states(layer):
    return [
        random_array(B, UNITS, seed=9 + i) for i in range(np.size(layer.state_size))
    ]


def run(layer, mask=None, states=None):
    """Return outputs, zero at masked steps, and states: `[(B, T, U), (B, U), ...]`."""
    mask = None if mask is None else ops.convert_to_tensor(mask)
    outputs, *last = layer(SEQUENCES, mask=mask, initial_state=states)
    if mask is not None:
        mask = ops.flip(mask, axis=1) if layer.go_backwards else mask
        outputs = ops.where(mask[..., None], outputs, 0)
    return [outputs, *last]


@pytest.mark.thorough(all_but=4)
@on_tensorflow
@pytest.mark.parametrize(
    "cell_class, go_backwards, mask",
    list(itertools.product(CELLS, [False, True], [None, MIXED])),
)
def test_outputs_and_gradients_equal_those_of_keras(cell_class, go_backwards, mask):
    fast, slow = build_pair(cell_class, go_backwards=go_backwards)
    assert fast._is_covered(SEQUENCES)
    states = initial_states(slow)
    assert_close(run(fast, mask, states), run(slow, mask, states))
    found, expected = (
        recurrent_gradient(layer, SEQUENCES, states, mask, True)
        for layer in (fast, slow)
    )
    assert_close(found, expected, rtol=1e-4, atol=1e-4)


@on_tensorflow
@pytest.mark.parametrize("cell_class", [keras.layers.SimpleRNNCell, *VARIANTS])
def test_dropout_equals_that_of_keras(cell_class):
    fast, slow = build_pair(cell_class, {"dropout": 0.5, "recurrent_dropout": 0.5})
    assert fast._is_covered(SEQUENCES)
    for layer in (fast, slow):
        set_dropout_masks(layer.cell, SEQUENCES, UNITS)
    found, expected, plain = (
        recurrent_gradient(layer, SEQUENCES, initial_states(slow), RIGHT, training)
        for layer, training in ((fast, True), (slow, True), (slow, False))
    )
    assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert abs(expected - plain).max() > 1e-2


@on_tensorflow
@pytest.mark.parametrize("cell_class", CELLS)
@pytest.mark.parametrize(
    "options",
    [
        {"return_sequences": False},
        {"zero_output_for_mask": True},
        {"return_sequences": False, "go_backwards": True},
    ],
    ids=str,
)
def test_options_of_keras_give_equal_outputs(cell_class, options):
    fast, slow = build_pair(cell_class, **options)
    for mask in (None, RIGHT, MIXED):
        mask = None if mask is None else ops.convert_to_tensor(mask)
        assert_close(fast(SEQUENCES, mask=mask), slow(SEQUENCES, mask=mask))


@pytest.mark.parametrize(
    ("cell_class", "cell_options", "options"),
    [
        (keras.layers.LSTMCell, {}, {"unroll": True}),
        (keras.layers.LSTMCell, {"activation": "relu"}, {}),
        (keras.layers.GRUCell, {"reset_after": False}, {}),
        (keras.layers.GRUCell, {"recurrent_dropout": 0.3}, {}),
    ],
    ids=str,
)
def test_keras_runs_the_cases_without_a_fast_loop(cell_class, cell_options, options):
    fast, slow = build_pair(cell_class, cell_options, **options)
    assert not fast._is_covered(SEQUENCES)
    assert_close(run(fast, RIGHT), run(slow, RIGHT))


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("cell_class", [keras.layers.LSTMCell, PeepholeLSTMCell])
def test_outputs_before_the_first_real_step_are_the_initial_state(cell_class, unroll):
    layer = RNN(cell_class(UNITS), return_sequences=True, unroll=unroll)
    states, mask = initial_states(layer), ops.convert_to_tensor(MIXED)
    outputs = array(layer(SEQUENCES, mask=mask, initial_state=states))
    is_before = np.cumsum(MIXED, axis=1) == 0
    first = np.broadcast_to(states[0][:, None], outputs.shape)
    assert_close(outputs[is_before], first[is_before])


@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="Keras uses the first cell's state on JAX"
)
def test_stacked_cells_return_the_first_state_of_the_last_cell():
    cells = [keras.layers.GRUCell(3), PeepholeLSTMCell(UNITS)]
    layer = RNN(cells)
    states = [random_array(B, 3), [random_array(B, UNITS, seed=i) for i in (1, 2)]]
    dead = ops.zeros((B, T), "bool")
    assert_close(layer(SEQUENCES, mask=dead, initial_state=states), states[1][0])


def test_keras_runs_small_cells_and_cells_that_cannot_be_split(monkeypatch):
    stacked = keras.layers.StackedRNNCells(
        [keras.layers.GRUCell(UNITS), PeepholeLSTMCell(UNITS)]
    )
    layer = RNN(stacked)
    layer.build((None, None, D))
    assert not layer._is_covered(SEQUENCES)
    assert layer(SEQUENCES).shape == (B, UNITS)
    monkeypatch.setattr(backends, "SMALLEST_UNITS", UNITS + 1)
    assert not build_pair(PeepholeLSTMCell)[0]._is_covered(SEQUENCES)


@on_tensorflow
def test_keras_runs_eager_calls(monkeypatch):
    monkeypatch.undo()
    layer = RNN(keras.layers.GRUCell(32))
    layer.build((None, None, D))
    found = []
    compiled(lambda: found.append(layer._is_covered(SEQUENCES)) or ops.zeros(()))()
    assert found == [True]
    assert not layer._is_covered(SEQUENCES)


@on_tensorflow
def test_integer_inputs_give_the_outputs_of_keras():
    fast, slow = build_pair(PeepholeLSTMCell)
    integers = np.arange(B * T * D).reshape(B, T, D) % 3
    assert_close(fast(integers), slow(integers))


@pytest.mark.parametrize("cell_class", CELLS)
def test_layer_checks_pass_for_every_cell(cell_class):
    init_args = {
        "cell": lambda: cell_class(UNITS),
        "return_sequences": True,
        "return_state": True,
    }
    check_layer_runs(RNN, init_args, {"sequences": SEQUENCES, "mask": MIXED})
    layer, _ = build_pair(cell_class)

    def apply(sequences, mask):
        outputs, *states = layer(sequences, mask=ops.convert_to_tensor(mask))
        return [outputs], states

    check_padding_changes_nothing(apply, SEQUENCES, RIGHT)


@on_tensorflow
@pytest.mark.parametrize("go_backwards", [False, True])
def test_unknown_length_does_not_change_the_outputs(go_backwards):
    layer, _ = build_pair(LayerNormGRUCell, go_backwards=go_backwards)
    run_model = compiled(functional_model(layer, {"sequences": SEQUENCES}))
    for length in (1, 2, 5):
        cut = SEQUENCES[:, :length]
        assert_close(run_model(cut), layer(cut))


@on_tensorflow
@pytest.mark.parametrize("cell_class", CELLS)
def test_zoneout_is_equal_in_both_loops(cell_class, monkeypatch):
    layers = []
    for units in (1, UNITS + 1):  # the smallest number that is compiled
        layer = Zoneout(
            cell_class(UNITS), 0.3, return_sequences=True, return_state=True
        )
        layer.build((None, None, D))
        randomize(layer)
        drawn = random_array(B, T, sum(layer._sizes), seed=2) > 0.5
        layer._draw = lambda _, drawn=drawn: ops.convert_to_tensor(drawn, "float32")
        monkeypatch.setattr(backends, "SMALLEST_UNITS", units)
        assert layer._is_covered(SEQUENCES) == (units == 1)
        states = initial_states(layer)
        layers.append(
            [
                *run(layer, MIXED, states),
                recurrent_gradient(layer, SEQUENCES, states, MIXED, True),
            ]
        )
    assert_close(*layers, rtol=1e-4, atol=1e-4)


@on_tensorflow
@pytest.mark.parametrize("cell_class", CELLS)
def test_every_weight_trains_in_half_precision(cell_class):
    cell = cell_class(UNITS, dtype="mixed_float16")
    encoder = RecurrentEncoder(cell, num_layers=2, dtype="mixed_float16")
    assert isinstance(encoder.recurrent_layers[0], RNN)
    model = keras.Sequential([keras.Input((None, D)), encoder])
    model.compile("sgd", "mse")
    before = [array(w).copy() for w in model.trainable_weights]
    model.fit(SEQUENCES, np.ones((B, T, UNITS)), verbose=0)
    assert all(
        (array(w) != old).any()
        for w, old in zip(model.trainable_weights, before, strict=True)
    )
