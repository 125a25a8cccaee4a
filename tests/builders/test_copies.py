"""Copies of models: clones, models from configs, and saved files."""

import keras
import pytest

import kseq
from kseq.layers import TiedHead
from tests.builders import small_models
from tests.builders.sharing_models import (
    IDS,
    PAIR,
    SHARING,
    TARGET,
    TIED,
    VOCABULARY,
    classifier,
    embedding,
    tagger,
    translator,
)
from tests.helpers import array, assert_close, randomize

ALL = {**small_models.MODELS, **TIED, **SHARING}


def check_copy(copy, model, inputs):
    """Check that a copy has the class, the weights and the outputs of the model."""
    assert type(copy) is type(model)
    assert len(copy.weights) == len(model.weights)
    assert not {id(w) for w in copy.weights} & {id(w) for w in model.weights}
    copy.set_weights(model.get_weights())
    assert_close(array(copy(inputs)), array(model(inputs)))


def check_generates_the_same(copy, model, source):
    length = getattr(model, "num_tokens", 3)  # fixed for images
    result = model.generate(source, max_length=length)
    assert_close(copy.generate(source, max_length=length).log_probs, result.log_probs)
    assert_close(copy.score(source, result), result.log_probs, atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_a_clone_computes_what_the_model_computes(name):
    make, inputs = ALL[name]
    model = make()
    randomize(model)
    check_copy(keras.models.clone_model(model), model, inputs)


@pytest.mark.parametrize("name", ALL)
def test_a_config_builds_the_same_model(name):
    make, inputs = ALL[name]
    model = make()
    randomize(model)
    check_copy(type(model).from_config(model.get_config()), model, inputs)


@pytest.mark.thorough(all_but=2)
@pytest.mark.parametrize("name", ALL)
def test_a_clone_survives_saving(name, tmp_path):
    make, inputs = ALL[name]
    model = keras.models.clone_model(make())
    for _ in range(2):  # the second time, it overwrites the file
        randomize(model)
        expected = array(model(inputs))
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
        assert_close(array(model(inputs)), expected)
    assert len(model.weights) == len(make().weights)


GENERATIVE_MODELS = [
    "encoder_decoder, all tied",
    "one_to_many",
    "ensemble of translators",
]


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("name", GENERATIVE_MODELS)
def test_a_clone_generates_what_the_model_generates(name):
    make, inputs = ALL[name]
    model = make()
    randomize(model)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    check_generates_the_same(clone, model, inputs.get("source", 2))


def test_a_clone_uses_the_layers_of_the_clone_function():
    model = translator(tie_embeddings="target")
    clone = keras.models.clone_model(model, clone_function=lambda layer: layer)
    assert {id(w) for w in clone.weights} == {id(w) for w in model.weights}
    check_generates_the_same(clone, model, IDS)


def test_the_clone_of_a_compiled_model_is_compiled():
    model = translator(tie_embeddings="target")
    model.compile("sgd", kseq.training.SequenceCrossentropy(label_smoothing=0.1))
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    losses = [m.evaluate(PAIR, TARGET, verbose=0) for m in (model, clone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("make", [translator, lambda: kseq.ensemble([translator()])])
def test_rejects_a_clone_with_other_operations(make):
    def twice(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        return 2 * outputs if layer.name in ("head", "members") else outputs

    with pytest.raises(
        ValueError, match="must have the same graph.*Received: .*multiply"
    ):
        keras.models.clone_model(make(), call_function=twice)


@pytest.mark.parametrize("name", SHARING)
def test_shared_layers_stay_shared_after_loading(name, tmp_path):
    make, inputs = SHARING[name]
    model = make()
    randomize(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    check_copy(loaded, model, inputs)
    for one, other in zip(model.weights, loaded.weights, strict=True):
        assert (array(one) == array(other)).all()


def nested_shared_embedding():
    words = embedding()
    return [kseq.ensemble([classifier(words)]), classifier(words)]


def head_tied_to_another_model():
    words = embedding()
    return [
        tagger(words, VOCABULARY),
        tagger(VOCABULARY, VOCABULARY, head=TiedHead(words)),
    ]


@pytest.mark.parametrize("make", [nested_shared_embedding, head_tied_to_another_model])
def test_rejects_a_shared_sublayer(make):
    with pytest.raises(
        ValueError, match="part of a layer. Received: .*token_embedding"
    ):
        kseq.ensemble(make())
