"""Copies of models: clones, configs and files are what they were made from."""

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
    embedding,
    reader,
    tagger,
    writer,
)
from tests.helpers import array, assert_close, randomize

ALL = {**small_models.MODELS, **TIED, **SHARING}


def check_copy(copy, model, inputs):
    """A copy has the class and the weights of the model, and does the same."""
    assert type(copy) is type(model)
    assert len(copy.weights) == len(model.weights)
    assert not {id(w) for w in copy.weights} & {id(w) for w in model.weights}
    copy.set_weights(model.get_weights())
    assert_close(array(copy(inputs)), array(model(inputs)))


def check_writes_the_same(copy, model, source):
    length = getattr(model, "num_tokens", 3)  # that of a picture is fixed
    result = model.generate(source, max_length=length)
    assert_close(copy.generate(source, max_length=length).log_probs, result.log_probs)
    assert_close(copy.score(source, result), result.log_probs, atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_a_clone_is_what_it_was_cloned_from(name):
    make, inputs = ALL[name]
    model = make()
    randomize(model)
    check_copy(keras.models.clone_model(model), model, inputs)


@pytest.mark.parametrize("name", ALL)
def test_a_config_makes_the_same_model(name):
    make, inputs = ALL[name]
    model = make()
    randomize(model)
    check_copy(type(model).from_config(model.get_config()), model, inputs)


@pytest.mark.thorough(all_but=2)
@pytest.mark.parametrize("name", ALL)
def test_a_clone_is_saved_as_the_model_is(name, tmp_path):
    make, inputs = ALL[name]
    model = keras.models.clone_model(make())
    for _ in range(2):  # the second time over the first file
        randomize(model)
        expected = array(model(inputs))
        model.save(tmp_path / "model.keras")
        model = keras.saving.load_model(tmp_path / "model.keras")
        assert_close(array(model(inputs)), expected)
    assert len(model.weights) == len(make().weights)


WRITERS = ["encoder_decoder, all tied", "one_to_many", "ensemble of writers"]


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("name", WRITERS)
def test_a_clone_writes(name):
    make, inputs = ALL[name]
    model = make()
    randomize(model)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    check_writes_the_same(clone, model, inputs.get("source", 2))


def test_a_clone_takes_the_layers_that_it_is_given():
    model = writer(tie_embeddings="target")
    clone = keras.models.clone_model(model, clone_function=lambda layer: layer)
    assert {id(w) for w in clone.weights} == {id(w) for w in model.weights}
    check_writes_the_same(clone, model, IDS)


def test_a_compiled_model_has_a_compiled_clone():
    model = writer(tie_embeddings="target")
    model.compile("sgd", kseq.training.SequenceCrossentropy(label_smoothing=0.1))
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    losses = [m.evaluate(PAIR, TARGET, verbose=0) for m in (model, clone)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("make", [writer, lambda: kseq.ensemble([writer()])])
def test_a_clone_with_other_operations_is_refused(make):
    def twice(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        return 2 * outputs if layer.name in ("head", "members") else outputs

    with pytest.raises(
        ValueError, match="must have the same graph.*Received: .*multiply"
    ):
        keras.models.clone_model(make(), call_function=twice)


@pytest.mark.parametrize("name", SHARING)
def test_a_shared_layer_stays_shared_in_a_file(name, tmp_path):
    make, inputs = SHARING[name]
    model = make()
    randomize(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    check_copy(loaded, model, inputs)
    for one, other in zip(model.weights, loaded.weights, strict=True):
        assert (array(one) == array(other)).all()


def nested():
    words = embedding()
    return [kseq.ensemble([reader(words)]), reader(words)]


def tied_to_another():
    words = embedding()
    return [
        tagger(words, VOCABULARY),
        tagger(VOCABULARY, VOCABULARY, head=TiedHead(words)),
    ]


@pytest.mark.parametrize("make", [nested, tied_to_another])
def test_a_shared_part_of_a_layer_is_refused(make):
    with pytest.raises(
        ValueError, match="part of a layer. Received: .*token_embedding"
    ):
        kseq.ensemble(make())
