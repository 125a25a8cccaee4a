"""Losses and metrics that ignore id 0, for models whose labels count from 0."""

import warnings

import keras
import numpy as np
import pytest

import kseq
from kseq.builders import ManyToMany
from kseq.text import TextToLabels, Vocabulary
from kseq.training import (
    EditDistanceRate,
    ExactMatch,
    SequenceCrossentropy,
    TokenAccuracy,
)

WORDS = Vocabulary("word").adapt(["what a joy", "what a bore"])
IDS = np.array([[4, 5, 6], [4, 5, 7]])
LABELS = ["A", "B", "C"]
MEASURES = [SequenceCrossentropy, TokenAccuracy, ExactMatch, EditDistanceRate]
KERAS_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def tagger(head=None):
    return kseq.many_to_many(WORDS.size, 3, "rnn", width=4, head=head)


def classifier():
    return kseq.many_to_one(WORDS.size, 3, "rnn", width=4)


def hand_built():
    words = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(WORDS.size, 4)(words)
    return ManyToMany(words, keras.layers.Dense(3)(x))


TAGGERS = {
    "many_to_many": tagger,
    "many_to_many with a CRF": lambda: tagger("crf"),
    "ManyToMany": hand_built,
    "ensemble": lambda: kseq.ensemble([tagger(), tagger()]),
    "pipeline": lambda: TextToLabels(tagger(), WORDS, LABELS),
}
CLASSIFIERS = {
    "many_to_one": classifier,
    "ensemble": lambda: kseq.ensemble([classifier(), classifier()]),
    "pipeline": lambda: TextToLabels(classifier(), WORDS, LABELS),
}


def options(measure, name):
    """Return arguments of `compile` with a loss or a metric."""
    if isinstance(measure, keras.losses.Loss):
        return {"loss": measure}
    return {"loss": None if "CRF" in name else KERAS_LOSS, "metrics": [measure]}


def pairs(models):
    return [
        (name, measure)
        for name in models
        for measure in MEASURES
        if not ("CRF" in name and measure is SequenceCrossentropy)  # its own loss
    ]


@pytest.mark.parametrize("name, measure", pairs(TAGGERS))
def test_compile_warns_once_of_what_ignores_label_0_by_default(name, measure):
    model = TAGGERS[name]()
    with pytest.warns(UserWarning) as caught:
        model.compile("sgd", **options(measure(), name))
    [found] = [each for each in caught if each.category is UserWarning]
    assert found.filename == __file__
    message = str(found.message)
    assert f"Received: {measure.__name__}() for {model.name}" in message
    for way_out in ("`pad_token_id=-1`", "SparseCategorical", "`pad_token_id=0`"):
        assert way_out in message
    for pad_token_id in (-1, 0):
        model.compile("sgd", **options(measure(pad_token_id=pad_token_id), name))


@pytest.mark.parametrize("name, measure", pairs(CLASSIFIERS))
def test_a_model_with_one_label_per_row_is_never_measured_without_label_0(
    name, measure
):
    model = CLASSIFIERS[name]()
    with pytest.raises(ValueError), warnings.catch_warnings(action="ignore"):
        model.compile("sgd", **options(measure(), name), run_eagerly=True)
        model.fit(IDS, np.array([0, 1]), verbose=0)


def test_the_advised_losses_learn_label_0():
    for loss in (SequenceCrossentropy(pad_token_id=-1), KERAS_LOSS):
        model = tagger()
        model.compile(keras.optimizers.Adam(0.1), loss, metrics=[TokenAccuracy(-1)])
        labels = np.array([[0, 0, 1], [0, 0, 2]])
        history = model.fit(IDS, labels, epochs=20, verbose=0)
        assert history.history["token_accuracy"][-1] == 1
        assert set(model.predict(IDS, verbose=0).argmax(-1)[:, 0]) == {0}


def test_models_that_generate_take_the_defaults():
    model = kseq.encoder_decoder(WORDS.size, WORDS.size, "rnn", "rnn", width=4)
    for each in (model, kseq.ensemble([model])):
        each.compile("sgd", SequenceCrossentropy(), metrics=[TokenAccuracy()])
    reader = tagger("ctc")
    reader.compile("sgd", metrics=[EditDistanceRate(), ExactMatch()])


def test_several_measures_are_named_in_one_warning():
    metrics = [[TokenAccuracy(), ExactMatch()]]
    names = r"SequenceCrossentropy\(\), TokenAccuracy\(\), ExactMatch\(\) for"
    with pytest.warns(UserWarning, match=names):
        tagger().compile("sgd", SequenceCrossentropy(), metrics=metrics)
    with pytest.warns(UserWarning, match="TokenAccuracy"):
        tagger().compile("sgd", KERAS_LOSS, weighted_metrics=[TokenAccuracy()])


def test_a_saved_model_is_loaded_without_a_second_warning(tmp_path):
    model = tagger()
    with pytest.warns(UserWarning):
        model.compile("sgd", SequenceCrossentropy(), metrics=[TokenAccuracy()])
    model.save(tmp_path / "tagger.keras")
    loaded = keras.saving.load_model(tmp_path / "tagger.keras")
    assert loaded.compiled and loaded.loss.pad_token_id == 0


@pytest.mark.parametrize("measure", [SequenceCrossentropy, TokenAccuracy])
def test_a_pipeline_warns_of_the_label_that_any_model_ignored(measure):
    built = hand_built()
    model = keras.Model(built.input, built.output)
    model.compile("sgd", **options(measure(), ""), run_eagerly=True)
    model.fit(IDS, np.array([[0, 0, 1], [0, 0, 2]]), verbose=0)
    with pytest.warns(UserWarning, match=rf"{measure.__name__}.*label 0, 'A'"):
        TextToLabels(model, WORDS, LABELS)
    model.compile("sgd", **options(measure(pad_token_id=-1), ""))
    TextToLabels(model, WORDS, LABELS)
