"""Averages of the weights of models with one architecture."""

import keras
import numpy as np
import pytest

import kseq
from kseq.layers import ConvEncoder
from tests.builders.small_models import MODELS
from tests.helpers import array, assert_close, randomize

IDS = np.array([[4, 5, 6, 7, 3], [8, 0, 0, 0, 0]])


def classifiers(number=3, **options):
    options = {"encoder": "rnn", "width": 6, **options}
    models = [kseq.many_to_one(11, 3, **options) for _ in range(number)]
    for seed, model in enumerate(models):
        randomize(model, seed)
    return models


def translators(vocabulary, number=2):
    pipelines = []
    for seed in range(number):
        model = kseq.encoder_decoder(
            vocabulary.size, vocabulary.size, "rnn", "rnn", width=4
        )
        randomize(model, seed)
        pipelines.append(kseq.text.TextToText(model, vocabulary, vocabulary))
    return pipelines


def vocabulary_of(*texts):
    return kseq.text.Vocabulary("character").adapt(list(texts))


def mean_weights(models):
    return [
        np.mean([array(x).astype("float64") for x in weights], axis=0)
        for weights in zip(*(model.weights for model in models), strict=True)
    ]


def test_averages_weights_and_leaves_the_models_unchanged():
    models = classifiers()
    before = [model.get_weights() for model in models]
    averaged = kseq.average(models)
    assert type(averaged) is type(models[0])
    assert_close(averaged.get_weights(), mean_weights(models))
    averaged.set_weights([0 * weight for weight in averaged.get_weights()])
    for model, weights in zip(models, before, strict=True):
        assert_close(model.get_weights(), weights, rtol=0, atol=0)


def test_the_average_of_one_model_is_a_copy():
    [model] = classifiers(1)
    averaged = kseq.average([model])
    assert averaged is not model
    assert_close(averaged.predict(IDS, verbose=0), model.predict(IDS, verbose=0))


@pytest.mark.parametrize("name", MODELS)
def test_models_of_every_builder_can_be_averaged(name):
    make, inputs = MODELS[name]
    models = [make(), make()]
    for seed, model in enumerate(models):
        randomize(model, seed)
    averaged = kseq.average(models)
    assert_close(averaged.get_weights(), mean_weights(models))
    assert np.isfinite(array(averaged(inputs))).all()


def test_files_and_models_give_the_same_average(tmp_path):
    models = classifiers()
    models[0].compile("adam", "mse")  # the average is not compiled
    paths = [tmp_path / f"{i}.keras" for i in range(3)]
    for model, path in zip(models, paths, strict=True):
        model.save(path)
    for given in (paths, [str(paths[0]), *models[1:]], [models[0], *paths[1:]]):
        averaged = kseq.average(given)
        assert_close(averaged.get_weights(), mean_weights(models))
        assert not averaged.compiled


def test_averaged_pipelines_keep_their_vocabulary(tmp_path):
    vocabulary = vocabulary_of("hello")
    pipelines = translators(vocabulary)
    pipelines[0].save(tmp_path / "0.keras")
    averaged = kseq.average([tmp_path / "0.keras", pipelines[1]])
    assert_close(averaged.model.get_weights(), mean_weights(p.model for p in pipelines))
    assert averaged.source_vocabulary.tokens == vocabulary.tokens
    assert len(averaged.generate(["hell"], max_length=3)) == 1


def test_non_trainable_weights_are_averaged():
    models = [
        keras.Sequential(
            [
                keras.Input((2,)),
                keras.layers.Dense(3),
                keras.layers.BatchNormalization(),
            ]
        )
        for _ in range(2)
    ]
    for seed, model in enumerate(models):
        randomize(model, seed)
    averaged = kseq.average(models)
    assert len(averaged.non_trainable_weights) == 2
    assert_close(averaged.get_weights(), mean_weights(models))


def test_half_precision_weights_are_averaged_in_double_precision():
    encoders = []
    for seed in range(2):
        inputs = keras.Input((None, 5))
        outputs = ConvEncoder(4, 1, dtype="bfloat16")(inputs)
        encoders.append(keras.Model(inputs, outputs))
        randomize(encoders[-1], seed)
    averaged = kseq.average(encoders)
    for weight, mean in zip(averaged.weights, mean_weights(encoders), strict=True):
        assert keras.backend.standardize_dtype(weight.dtype) == "bfloat16"
        assert_close(array(weight).astype("float64"), mean, rtol=0.005, atol=0)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"width": 8}, "models.1., which has 8 for .*where the first has 6"),
        ({"encoder": "gru"}, "has 'gru' for .*/cell, where the first has 'rnn'"),
        ({"pooling": "max"}, "All models must have the architecture"),
        ({"dropout": 0.5}, "has 0.5 for .*/rate, where the first has 0.0"),
    ],
)
def test_rejects_models_of_different_architectures(change, message):
    with pytest.raises(ValueError, match=message):
        kseq.average([*classifiers(1), *classifiers(1, **change)])


def test_rejects_models_of_different_classes():
    tagger = kseq.many_to_many(11, 3, encoder="rnn", width=6)
    with pytest.raises(ValueError, match="has ManyToMany for class, where the first"):
        kseq.average([*classifiers(1), tagger])


def test_rejects_pipelines_with_different_vocabularies():
    pipelines = [translators(vocabulary_of(text), 1)[0] for text in ("hello", "jello")]
    with pytest.raises(ValueError, match="for vocabulary/0, where the first has"):
        kseq.average(pipelines)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_rejects_quantized_models_with_different_integers():
    models = classifiers(2)
    for model in models:
        model.quantize("int8")
    with pytest.raises(ValueError, match="cannot be averaged.*models.1. with other"):
        kseq.average(models)


@pytest.mark.parametrize("models", [[], None, "model.keras"])
def test_rejects_a_value_that_is_not_a_list_of_models(models):
    with pytest.raises(ValueError, match="must be a list of one or more models"):
        kseq.average(models)


@pytest.mark.parametrize("model", [3, keras.Sequential([keras.layers.Dense(2)])])
def test_rejects_a_value_that_is_not_a_built_model(model):
    with pytest.raises(ValueError, match="must hold built models.*Received: "):
        kseq.average([model])
    with pytest.raises(ValueError, match="must hold built models.*Received: "):
        kseq.average([*classifiers(1), model])


def test_error_names_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "a.keras").write_bytes(b"no model")
    for path in (tmp_path / "a.keras", str(tmp_path / "nowhere.keras")):
        with pytest.raises(ValueError, match=".keras', which cannot be read"):
            kseq.average([*classifiers(1), path])
