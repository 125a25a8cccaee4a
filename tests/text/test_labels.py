"""`TextToLabels`: classifiers and taggers with their vocabulary and labels."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import kseq
from kseq.text import Label, TextToLabels, Vocabulary

TEXTS = ["한국 b c", "a", "c a b a 한국 c a", "b b", "a b c 한국 a a b c c b a c"]
LABELS = ["good", "bad", "나쁨"]


def vocabulary():
    return Vocabulary("word").adapt(TEXTS)


def classifier():
    words = vocabulary()
    return TextToLabels(kseq.many_to_one(words.size, 3, width=5), words, LABELS)


def tagger(encoder="lstm"):
    words = vocabulary()
    model = kseq.many_to_many(words.size, 3, encoder=encoder, width=6)
    return TextToLabels(model, words, LABELS)


def scripted_tagger(numbers):
    """Return a tagger that gives token 4 + i the logit log(numbers[i]) of label i."""
    words = Vocabulary("word").adapt(["a b c"])
    table = np.zeros((words.size, 3), "float32")
    table[range(4, 7), range(3)] = np.log(numbers)
    ids = keras.Input((None,), dtype="int32")
    scores = keras.layers.Embedding(*table.shape, weights=[table])(ids)
    return TextToLabels(keras.Model(ids, scores), words, LABELS)


def crf_tagger():
    words = vocabulary()
    head = kseq.layers.CRF(labels=["O", "B-a", "I-a"])
    model = kseq.many_to_many(words.size, 3, "rnn", width=6, head=head)
    for weight in model.weights:
        weight.assign(3 * keras.random.normal(weight.shape, seed=len(weight.shape)))
    return TextToLabels(model, words, ["O", "B-a", "I-a"])


def plain(results):
    if isinstance(results, Label):
        return [results.name, round(results.probability, 4)]
    return [plain(result) for result in results]


def test_each_token_gets_the_most_probable_label_and_its_probability():
    # The other two logits are 0, so the odds are n : 1 : 1.
    [[c, a, b, unknown]] = scripted_tagger([2, 3, 6]).label(["c a b z"])
    assert [c.name, a.name, b.name] == ["나쁨", "good", "bad"]
    np.testing.assert_allclose([c.probability, a.probability], [6 / 8, 2 / 4])
    np.testing.assert_allclose(b.probabilities, [1 / 5, 3 / 5, 1 / 5], rtol=1e-6)
    np.testing.assert_allclose(unknown.probabilities, np.ones(3) / 3)


def test_huge_logits_give_valid_probabilities():
    model = scripted_tagger([2, 3, 6])
    model.model.layers[-1].embeddings.assign(np.full((7, 3), 1e30) * [1, -1, 1])
    [[label]] = model.label(["a"])
    assert label.probabilities.tolist() == [0.5, 0, 0.5]


@pytest.mark.thorough(all_but=2)
@pytest.mark.parametrize("make", [classifier, tagger])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_labels_do_not_depend_on_the_batch(make, batch_size):
    reader = make()
    together = reader.label(TEXTS, batch_size)
    alone = [reader.label([text])[0] for text in TEXTS]
    assert plain(together) == plain(alone)
    for text, result in zip(TEXTS, together, strict=True):
        if make is tagger:
            assert len(result) == len(text.split())
        else:
            logits = reader(np.array(reader.vocabulary.encode([text])))
            expected = keras.ops.convert_to_numpy(keras.ops.softmax(logits))[0]
            np.testing.assert_allclose(result.probabilities, expected, atol=1e-6)


def test_batches_have_texts_of_similar_length_and_little_padding():
    reader, shapes = classifier(), []

    def predict(ids):
        shapes.append(ids.shape)
        return np.zeros((len(ids), 3))

    reader.model.predict_on_batch = predict
    lengths = [19, 2, 1, 17, 3, 16, 7]
    reader.label(["a " * length for length in lengths], batch_size=2)
    lengths_seen = [length for _, length in shapes]
    if reader.model.jit_compile:
        assert lengths_seen == [8, 8, 32, 32]  # powers of two
    else:
        assert lengths_seen == [8, 8, 24, 24]  # multiples of 8
    assert [rows for rows, _ in shapes] == [2, 2, 2, 1]


@pytest.mark.parametrize("make", [classifier, crf_tagger])
def test_calls_of_any_size_compile_few_shapes(make, monkeypatch):
    reader, shapes = make(), set()
    predict = keras.Model.predict_on_batch

    def recording(model, ids):
        shapes.add(ids.shape)
        return predict(model, ids)

    monkeypatch.setattr(keras.Model, "predict_on_batch", recording)
    for count in range(1, 10):
        assert len(reader.label(["a b"] * count)) == count
    assert shapes == {(1, 8), (2, 8), (4, 8), (8, 8), (16, 8)}
    shapes.clear()
    for length in range(1, 40, 2):
        reader.label(["a " * length])
    are_powers = make is crf_tagger or reader.model.jit_compile
    expected = [8, 16, 32, 64] if are_powers else [8, 16, 24, 32, 40]
    assert shapes == {(1, length) for length in expected}


def test_no_texts_get_no_labels():
    assert classifier().label([]) == []


def test_error_names_a_text_without_tokens():
    with pytest.raises(ValueError, match=r"Received: texts\[1\], which has none"):
        tagger().label(["a", " ", "b"])


@pytest.mark.parametrize("make, nothing", [(classifier, None), (tagger, [])])
def test_blank_texts_keep_their_places(make, nothing):
    reader = make()
    labels = reader.label(["", *TEXTS, " "], 2, allow_blank=True)
    assert labels[0] == labels[-1] == nothing
    assert plain(labels[1:-1]) == plain(reader.label(TEXTS))
    assert reader.label([" "], allow_blank=True) == [nothing]


def test_rejects_a_single_string_and_a_batch_size_of_zero():
    with pytest.raises(ValueError, match="Wrap it in a list"):
        classifier().label("a b")
    with pytest.raises(ValueError, match="`batch_size` must be an integer"):
        classifier().label(["a b"], batch_size=0)


def test_label_ids_returns_the_ids_of_names():
    assert classifier().label_ids(["bad", "나쁨", "good"]) == [1, 2, 0]
    assert tagger().label_ids([["bad", "bad"], [], ["good"]]) == [[1, 1], [], [0]]


def test_error_names_an_unknown_label():
    with pytest.raises(ValueError, match="must be labels of this model: .*'ugly'"):
        tagger().label_ids([["good"], ["ugly"]])
    with pytest.raises(ValueError, match=r"`names` must be a list of strings.*'good'"):
        classifier().label_ids("good")
    with pytest.raises(ValueError, match="`names` must be .*Received: 7"):
        classifier().label_ids([7])


def test_a_model_trains_on_encoded_texts_and_label_ids():
    reader = tagger()
    names = [[LABELS[len(word) % 3] for word in text.split()] for text in TEXTS]
    data = kseq.training.batches(
        reader.vocabulary.encode(TEXTS), reader.label_ids(names), batch_size=5
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    reader.model.compile(keras.optimizers.Adam(0.1), loss)
    reader.model.fit(data, epochs=20, verbose=0)
    assert [[label.name for label in row] for row in reader.label(TEXTS)] == names


@pytest.mark.parametrize("make", [classifier, tagger, crf_tagger])
def test_a_loaded_pipeline_gives_the_same_labels(make, tmp_path):
    reader = make()
    reader.save(tmp_path / "reader.keras")
    loaded = keras.saving.load_model(tmp_path / "reader.keras")
    assert plain(loaded.label(TEXTS)) == plain(reader.label(TEXTS))
    assert loaded.labels == loaded.get_config()["labels"] == reader.labels
    assert len(loaded.weights) == len(reader.weights)


def test_a_crf_gives_the_best_path_and_marginal_probabilities():
    reader = crf_tagger()
    crf = reader.model.crf
    for text, labels in zip(TEXTS, reader.label(TEXTS, batch_size=2), strict=True):
        potentials = reader(np.array(reader.vocabulary.encode([text])))
        paths, _ = crf.best_paths(potentials)
        path = keras.ops.convert_to_numpy(paths)[0, 0]
        assert [label.name for label in labels] == [reader.labels[i] for i in path]
        expected = keras.ops.convert_to_numpy(crf.marginals(potentials))[0]
        for label, number, probabilities in zip(labels, path, expected, strict=True):
            np.testing.assert_allclose(label.probabilities, probabilities, atol=1e-5)
            assert label.probability == label.probabilities[number]


def test_a_pipeline_predicts_like_its_model():
    reader = crf_tagger()
    ids = np.array(reader.vocabulary.encode([TEXTS[0]]))
    expected = reader.model.predict(ids, verbose=0)
    np.testing.assert_array_equal(reader.predict(ids, verbose=0), expected)
    found = keras.ops.convert_to_numpy(reader.predict_on_batch(ids))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.thorough
def test_a_loaded_pipeline_gives_the_same_labels_in_a_new_process(tmp_path):
    reader = tagger()
    reader.save(tmp_path / "reader.keras")
    here = pathlib.Path(__file__)
    program = (
        "import sys, keras, kseq, test_labels as t\n"
        "reader = keras.saving.load_model(sys.argv[1])\n"
        "print(t.plain(reader.label(t.TEXTS)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "reader.keras"],
        env={
            **os.environ,
            "PYTHONPATH": f"{here.parent}:{here.parents[2]}",
            "PYTHONIOENCODING": "utf-8",
        },
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == str(plain(reader.label(TEXTS)))


def test_a_call_runs_the_inner_model():
    reader, ids = classifier(), np.array([[4, 5]])
    outer, inner = map(keras.ops.convert_to_numpy, (reader(ids), reader.model(ids)))
    np.testing.assert_array_equal(outer, inner)


@pytest.mark.parametrize("labels", [["a", "b", "a"], [], [b"a", "b", "c"], "abc"])
def test_labels_must_be_different_strings(labels):
    words = vocabulary()
    with pytest.raises(ValueError, match="`labels` must be"):
        TextToLabels(kseq.many_to_one(words.size, 3, width=5), words, labels)


def test_rejects_components_that_do_not_fit():
    words = vocabulary()
    model = kseq.many_to_one(words.size, 3, width=5)
    with pytest.raises(ValueError, match="each of the 2 labels.*num_outputs=2"):
        TextToLabels(model, words, ["good", "bad"])
    with pytest.raises(ValueError, match="`model` must be a built Keras model"):
        TextToLabels("model", words, LABELS)
    with pytest.raises(ValueError, match="`vocabulary` must be a `kseq.text"):
        TextToLabels(model, ["a", "b"], LABELS)
    larger = Vocabulary("word").adapt(["a b c d e f g h"])
    with pytest.raises(ValueError, match="a model of 8 tokens, a vocabulary of 12"):
        TextToLabels(model, larger, LABELS)
