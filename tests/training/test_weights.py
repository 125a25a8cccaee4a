"""Weights of rows, steps and classes, compared with losses computed by hand."""

import keras
import numpy as np
import pytest

import kseq
from kseq.training import SequenceCrossentropy, batches, teacher_forcing
from tests.builders.sharing_models import VOCABULARY, classifier, tagger, translator
from tests.helpers import array

WORDS = [[4, 5, 6, 7], [8, 9], [10]]
TAGS = [[2, 1, 0, 2], [1, 2], [0]]
TARGET = [[2, 5, 6, 3], [2, 4, 3], [2, 3]]
ROWS, CLASSES = [0.5, 2.0, 3.0], {0: 4.0, 2: 0.25}
STEPS = [[1.0, 2.0, 0.0, 0.5], [3.0, 1.5], [2.5]]
OPTIONS = {"batch_size": 3, "shuffle": False, "length_multiple": 1}


def weighted_sums(model, inputs, labels, weights):
    """Return the sums of weighted losses and of weights, and the number of steps."""
    costs = total = count = 0
    for row, (ids, row_weights) in enumerate(zip(labels, weights, strict=True)):
        logits = array(model(inputs))[row].astype("float64")
        for step, (label, weight) in enumerate(zip(ids, row_weights, strict=True)):
            scores = logits[step]
            costs += weight * (np.log(np.exp(scores).sum()) - scores[label])
            total, count = total + weight, count + 1
    return costs, total, count


def evaluate_loss(model, loss, data):
    model.compile("sgd", loss)
    return model.evaluate(data, verbose=0)


WEIGHTS = {
    "rows": ({"sample_weight": ROWS}, lambda row, step, label: ROWS[row]),
    "steps": ({"sample_weight": STEPS}, lambda row, step, label: STEPS[row][step]),
    "classes": ({"class_weight": CLASSES}, lambda *at: CLASSES.get(at[2], 1.0)),
    "steps and classes": (
        {"sample_weight": STEPS, "class_weight": CLASSES},
        lambda row, step, label: STEPS[row][step] * CLASSES.get(label, 1.0),
    ),
}


@pytest.mark.parametrize("given", WEIGHTS)
def test_weighted_loss_of_a_tagger_matches_hand_computation(given):
    options, weight = WEIGHTS[given]
    model = tagger()
    data = batches(WORDS, TAGS, **OPTIONS, **options)
    weights = [
        [weight(row, step, label) for step, label in enumerate(labels)]
        for row, labels in enumerate(TAGS)
    ]
    costs, total, count = weighted_sums(model, data[0][0], TAGS, weights)
    mean = SequenceCrossentropy(pad_token_id=-1)
    assert evaluate_loss(model, mean, data) == pytest.approx(costs / total, rel=1e-4)
    keras_mean = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert evaluate_loss(model, keras_mean, data) == pytest.approx(
        costs / count, rel=1e-4
    )


@pytest.mark.parametrize("given", ["rows", "tokens", "classes"])
def test_weighted_loss_of_an_encoder_decoder_matches_hand_computation(given):
    tokens = [[9.0, 2.0, 0.5, 3.0], [9.0, 0.0, 1.0], [9.0, 4.0]]
    classes = {3: 0.25, 5: 3.0}
    options, weights = {
        "rows": ({"sample_weight": ROWS}, [[w] * 3 for w in ROWS]),
        "tokens": ({"sample_weight": tokens}, [row[1:] for row in tokens]),
        "classes": (
            {"class_weight": classes},
            [[classes.get(i, 1.0) for i in row[1:]] for row in TARGET],
        ),
    }[given]
    model = translator()
    data = teacher_forcing(WORDS, TARGET, **OPTIONS, **options)
    labels = [row[1:] for row in TARGET]
    weights = [w[: len(row)] for w, row in zip(weights, labels, strict=True)]
    costs, total, _ = weighted_sums(model, data[0][0], labels, weights)
    loss = evaluate_loss(model, SequenceCrossentropy(), data)
    assert loss == pytest.approx(costs / total, rel=1e-4)
    inputs, padded, weights = data[0]
    again = model.evaluate(inputs, padded, sample_weight=weights, verbose=0)
    assert again == pytest.approx(loss, rel=1e-5)


def test_class_weights_of_rows_match_keras():
    model, labels = classifier(), np.array([2, 0, 1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    data = batches(WORDS, labels, class_weight=CLASSES, **OPTIONS)
    inputs, labels, weights = data[0]
    assert weights.tolist() == [0.25, 4.0, 1.0]
    start = model.get_weights()
    model.fit(data, verbose=0)
    actual = model.get_weights()
    model.set_weights(start)
    model.fit(inputs, labels, class_weight=CLASSES, verbose=0)
    for one, other in zip(actual, model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_weights_stay_with_their_rows_in_any_order():
    labels = np.arange(8)
    for inputs, ids, weights in batches(
        [[i + 1] * (i + 1) for i in range(8)],
        labels,
        batch_size=3,
        sample_weight=labels * 0.5,
    ):
        assert (weights == ids * 0.5).all() and (inputs[:, 0] == ids + 1).all()


def test_padded_weights_are_cut_like_their_labels():
    padded = np.array([[4, 5, 6], [8, 0, 0]])
    weights = np.array([[1, 2, 3], [4, 5, 6]])
    [(_, _, cut)] = batches(padded, padded, sample_weight=weights, **OPTIONS)
    assert cut.tolist() == [[1, 2, 3], [4, 0, 0]]
    [(_, _, cut)] = teacher_forcing(
        None,
        [[2, 3], [2, 5, 3]],
        batch_size=2,
        shuffle=False,
        length_multiple=1,
        sample_weight=weights,
    )
    assert cut.tolist() == [[2, 0], [5, 6]]


# Errors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        tagger,
        translator,
        lambda: kseq.one_to_many(VOCABULARY, width=4),
        lambda: kseq.ensemble([tagger()]),
        lambda: kseq.ensemble([translator()]),
        lambda: keras.models.clone_model(tagger()),
    ],
)
def test_fit_rejects_class_weight_if_steps_have_labels(make):
    model = make()
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(
        ValueError, match="if steps have labels.*Received: class_weight"
    ):
        model.fit(np.ones((2, 3)), np.ones((2, 3)), class_weight={1: 2.0})
    with pytest.raises(
        ValueError, match="if steps have labels.*Received: class_weight"
    ):
        model.train_on_batch(np.ones((2, 3)), np.ones((2, 3)), None, {1: 2.0})


@pytest.mark.parametrize(
    "make",
    [classifier, lambda: kseq.ensemble([classifier()])],
)
def test_fit_accepts_class_weight_if_rows_have_labels(make):
    model = make()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ids = np.ones((2, 3), "int32")
    model.fit(ids, np.array([2, 0]), class_weight={2: 2.0}, verbose=0)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sample_weight": 2.0}, "`sample_weight` must .*of None rows, 3 rows"),
        ({"sample_weight": [1.0, 2.0]}, "`sample_weight` must .*of 2 rows, 3 rows"),
        ({"sample_weight": [1, 2, -1]}, r"non-negative.*sample_weight\[2\].* -1\."),
        (
            {"sample_weight": [1, np.nan, 1]},
            r"finite non-negative numbers.*sample_weight\[1\].* nan",
        ),
        (
            {"sample_weight": ["a", 1, 1]},
            r"finite non-negative numbers.*sample_weight\[0\]",
        ),
        ({"sample_weight": [[1], [1], [1]]}, r"4 for its steps.*sample_weight\[0\]"),
        (
            {"sample_weight": np.ones((3, 4, 2))},
            r"sample_weight\[0\] of shape \(4, 2\)",
        ),
        ({"class_weight": [1.0, 2.0]}, r"`class_weight` must be a dictionary.*\[1.0"),
        ({"class_weight": {"NOUN": 2.0}}, "`class_weight` must be .*'NOUN'"),
        ({"class_weight": {1: -2.0}}, "`class_weight` must be .*-2.0"),
        ({"class_weight": {1: None}}, "`class_weight` must be .*None"),
    ],
)
def test_rejects_invalid_weights(options, message):
    with pytest.raises(ValueError, match=message):
        batches(WORDS, TAGS, **options)


def test_step_weights_need_step_labels():
    with pytest.raises(ValueError, match="one per row. Received"):
        batches(WORDS, [1, 0, 1], sample_weight=STEPS)


def test_class_weights_need_classes():
    with pytest.raises(ValueError, match="labels that are classes.*dtype=float32"):
        batches(WORDS, [1.5, 0.0, 1.0], class_weight={0: 2.0})


def test_rejects_a_class_weight_of_padding():
    with pytest.raises(
        ValueError, match="must not contain padding.*class_weight={0: 2.0}"
    ):
        teacher_forcing(WORDS, TARGET, class_weight={0: 2.0})


def test_loss_rejects_weights_of_another_shape():
    for shape in [(3,), (2, 5), (2, 4, 7)]:
        with pytest.raises(ValueError, match=r"shape \(B,\), or of tokens.*Received"):
            SequenceCrossentropy()(np.ones((2, 4)), np.ones((2, 4, 7)), np.ones(shape))
