"""The formula loop of recurrent decoders, compared with the Keras loop."""

import functools
import itertools
from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops

from kseq.layers import (
    CoverageAttention,
    LocationAwareAttention,
    LuongAttention,
    MonotonicAttention,
    RecurrentDecoder,
    backends,
)
from kseq.layers.recurrent import decoder_loop, step_loop
from tests.helpers import (
    array,
    assert_close,
    compiled,
    dtype_policy,
    length_mask,
    random_array,
    randomize,
)

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has such graphs"
)

where_loops_are_compiled = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="PyTorch compiles nothing"
)

B, T, S, D, M, UNITS = 3, 5, 7, 4, 11, 13

INPUTS, MEMORY = random_array(B, T, D), random_array(B, S, M)
STATES = [[random_array(B, 2 * UNITS, seed=5)]]
MEMORY_MASK = length_mask(4, 0, 7, size=S)
INPUTS_MASK = np.array([[0, 1, 1, 0, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)

DECODERS = {
    "bahdanau gru": {"cell": "gru", "attention": "bahdanau"},
    "bahdanau 2 lstm": {"cell": "lstm", "attention": "bahdanau", "num_layers": 2},
    "luong gru": {"cell": "gru", "attention": "luong"},
    "luong 3 rnn, not fed": {
        "cell": "rnn",
        "attention": lambda: LuongAttention("concat", 3),
        "num_layers": 3,
        "input_feeding": False,
    },
    "bahdanau in luong order": {
        "cell": "lstm",
        "attention": "bahdanau",
        "attention_order": "luong",
    },
    "2 gru": {"cell": "gru", "num_layers": 2},
    "location gru": {
        "cell": "gru",
        "attention": lambda: LocationAwareAttention(3, 2, kernel_size=5),
    },
    "coverage 2 lstm, not fed": {
        "cell": "lstm",
        "attention": lambda: CoverageAttention(3),
        "attention_order": "luong",
        "input_feeding": False,
        "num_layers": 2,
    },
    "soft monotonic lstm, fed": {
        "cell": "lstm",
        "attention": lambda: MonotonicAttention(3, "soft", score_bias=0.5),
        "attention_order": "luong",
    },
    "local gru": {
        "cell": "gru",
        "attention": lambda: LuongAttention("general", window=3),
    },
}


@pytest.fixture(autouse=True)
def compile_small_layers(monkeypatch):
    monkeypatch.setattr(backends, "SMALLEST_UNITS", 1)


class CustomAttention(LuongAttention):
    """A custom attention that cannot be saved."""

    def get_config(self):
        raise NotImplementedError


def make_decoder(name):
    options = dict(DECODERS[name])
    if callable(options.get("attention")):
        options["attention"] = options["attention"]()
    return RecurrentDecoder(units=UNITS, **options)


def build(name):
    decoder = make_decoder(name)
    decoder(INPUTS, MEMORY, initial_state=STATES)
    randomize(decoder)
    return decoder


def slopes(decoder, is_covered, masked, static):
    """Return outputs and gradients of all inputs and weights, compiled if possible.

    `static` is True if a TensorFlow graph knows the shapes.
    """
    calls = []

    def run(inputs, memory, state):
        masks = {"memory_mask": MEMORY_MASK, "inputs_mask": INPUTS_MASK}
        masks = {k: ops.convert_to_tensor(v) for k, v in masks.items()}
        outputs = decoder(
            inputs, memory, initial_state=[[state]], **(masks if masked else {})
        )
        return ops.sum(ops.sin(3 * outputs)), outputs

    choose = mock.patch.object(
        decoder_loop, "is_covered", lambda *_: calls.append(1) or is_covered
    )
    differentiate = {"jax": jax_slopes, "torch": torch_slopes}
    with choose:
        results = differentiate.get(keras.backend.backend(), graph_slopes)(
            decoder, run, static
        )
    assert calls
    return results


def jax_slopes(decoder, run, static):
    import jax

    variables = decoder.trainable_variables

    def bound(inputs, memory, state, weights):
        pairs = list(zip(variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return run(inputs, memory, state)

    weights = [variable.value for variable in variables]
    differentiate = jax.jit(jax.grad(bound, argnums=(0, 1, 2, 3), has_aux=True))
    given = INPUTS, MEMORY, STATES[0][0], weights
    (*gradients, of_weights), outputs = differentiate(*given)
    return outputs, [*gradients, *of_weights]


def torch_slopes(decoder, run, static):
    import torch

    given = (INPUTS, MEMORY, STATES[0][0])
    given = [ops.convert_to_tensor(x).clone().requires_grad_() for x in given]
    total, outputs = run(*given)
    weights = [variable.value for variable in decoder.trainable_variables]
    return outputs, torch.autograd.grad(total, [*given, *weights], allow_unused=True)


def graph_slopes(decoder, run, static):
    import tensorflow as tf

    def differentiated(inputs, memory, state):
        weights = [w.value for w in decoder.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch((inputs, memory, state))
            total, outputs = run(inputs, memory, state)
        return outputs, tape.gradient(total, [inputs, memory, state, *weights])

    shapes = [(None, None, D), (None, None, M), (None, 2 * UNITS)]
    if static:
        shapes = [INPUTS.shape, MEMORY.shape, STATES[0][0].shape]
    signature = [tf.TensorSpec(shape) for shape in shapes]
    graph = tf.function(differentiated, input_signature=signature)
    return graph(INPUTS, MEMORY, STATES[0][0])


@pytest.mark.parametrize(
    "name, masked", list(itertools.product(DECODERS, [False, True]))
)
def test_the_formula_loop_equals_the_keras_loop_in_outputs_and_gradients(name, masked):
    decoder = build(name)
    expected, expected_slopes = slopes(decoder, False, masked, static=True)
    for static in (True, False):
        outputs, gradients = slopes(decoder, True, masked, static)
        assert_close(outputs, expected)
        pairs = zip(gradients, expected_slopes, strict=True)
        for index, (gradient, wanted) in enumerate(pairs):
            assert (gradient is None) == (wanted is None), index
            assert (gradient is None) == (wanted is None), index
            if wanted is not None:
                assert_close(gradient, wanted, atol=3e-5)


@on_tensorflow
@pytest.mark.parametrize("name", ["bahdanau gru", "2 gru"])
def test_only_the_inputs_may_have_a_known_batch_size(name):
    import tensorflow as tf

    decoder = build(name)
    inputs, memory, state = INPUTS[:1], MEMORY[:1], STATES[0][0][:1]
    signature = [tf.TensorSpec(inputs.shape), tf.TensorSpec((None, S, M))]
    signature.append(tf.TensorSpec((None, 2 * UNITS)))
    run = tf.function(
        lambda inputs, memory, state: decoder(inputs, memory, initial_state=[[state]]),
        input_signature=signature,
    )
    expected = decoder(inputs, memory, initial_state=[[state]])
    assert_close(run(inputs, memory, state), expected)


@where_loops_are_compiled
def test_equal_decoders_share_a_compiled_loop_but_not_weights(
    monkeypatch,
):
    made, make = [], step_loop.Loops
    monkeypatch.setattr(
        step_loop, "Loops", lambda *args: made.append(args) or make(*args)
    )
    monkeypatch.setitem(
        DECODERS, "custom", {"cell": "gru", "attention": CustomAttention}
    )
    names = ("bahdanau gru", "bahdanau gru", "custom", "custom")
    decoders = [build(name) for name in names]
    randomize(decoders[1], seed=5)
    with backends.sharing():
        found = [
            slopes(decoder, True, masked=True, static=True) for decoder in decoders
        ]
    assert len(made) == 3  # custom ones may differ in more than their config
    for decoder, (outputs, gradients) in zip(decoders[:2], found[:2], strict=True):
        expected, expected_slopes = slopes(decoder, False, masked=True, static=True)
        assert_close(outputs, expected)
        assert_close(gradients, expected_slopes, atol=3e-5)


@where_loops_are_compiled
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_outputs_equal_those_of_the_keras_loop(dtype):
    decoder = RecurrentDecoder("gru", UNITS, attention="luong", dtype=dtype)
    decoder(INPUTS, MEMORY)
    randomize(decoder)
    run = compiled(lambda: decoder(INPUTS, MEMORY))
    assert decoder_loop.is_covered(decoder, INPUTS) is False  # eagerly
    outputs = run()
    assert outputs.dtype == dtype.removeprefix("mixed_")
    difference = ops.cast(outputs, "float32") - ops.cast(
        decoder(INPUTS, MEMORY), "float32"
    )
    assert abs(array(difference)).max() < 0.05


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "name", ["bahdanau 2 lstm", "luong gru", "location gru", "soft monotonic lstm, fed"]
)
def test_half_precision_trains(name, dtype):
    with dtype_policy(dtype):
        decoder = make_decoder(name)
        inputs, memory = keras.Input((None, D)), keras.Input((None, M))
        model = keras.Model([inputs, memory], decoder(inputs, memory))
        randomize(model)
        model.compile(keras.optimizers.SGD(0.1), "mse")
    targets = random_array(B, T, UNITS)
    history = model.fit([INPUTS, MEMORY], targets, epochs=3, verbose=0).history
    assert history["loss"][2] < history["loss"][0]


@where_loops_are_compiled
@pytest.mark.parametrize("kind", ["location gru", "coverage 2 lstm, not fed"])
@pytest.mark.parametrize("static", [True, False])
def test_the_formula_loop_returns_the_scores_of_the_keras_loop(kind, static):
    decoder = build(kind)

    def run(inputs, memory, mask):
        states = [[ops.convert_to_tensor(STATES[0][0])]]
        return decoder(inputs, memory, mask, states, return_attention_scores=True)

    expected = run(INPUTS, MEMORY, MEMORY_MASK)  # eagerly
    if keras.backend.backend() == "jax":
        graph = compiled(run)
    else:
        import tensorflow as tf

        shapes = [(B, T, D), (B, S, M), (B, S)]
        if not static:
            shapes = [(None, None, D), (None, None, M), (None, None)]
        dtypes = ["float32", "float32", "bool"]
        signature = list(map(tf.TensorSpec, shapes, dtypes))
        graph = tf.function(run, input_signature=signature)
    assert_close(list(graph(INPUTS, MEMORY, MEMORY_MASK)), list(expected))


@where_loops_are_compiled
def test_monotonic_attention_is_soft_in_a_compiled_call_in_training_only():
    decoder = RecurrentDecoder("gru", UNITS, attention=MonotonicAttention(3, noise=0.0))
    decoder(INPUTS, MEMORY)
    randomize(decoder)
    results = {}
    for training in (True, False):
        call = functools.partial(decoder, INPUTS, MEMORY, training=training)
        with backends.sharing():
            results[training] = compiled(call)()
        assert_close(results[training], call())
    assert np.abs(array(results[True] - results[False])).max() > 1e-3


@where_loops_are_compiled
def test_a_model_of_unknown_lengths_trains_with_and_without_jit_compile():
    losses = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(3)
        inputs, memory = keras.Input((None, D)), keras.Input((None, M))
        decoder = RecurrentDecoder("gru", UNITS, attention="bahdanau")
        model = keras.Model([inputs, memory], decoder(inputs, memory))
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
        history = model.fit(
            [INPUTS, MEMORY],
            random_array(B, T, UNITS),
            batch_size=2,
            epochs=2,
            shuffle=False,
            verbose=0,
        )
        losses.append(history.history["loss"])
    assert losses[0][1] < losses[0][0]
    assert_close(losses[0], losses[1])
