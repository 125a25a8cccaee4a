"""Ensembles: mean probabilities in training, generation and saved files."""

import functools

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch, RelativeLength, Sampling
from kseq.layers import RecurrentDecoder, TokenEmbedding
from tests.helpers import array, assert_close, randomize

SOURCE_SIZE, TARGET_SIZE, LENGTH = 11, 7, 5
SOURCES = [[4, 5, 6, 7, 3], [8], [9, 10, 4], [5, 5]]
IDS = np.array([[4, 5, 6, 7, 3], [8, 0, 0, 0, 0]])


def softmax(x):
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def make_translators():
    sizes = {"source": SOURCE_SIZE, "target": TARGET_SIZE, "width": 8}
    components = [
        {"decoder": RecurrentDecoder("lstm", 5, attention="luong")},
        {"encoder": "transformer", "decoder": "transformer"},
        {"encoder": "lstm"},
    ]
    models = [kseq.encoder_decoder(**{**sizes, **each}) for each in components]
    for seed, model in enumerate(models):
        randomize(model, seed)
    return models


@pytest.fixture(scope="module")
def models():
    return make_translators()


def inputs():
    target = np.array([[2, 4, 5, 6], [2, 6, 0, 0]])
    return {"source": IDS, "target": target}


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("build", [kseq.many_to_one, kseq.many_to_many])
def test_classifiers_and_taggers_return_the_mean_of_probabilities(build, tmp_path):
    models = [build(SOURCE_SIZE, 3, encoder=e, width=8) for e in ("gru", "transformer")]
    for model in models:
        randomize(model)
    both = kseq.ensemble(models)
    expected = sum(softmax(model.predict(IDS, verbose=0)) for model in models) / 2
    real = IDS != 0 if build is kseq.many_to_many else slice(None)
    assert_close(np.exp(both.predict(IDS, verbose=0))[real], expected[real])
    both.save(tmp_path / "both.keras")
    loaded = keras.saving.load_model(tmp_path / "both.keras")
    assert_close(np.exp(loaded.predict(IDS, verbose=0))[real], expected[real])


def test_metrics_of_a_tagger_ignore_padding():
    models = [kseq.many_to_many(SOURCE_SIZE, 3, width=8) for _ in range(2)]
    both = kseq.ensemble(models)
    both.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    labels = np.argmax(both.predict(IDS, verbose=0), axis=-1)
    labels[1, 1:] = (labels[1, 1:] + 1) % 3  # wrong at the padding
    assert both.evaluate(IDS, labels, verbose=0, return_dict=True)["accuracy"] == 1


def test_encoder_decoders_return_the_mean_of_probabilities(models):
    all_of_them = kseq.ensemble(models)
    expected = sum(softmax(array(model(inputs()))) for model in models) / 3
    real = inputs()["target"] != 0
    assert_close(np.exp(array(all_of_them(inputs())))[real], expected[real])
    assert all_of_them.output_shape == (None, None, TARGET_SIZE)


@pytest.mark.parametrize(
    "search",
    [
        None,
        BeamSearch(3, length_penalty=0.6),
        BeamSearch(2, coverage_penalty=0.2),
        Sampling(0.9, num_draws=2, seed=4),
    ],
    ids=str,
)
def test_score_returns_the_log_probs_of_generate(models, search):
    both = kseq.ensemble(models[:2])
    result = both.generate(SOURCES, search, LENGTH)
    assert_close(both.score(SOURCES, result), result.log_probs, atol=1e-4)
    for row, source in enumerate(SOURCES if search is None else []):
        alone = both.generate([source], search, LENGTH)
        assert_close(alone.log_probs[0], result.log_probs[row], atol=1e-4)


def test_beam_search_with_enough_beams_equals_brute_force(models):
    both = kseq.ensemble(models[:2])
    result = both.generate(SOURCES[:1], BeamSearch(7**2, num_results=1), max_length=2)
    targets = [[a, b] for a in range(1, 7) if a != 3 for b in range(1, 7)]
    targets += [[3]]
    scores = both.score(SOURCES[:1] * len(targets), targets)
    best = targets[int(np.argmax(scores))]
    found = result.token_ids[0, 0, : result.lengths[0, 0]].tolist()
    assert found == best
    assert_close(result.log_probs[0, 0], scores.max(), atol=1e-4)


def test_an_ensemble_of_one_generates_what_its_model_generates(models):
    search = BeamSearch(3)
    alone = kseq.ensemble(models[:1]).generate(SOURCES, search, LENGTH)
    expected = models[0].generate(SOURCES, search, LENGTH)
    assert (alone.token_ids == expected.token_ids).all()
    assert_close(alone.log_probs, expected.log_probs, atol=1e-4)


def test_attention_is_the_mean_over_members_layers_and_heads(models):
    both = kseq.ensemble(models[:2])
    result = both.generate(SOURCES, max_length=LENGTH, return_attention_scores=True)
    assert result.attention.shape[:2] == (len(SOURCES), 1)
    is_token = result.token_ids != 0
    assert_close(result.attention.sum(axis=-1)[is_token], 1.0)
    assert (result.attention[1, ..., 1:] == 0).all()  # padding of [8]


def test_an_ensemble_is_saved_as_one_file_and_streams(models, tmp_path):
    both = kseq.ensemble(models[:2])
    both.save(tmp_path / "both.keras")
    loaded = keras.saving.load_model(tmp_path / "both.keras")
    limit = RelativeLength(1, 2)
    expected = both.generate(SOURCES, max_length=limit)
    found = loaded.generate(SOURCES, max_length=limit)
    assert (found.token_ids == expected.token_ids).all()
    assert_close(found.log_probs, expected.log_probs, atol=1e-4)
    tokens = np.stack(list(loaded.generate_stream(SOURCES, max_length=limit)), axis=1)
    assert (tokens == expected.token_ids[:, 0, : tokens.shape[1]]).all()


def test_language_models_generate_together():
    models = [kseq.one_to_many(TARGET_SIZE, decoder=d) for d in ("lstm", "transformer")]
    both = kseq.ensemble(models)
    result = both.generate(3, BeamSearch(2), LENGTH)
    assert result.token_ids.shape == (3, 2, LENGTH)
    assert_close(both.score(3, result), result.log_probs, atol=1e-4)


def test_learned_positions_of_any_member_limit_the_length():
    table = TokenEmbedding(TARGET_SIZE, 8, positions="learned", max_length=3)
    short = kseq.encoder_decoder(SOURCE_SIZE, table, width=8)
    both = kseq.ensemble([make_translators()[0], short])
    assert both.target_length == 3
    with pytest.raises(ValueError, match="learned positions"):
        both.generate(SOURCES, max_length=4)


@pytest.mark.thorough
@pytest.mark.parametrize("penalty", [0.1, 0.0])
def test_members_learn_what_they_learn_alone(penalty):
    def make_member(seed, encoder):
        keras.utils.set_random_seed(seed)
        decoder = RecurrentDecoder("rnn", 8)
        model = kseq.encoder_decoder(SOURCE_SIZE, TARGET_SIZE, encoder, decoder, 8)
        model.head.kernel_regularizer = keras.regularizers.L2(penalty)
        return model

    def train(model):
        loss = kseq.training.SequenceCrossentropy(label_smoothing=0.1)
        accuracy = kseq.training.TokenAccuracy(name="accuracy")
        model.compile(keras.optimizers.SGD(0.5, momentum=0.9), loss, metrics=[accuracy])
        labels = np.array([[4, 5, 6, 3], [6, 3, 0, 0]])
        history = model.fit(inputs(), labels, epochs=3, shuffle=False, verbose=0)
        return model, history.history

    kinds = list(enumerate(["rnn", "gru"]))
    alone, losses = zip(
        *[train(make_member(*kind)) for kind in kinds],
        strict=True,
    )
    both, history = train(kseq.ensemble([make_member(*kind) for kind in kinds]))
    for model, expected in zip(both.models, alone, strict=True):
        assert_close(model.get_weights(), expected.get_weights())
    means = np.mean([each["loss"] for each in losses], axis=0)
    assert_close(np.array(history["loss"]), means)
    assert "accuracy" in history


def classifier(**options):
    model = kseq.many_to_one(SOURCE_SIZE, 3, width=8, **options)
    randomize(model)
    return model


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("is_trained", [False, True])
def test_metrics_of_compiled_members_do_not_affect_the_ensemble(is_trained):
    def compile_model(model):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, metrics=["accuracy"])
        return model

    labels = np.array([2, 0])
    members = [compile_model(classifier()) for _ in range(2)]
    for member in members if is_trained else ():
        member.fit(IDS, labels, verbose=0)
    both = compile_model(kseq.ensemble(members))
    found = both.evaluate(IDS, labels, verbose=0, return_dict=True)
    log_probs = both.predict(IDS, verbose=0)
    assert found["loss"] == pytest.approx(-log_probs[[0, 1], labels].mean(), rel=1e-4)
    assert found["accuracy"] == np.mean(log_probs.argmax(axis=-1) == labels)
    history = both.fit(IDS, labels, verbose=0).history
    assert sorted(history) == ["accuracy", "loss"] and history["loss"][0] > 0


@pytest.mark.thorough
def test_members_of_nested_ensembles_learn_what_they_learn_alone():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    nested = kseq.ensemble([kseq.ensemble([classifier(), classifier()]), classifier()])
    alone = classifier()
    for model in (nested, alone):
        model.compile("sgd", loss, metrics=["accuracy"])
        model.fit(IDS, np.array([2, 0]), verbose=0)
    first, second = nested.models
    for model in (*first.models, second):
        assert_close(model.get_weights(), alone.get_weights())


def test_sequential_models_return_the_mean_of_probabilities():
    models = [
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]) for _ in range(2)
    ]
    x = np.ones((2, 4), "float32")
    expected = sum(softmax(model.predict(x, verbose=0)) for model in models) / 2
    assert_close(np.exp(kseq.ensemble(models).predict(x, verbose=0)), expected)


def two_outputs():
    x = keras.Input((4,))
    return keras.Model(x, [keras.layers.Dense(3)(x), keras.layers.Dense(3)(x)])


@functools.cache
def cached_classifier(num_outputs=3):
    return kseq.many_to_one(SOURCE_SIZE, num_outputs, width=8)


@functools.cache
def cached_translator(source=SOURCE_SIZE, end=3):
    return kseq.encoder_decoder(source, TARGET_SIZE, width=8, end_token_id=end)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [], "`models` must be one or more.* Received"),
        (lambda: cached_classifier(), "a list of models. Received"),
        (lambda: [cached_classifier(), 2], "functional models.* Received: 2"),
        (lambda: [keras.Sequential([keras.layers.Dense(3)])], "functional models"),
        (lambda: [two_outputs()], "one output.* Received.*2 outputs"),
        (
            lambda: [cached_classifier(), cached_translator()],
            "all generate or none.* Received",
        ),
        (
            lambda: [cached_classifier(), cached_classifier(num_outputs=2)],
            "the same `output`.* Received",
        ),
        (
            lambda: [cached_translator(), cached_translator(12)],
            "the same `source_size`.* Received",
        ),
        (
            lambda: [cached_translator(), cached_translator(end=4)],
            "the same `end_token_id`.* Received",
        ),
        (
            lambda: [
                kseq.vision_transformer((s, s, 1), 7, 3, width=64, num_layers=1)
                for s in (14, 28)
            ],
            "the same `input`.* Received",
        ),
        (lambda: [cached_classifier(num_outputs=1)] * 2, "keras.layers.Average"),
    ],
)
def test_rejects_incompatible_models(make, message):
    with pytest.raises(ValueError, match=message):
        kseq.ensemble(make())
