"""Kernels of PyTorch, compared with the loops and formulas that they replace."""

import contextlib

import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import GRU, LSTM, RNN, Bidirectional, SimpleRNN, torch_kernels
from kseq.layers.recurrent.layers import FastLoop
from tests.helpers import (
    array,
    assert_close,
    length_mask,
    random_array,
    randomize,
    recurrent_gradient,
)

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="these are kernels of torch"
)

B, T, D, UNITS = 5, 7, 3, 11
LENGTHS = length_mask(7, 2, 5, 1, 4, size=T)
RANDOM = np.random.default_rng(8)
MASKS = {
    "none": None,
    "all real": np.ones((B, T), bool),
    "right": LENGTHS,
    "right, no row to the end": LENGTHS & (np.arange(T) < 5),
    "left": LENGTHS[:, ::-1],
    "gaps": RANDOM.random((B, T)) < 0.5,
    "some rows empty": LENGTHS & np.array([1, 0, 1, 1, 0], bool)[:, None],
    "all rows empty": np.zeros((B, T), bool),
}
LAYERS = {
    "lstm": lambda **options: LSTM(UNITS, **options),
    "gru": lambda **options: GRU(UNITS, **options),
    "rnn": lambda **options: SimpleRNN(UNITS, **options),
    "cell": lambda **options: RNN(keras.layers.LSTMCell(UNITS), **options),
}


@contextlib.contextmanager
def without_kernels(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(FastLoop, "_has_kernel", lambda self: False)
        yield


def built(make, **options):
    layer = make(return_sequences=True, return_state=True, **options)
    layer.build((None, None, D))
    randomize(layer)
    return layer


def states_of(layer):
    return [random_array(B, UNITS, seed=9 + i) for i in range(len(layer.state_size))]


def run(layer, mask, states=None):
    mask = None if mask is None else ops.convert_to_tensor(mask)
    return layer(random_array(B, T, D), mask=mask, initial_state=states)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_outputs_states_and_gradients_equal_the_loop(
    make, go_backwards, mask, monkeypatch
):
    layer = built(make, go_backwards=go_backwards)
    assert layer._has_kernel()
    states, sequences = states_of(layer), random_array(B, T, D)
    found = run(layer, mask, states), run(layer, mask)
    slopes = recurrent_gradient(layer, sequences, states, mask, True)
    with without_kernels(monkeypatch):
        assert_close(found, (run(layer, mask, states), run(layer, mask)))
        expected = recurrent_gradient(layer, sequences, states, mask, True)
    assert_close(slopes, expected, atol=2e-5)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("mask", ["none", "right", "gaps"])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_other_precisions_are_as_accurate_as_the_loop(make, mask, dtype):
    exact, layer = built(make), built(make, dtype=dtype)
    layer.set_weights(exact.get_weights())
    expected = run(exact, MASKS[mask], states_of(exact))
    found = run(layer, MASKS[mask], states_of(exact))
    atol = {"mixed_float16": 5e-3, "mixed_bfloat16": 4e-2, "float64": 1e-5}[dtype]
    for tensor in found:
        assert keras.backend.standardize_dtype(tensor.dtype) == layer.compute_dtype
    found = [ops.cast(tensor, "float32") for tensor in found]
    assert_close(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 9, 2, 3), (4, 1, 5, 2)])
def test_sizes_of_one_equal_the_loop(name, shape, monkeypatch):
    batch, steps, width, units = shape
    layer = {"lstm": LSTM, "gru": GRU, "rnn": SimpleRNN}[name](units, use_bias=False)
    sequences = random_array(batch, steps, width)
    found = layer(sequences)
    with without_kernels(monkeypatch):
        assert_close(found, layer(sequences))


@pytest.mark.parametrize(
    "options",
    [{"return_sequences": False}, {"zero_output_for_mask": True}, {"use_bias": False}],
    ids=str,
)
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_every_option_equals_the_loop(name, options, monkeypatch):
    for mask in MASKS.values():
        for go_backwards in (False, True):
            layer = LAYERS[name](go_backwards=go_backwards, **options)
            found = run(layer, mask)
            with without_kernels(monkeypatch):
                assert_close(found, run(layer, mask))


def test_states_are_kept_between_calls(monkeypatch):
    layer = LSTM(UNITS, stateful=True)
    layer.build((B, T, D))
    found = [array(run(layer, MASKS["right"])) for _ in range(2)]
    layer.reset_state()
    with without_kernels(monkeypatch):
        expected = [array(run(layer, MASKS["right"])) for _ in range(2)]
    assert_close(found, expected)
    assert abs(found[0] - found[1]).max() > 1e-3


def test_both_directions_equal_the_loop(monkeypatch):
    layer = Bidirectional(LSTM(UNITS, return_sequences=True, return_state=True))
    for mask in MASKS.values():
        given = None if mask is None else ops.convert_to_tensor(mask)
        found = layer(random_array(B, T, D), mask=given)
        with without_kernels(monkeypatch):
            assert_close(found, layer(random_array(B, T, D), mask=given))


def test_masked_values_affect_neither_outputs_nor_gradients():
    layer = built(LAYERS["lstm"])
    clean = random_array(B, T, D)
    for name in ("right", "gaps"):
        mask, dirty = MASKS[name], clean.copy()
        dirty[~mask] = np.nan
        states = states_of(layer)
        found, expected = (
            recurrent_gradient(layer, x, states, mask, True) for x in (dirty, clean)
        )
        assert_close(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"unroll": True},
        {"recurrent_dropout": 0.5},
        {"dropout": 0.5, "implementation": 1},
        {"activation": "relu"},
        {"recurrent_activation": "hard_sigmoid"},
        {"use_cudnn": False},
    ],
    ids=str,
)
def test_options_that_kernels_lack_use_the_loop(options):
    assert not LSTM(UNITS, **options)._has_kernel()
    assert not GRU(UNITS, **options)._has_kernel()
    assert not GRU(UNITS, reset_after=False)._has_kernel()
    assert LSTM(UNITS, dropout=0.5)._has_kernel()


def test_a_custom_cell_has_no_kernel():
    class Cell(keras.layers.LSTMCell):
        pass

    assert not RNN(Cell(UNITS))._has_kernel()
    assert not RNN([keras.layers.LSTMCell(UNITS)])._has_kernel()


def test_a_compiled_function_runs_the_kernel_outside_the_graph():
    import torch

    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def last_output(sequences, state, *weights):
        outputs, _ = torch_kernels.run("gru", sequences + 1, [state], weights)
        return outputs[:, -1] + 1

    sizes = (2, 40, 3), (2, 5), (3, 15), (5, 15), (15,), (15,)
    tensors = [ops.convert_to_tensor(random_array(*size)) for size in sizes]
    found = torch.compile(last_output, backend=backend)(*tensors)
    assert_close(found, last_output(*tensors))
    nodes = [str(node.target) for graph in graphs for node in graph.graph.nodes]
    assert nodes and not any("gru" in name for name in nodes)


def test_an_exported_graph_has_no_kernel():
    with torch_kernels.backends.portable():
        assert not torch_kernels.available()
