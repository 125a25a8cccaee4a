"""Text pipelines with several sources, passed by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch
from kseq.text import TextToText, Vocabulary
from tests.helpers import assert_close, randomize

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow exports"
)
TEXTS = {
    "lemma": ["sehen", "gehen", "seh", "gehs"],
    "tags": ["V PST", "V PRS 3", "", "N"],
}


def vocabularies():
    lemma = Vocabulary("character").adapt(["gehen", "sehen", "geht", "gesehen"])
    return {"lemma": lemma, "tags": Vocabulary("word").adapt(["V PST", "V PRS 3", "N"])}


def pipeline(**options):
    sources = vocabularies()
    sizes = {name: vocabulary.size for name, vocabulary in sources.items()}
    letters = sources["lemma"]
    model = kseq.encoder_decoder(sizes, letters.size, width=8, **options)
    randomize(model)
    return TextToText(model, sources, letters)


def test_generate_takes_texts_by_name():
    inflector = pipeline()
    result = inflector.generate(TEXTS, max_length=6, return_attention_scores=True)
    assert len(result) == 4
    [best] = result[0]
    assert best.source_tokens == {"lemma": list("sehen"), "tags": ["V", "PST"]}
    assert best.attention["lemma"].shape == (len(best.tokens), 5)
    assert best.attention["tags"].shape == (len(best.tokens), 2)
    [without_tags] = result[2]
    assert without_tags.source_tokens["tags"] == []
    source = {name: v.encode(TEXTS[name]) for name, v in vocabularies().items()}
    expected = inflector.model.generate(source, max_length=6)
    log_probs = np.array([best.log_prob for [best] in result])
    assert_close(log_probs, expected.log_probs[:, 0])


def test_streams_equal_generate_and_targets_are_scored():
    inflector = pipeline()
    result = inflector.generate(TEXTS, max_length=6)
    pieces = list(inflector.generate_stream(TEXTS, max_length=6))
    assert ["".join(x) for x in zip(*pieces, strict=True)] == [b.text for [b] in result]
    ended = inflector.generate(TEXTS, BeamSearch(40), max_length=6)
    targets = [hypotheses[0].text for hypotheses in ended]
    assert inflector.score(TEXTS, targets).shape == (4,)


def test_rows_without_tokens_are_blank():
    inflector = pipeline()
    texts = {"lemma": ["geht", ""], "tags": ["", ""]}
    with pytest.raises(ValueError, match="in some source. Received: texts 1"):
        inflector.generate(texts)
    written = inflector.generate(texts, max_length=5, allow_blank=True)
    assert written[1][0].text == "" and written[1][0].log_prob == 0.0
    assert written[1][0].source_tokens == {"lemma": [], "tags": []}
    pieces = list(inflector.generate_stream(texts, max_length=5, allow_blank=True))
    assert all(second == "" for _, second in pieces)


LOAD = """
import json, sys, kseq
inflector = kseq.text.load(sys.argv[1])
result = inflector.generate(json.loads(sys.argv[2]), max_length=6)
print(json.dumps([best.log_prob for [best] in result]))
"""


@pytest.mark.thorough
def test_a_new_process_loads_all_vocabularies(tmp_path):
    inflector, path = pipeline(), tmp_path / "inflector.keras"
    inflector.save(path)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, path, json.dumps(TEXTS)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    expected = [best.log_prob for [best] in inflector.generate(TEXTS, max_length=6)]
    assert_close(json.loads(done.stdout.splitlines()[-1]), expected)


@on_tensorflow
def test_an_export_takes_texts_by_name(tmp_path):
    import tensorflow as tf

    inflector, path = pipeline(), str(tmp_path / "inflector")
    inflector.export_generation(path, BeamSearch(2), max_length=6)
    served = tf.saved_model.load(path).signatures["serving_default"]
    outputs = served(**{name: tf.constant(texts) for name, texts in TEXTS.items()})
    expected = inflector.generate(TEXTS, BeamSearch(2), max_length=6)
    texts = [[text.decode() for text in row] for row in outputs["texts"].numpy()]
    assert texts == [[best.text for best in row] for row in expected]
    log_probs = np.array([[best.log_prob for best in row] for row in expected])
    assert_close(np.array(outputs["log_probs"]), log_probs, atol=1e-4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least one token"):
        served(lemma=tf.constant([""]), tags=tf.constant([""]))


def test_ctranslate2_export_rejects_several_sources(tmp_path):
    with pytest.raises(ValueError, match="CTranslate2 takes one source.*lemma"):
        pipeline().export_generation(tmp_path / "inflector", format="ctranslate2")


@pytest.mark.parametrize(
    "texts, message",
    [
        (["sehen"], r'a dictionary, {"lemma": ..., "tags": ...}. Received: list'),
        ({"lemma": ["sehen"]}, r"without \['tags'\]"),
        ({"lemma": ["sehen"], "tags": ["V", "N"]}, "'lemma': 1, 'tags': 2"),
    ],
)
def test_error_describes_wrong_texts(texts, message):
    with pytest.raises(ValueError, match=message):
        pipeline().generate(texts)


def test_error_describes_vocabularies_that_do_not_fit():
    inflector, letters = pipeline(), vocabularies()["lemma"]
    with pytest.raises(ValueError, match=r"`source_vocabulary` must be a dictionary"):
        TextToText(inflector.model, letters, letters)
    with pytest.raises(ValueError, match=r"`source_vocabulary` must have the names"):
        TextToText(inflector.model, {"lemma": letters}, letters)
    with pytest.raises(ValueError, match=r'`source_vocabulary\["tags"\]` must be'):
        TextToText(inflector.model, {"lemma": letters, "tags": "V"}, letters)
    large = Vocabulary("word").adapt(["a b c d e f g h i j k l m n o p"])
    with pytest.raises(ValueError, match="every token of the tags vocabulary"):
        TextToText(inflector.model, {"lemma": letters, "tags": large}, letters)
    one = kseq.encoder_decoder(letters.size, letters.size, width=8)
    with pytest.raises(ValueError, match="as the model has one source"):
        TextToText(one, vocabularies(), letters)
    numbers = {"lemma": letters.size, "tags": kseq.layers.FeatureEmbedding(2, 8)}
    model = kseq.encoder_decoder(numbers, letters.size, width=8)
    with pytest.raises(ValueError, match="token ids as each of its sources"):
        TextToText(model, vocabularies(), letters)
