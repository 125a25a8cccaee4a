"""Models of several sources, trained and exported.

Axes in shape comments: B batch, T target steps.
"""

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch
from kseq.layers import ClassEmbedding, FeatureEmbedding
from kseq.training import SequenceCrossentropy, teacher_forcing
from tests.builders.small_models import reader_of_features
from tests.builders.test_copying_sources import random_model as copying_model
from tests.builders.test_sources import LENGTH, SOURCE, model_of, padded, randomized
from tests.helpers import assert_close, random_array

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow exports"
)


def test_a_model_learns_from_two_sources_together():
    """The target is a letter of the lemma; the tag selects it."""
    random = np.random.default_rng(0)
    lemma = random.integers(4, 9, (400, 2)).tolist()
    tags = random.integers(2, 4, (400, 1)).tolist()
    target = [[2, row[tag - 2], 3] for row, [tag] in zip(lemma, tags, strict=True)]
    source = {"lemma": lemma, "tags": tags}
    keras.utils.set_random_seed(0)
    model = kseq.encoder_decoder({"lemma": 9, "tags": 4}, 9, width=24)
    model.compile(keras.optimizers.Adam(0.02), SequenceCrossentropy())
    model.fit(teacher_forcing(source, target, 50), epochs=12, verbose=0)
    few = {name: rows[:50] for name, rows in source.items()}
    generated = model.generate(few, max_length=2).token_ids[:, 0, 0]
    assert (generated == [row[1] for row in target[:50]]).mean() > 0.95


@pytest.mark.thorough
def test_a_model_learns_to_copy_one_source_and_only_read_the_other():
    """The target is the lemma, followed by a letter that the tag decides.

    Letters above 12 are not in the target vocabulary, so they are copied as token 1.
    """
    random = np.random.default_rng(0)
    lemma = random.integers(4, 16, (1500, 3)).tolist()
    tags = random.integers(4, 6, (1500, 1)).tolist()
    target = [
        [2, *(1 if i > 12 else i for i in row), 12 + tag, 3]
        for row, [tag] in zip(lemma, tags, strict=True)
    ]
    keras.utils.set_random_seed(0)
    alignment = [i if i <= 12 else 1 for i in range(20)]  # rare letters are unknown
    model = kseq.encoder_decoder(
        {"lemma": 20, "tags": 6}, 18, width=32, copy={"lemma": alignment}
    )
    model.compile(
        keras.optimizers.Adam(0.01, global_clipnorm=1.0), SequenceCrossentropy()
    )
    source = {"lemma": lemma, "tags": tags}
    model.fit(teacher_forcing(source, target, 50), epochs=6, verbose=0)
    result = model.generate(source, max_length=5)
    generated = result.token_ids[:, 0]
    right = [row[1:] == list(x) for row, x in zip(target, generated, strict=True)]
    assert np.mean(right) > 0.9


@pytest.mark.thorough
@on_tensorflow
def test_a_model_can_be_trained_on_a_tensorflow_data_set():
    import tensorflow as tf

    source = {name: padded(rows) for name, rows in SOURCE.items()}
    target = np.array([[2, 5, 3], [2, 3, 0], [2, 4, 3], [2, 3, 0]], "int32")
    inputs = {"source": source, "target": target[:, :-1]}
    data = tf.data.Dataset.from_tensor_slices((inputs, target[:, 1:])).batch(2)
    model = model_of()
    model.compile("adam", SequenceCrossentropy())
    model.fit(data, shuffle=False, verbose=0)
    expected = model.generate(SOURCE, max_length=LENGTH).log_probs
    assert_close(model.generate(data, max_length=LENGTH).log_probs, expected)


@pytest.mark.thorough
def test_a_forecast_depends_on_the_past_and_on_a_class():
    model = kseq.encoder_decoder(
        source={"past": FeatureEmbedding(2, 6), "shop": ClassEmbedding(3, 6)},
        target=FeatureEmbedding(1, 6),
        encoder={"past": "gru", "shop": None},
        head="gaussian",
        width=6,
    )
    past, shop = random_array(5, 7, 2), np.array([0, 1, 2, 1, 0], "int32")
    source, future = {"past": past, "shop": shop}, random_array(5, 3, 1, seed=1)
    model.compile("adam", kseq.training.ForecastLoss("gaussian"))
    model.fit(teacher_forcing(source, future, 2), verbose=0)
    forecast = model.generate(source, num_steps=3, num_draws=2, seed=1)
    assert forecast.draws.shape == (5, 2, 3, 1)
    other = {**source, "shop": (shop + 1) % 3}
    assert (model.generate(other, num_steps=3).mean != forecast.mean).any()
    past[1, 2] = np.nan
    with pytest.raises(ValueError, match=r'`source\["past"\]` must hold numbers'):
        model.generate(source, num_steps=3)


def test_a_model_learns_from_tokens_with_features():
    model = randomized(reader_of_features())
    words, numbers = [[4, 5, 6], [8]], [random_array(3, 2), random_array(1, 2)]
    target = [[2, 5, 3], [2, 3]]
    data = teacher_forcing({"word": words, "numbers": numbers}, target)
    model.compile("adam", SequenceCrossentropy())
    model.fit(data, verbose=0)
    inputs, _ = data[0]
    result = model.generate(inputs, max_length=LENGTH, return_attention_scores=True)
    assert result.attention.shape[-1] == inputs["source"]["word"].shape[1]
    changed = {**inputs["source"], "numbers": 1 + inputs["source"]["numbers"]}
    other = model.generate(changed, max_length=LENGTH)
    assert (other.log_probs != result.log_probs).any()


def test_error_names_the_missing_source_in_training():
    model = model_of()
    model.compile("adam", SequenceCrossentropy())
    batches = teacher_forcing({"lemma": [[4, 5]]}, [[2, 5, 3]])
    with pytest.raises(ValueError, match=r"`source` must have the names.*\['tags'\]"):
        model.fit(batches, verbose=0)


@on_tensorflow
def test_an_export_takes_the_sources_by_name(tmp_path):
    import tensorflow as tf

    model = model_of()
    path = str(tmp_path / "writer")
    model.export_generation(path, BeamSearch(2), LENGTH)
    served = tf.saved_model.load(path)
    source = {name: padded(rows) for name, rows in SOURCE.items()}
    outputs = served.serve({"source": keras.tree.map_structure(tf.constant, source)})
    expected = model.generate(SOURCE, BeamSearch(2), LENGTH)
    np.testing.assert_array_equal(outputs["token_ids"], expected.token_ids)
    with pytest.raises(ValueError, match=r"`source_shape` must have the names"):
        model.export_generation(path, source_shape={"lemma": (1, 9)})


@pytest.mark.thorough
@on_tensorflow
@pytest.mark.parametrize("kind", ["recurrent", "aligned", "transformer"])
def test_an_export_copies_from_one_of_several_sources(kind, tmp_path):
    import tensorflow as tf

    model, search = copying_model(kind), BeamSearch(3, 0.6, coverage_penalty=0.2)
    path = str(tmp_path / "inflector")
    model.export_generation(path, search, LENGTH)
    served = tf.saved_model.load(path)
    source = {name: padded(rows) for name, rows in SOURCE.items()}
    outputs = served.serve({"source": keras.tree.map_structure(tf.constant, source)})
    expected = model.generate(SOURCE, search, LENGTH)
    np.testing.assert_array_equal(outputs["token_ids"], expected.token_ids)
    assert_close(outputs["log_probs"], expected.log_probs, atol=1e-4)


def test_ctranslate2_export_rejects_several_sources(tmp_path):
    pytest.importorskip("ctranslate2")
    model = model_of("transformer", "transformer")
    with pytest.raises(ValueError, match="TransformerEncoder.*JoinedEncoders"):
        model.export_generation(tmp_path / "writer", format="ctranslate2")
