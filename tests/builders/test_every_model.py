"""Properties of the models of every builder."""

import functools
import warnings

import keras
import numpy as np
import pytest
from keras import tree

import kseq
from kseq.builders.generate_loop import GenerateLoop
from kseq.builders.generation import GenerativeModel
from tests.builders.small_models import MODELS, SOURCE, transformer_translator
from tests.helpers import (
    array,
    assert_close,
    check_every_sublayer_is_called,
    check_initial_weights_differ,
    randomize,
    recorded_calls,
)


@pytest.fixture(params=MODELS, scope="module")
def model(request):
    make, _ = MODELS[request.param]
    return make()


def test_initial_weights_differ(model):
    check_initial_weights_differ(model)


def trainable_flags(model):
    """Return for each weight of a model whether it is trainable."""
    ids = {id(weight) for weight in model.trainable_weights}
    return [id(weight) in ids for weight in model.weights]


def test_frozen_layers_stay_frozen_after_loading(model, tmp_path):
    layers = [layer for layer in model.layers if layer.trainable_weights]
    for layer in (layers[0], layers[-1], model):
        layer.trainable = False
        expected = trainable_flags(model)
        assert not all(expected)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert trainable_flags(loaded) == expected
        layer.trainable = True


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_built_and_used(name):
    make, inputs = MODELS[name]
    model = make()
    unbuilt = [layer.name for layer in model._flatten_layers() if not layer.built]
    assert not unbuilt, f"{unbuilt} are not built"

    model.compile(
        keras.optimizers.SGD(10.0),
        loss=lambda _, logits: keras.ops.mean(keras.ops.sin(5 * logits), axis=-1),
        run_eagerly=True,
    )
    rows = len(tree.flatten(inputs)[0])
    before = [array(weight) for weight in model.trainable_weights]
    with recorded_calls() as called:
        model(inputs, training=False)
        model.train_on_batch(inputs, np.zeros((rows, 1), "float32"))
        if hasattr(model, "tokenizer"):
            model.tokenizer(np.zeros((1, *model.tokenizer.input.shape[1:])))
    check_every_sublayer_is_called(model, called)
    for weight, old in zip(model.trainable_weights, before, strict=True):
        is_cancelled = weight.path.endswith("key/bias")  # in the softmax
        is_changed = (array(weight) != old).any()
        assert is_cancelled or is_changed, f"no gradient reaches {weight.path}"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow traces")
@pytest.mark.thorough(all_but=3)
@pytest.mark.parametrize("name", MODELS)
def test_the_first_training_step_is_traced_once(name):
    make, inputs = MODELS[name]
    model, traced = make(), []
    step = model.train_step
    model.train_step = lambda data: traced.append(1) or step(data)
    model.compile("adam", loss=lambda _, logits: keras.ops.mean(logits, axis=-1))
    rows = len(tree.flatten(inputs)[0])
    model.train_on_batch(inputs, np.zeros((rows, 1), "float32"))
    assert len(traced) == 1


@pytest.mark.parametrize("name", MODELS)
def test_predictions_do_not_depend_on_the_shapes_of_earlier_batches(name):
    """After a second shape, TensorFlow traces a function of unknown lengths."""
    make, inputs = MODELS[name]
    model = make()
    first_row = tree.map_structure(lambda x: x[:1], inputs)
    expected = tree.map_structure(array, model(first_row))
    model.predict(inputs, verbose=0)
    found = model.predict(first_row, verbose=0)
    tree.map_structure(assert_close, found, expected)


@pytest.mark.parametrize("decoder", ["rnn", "gru", "lstm", "mingru"])
def test_a_recurrent_language_model_trains_on_sequences_of_many_lengths(decoder):
    model = kseq.one_to_many(9, decoder=decoder, width=4)
    model.compile("adam", kseq.training.SequenceCrossentropy())
    rows = [[2, 4, 5, 3], [2, 4, 5, 6, 7, 8, 4, 5, 3]] * 2
    batches = kseq.training.teacher_forcing(None, rows, batch_size=2)
    losses = model.fit(batches, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX builds so")
def test_a_new_model_generates_without_an_eager_run_first(monkeypatch):
    call, calls = GenerateLoop.call, []

    @functools.wraps(call)
    def counted(*args, **kwargs):
        calls.append(args)
        return call(*args, **kwargs)

    monkeypatch.setattr(GenerateLoop, "call", counted)
    transformer_translator().generate(SOURCE, max_length=3)
    assert len(calls) == 1, "it ran once to be built and once to be compiled"


def own_matrices(layer):
    """Return the matrices of a layer that belong to none of its sublayers."""
    sublayers = layer._flatten_layers(include_self=False)
    of_sublayers = {id(weight) for sublayer in sublayers for weight in sublayer.weights}
    own = [weight for weight in layer.weights if id(weight) not in of_sublayers]
    return [weight for weight in own if len(weight.shape) > 1]


def outputs_of(model, inputs, generates=True):
    """Return the logits and, for a generative model, scores and generated tokens."""
    outputs = [array(model(inputs, training=False))]
    if isinstance(model, GenerativeModel) and generates:
        source = inputs.get("source", len(inputs["target"]))
        is_image = hasattr(model, "num_tokens")  # a fixed length and no end token
        length, target = (model.num_tokens, [5, 6]) if is_image else (3, [5, 3])
        result = model.generate(source, max_length=length)
        outputs += [model.score(source, [target] * len(inputs["target"]))]
        outputs += [result.log_probs, result.token_ids]
    return outputs


@pytest.mark.thorough
@pytest.mark.parametrize("name", MODELS)
def test_a_quantized_model_works_and_survives_saving(name, tmp_path):
    make, inputs = MODELS[name]
    model = make()
    randomize(model)
    logits, *scores = outputs_of(model, inputs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.quantize("int8")
    text = " ".join(str(warning.message) for warning in caught)
    for layer in model._flatten_layers():
        for weight in own_matrices(layer):
            is_int8 = weight.dtype == "int8"
            assert is_int8 or f"Layer {type(layer).__name__} does" in text, weight.path

    quantized = outputs_of(model, inputs)
    error = np.abs(quantized[0] - logits).max() / logits.std()
    assert 0 < error < 0.1
    assert not scores or (quantized[1] != scores[0]).all()
    assert not scores or np.abs(quantized[1] - scores[0]).max() < 0.1
    for outputs in (quantized, quantized[:1]):  # then save the loaded model
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
        assert_close(outputs_of(model, inputs, outputs is quantized), outputs)
