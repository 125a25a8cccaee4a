"""The pipeline from captions to images."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import GreedySearch, Sampling
from kseq.text import TextToImage, Vocabulary
from tests.helpers import randomize

CAPTIONS = ["a red heart", "빨간 하트", "a blue heart"]


def make(shape=(4, 6, 3)):
    vocabulary = Vocabulary("word").adapt(CAPTIONS)
    tokenizer = kseq.image_tokenizer(shape, (3, 4), 2, width=4, num_blocks=1)
    model = kseq.text_to_image(vocabulary.size, tokenizer, width=8)
    randomize(model)
    return TextToImage(model, vocabulary)


def pixels(pictures):
    return np.array([[np.asarray(picture) for picture in row] for row in pictures])


def test_images_equal_those_of_the_model():
    drawer = make()
    search = Sampling(num_draws=2, seed=5)
    pictures = drawer.draw(CAPTIONS, search)
    assert [len(row) for row in pictures] == [2, 2, 2]
    assert pictures[0][0].size == (6, 4) and pictures[0][0].mode == "RGB"
    expected = drawer.model.draw(drawer.vocabulary.encode(CAPTIONS), search).images
    assert (pixels(pictures) == np.rint(255 * expected)).all()


def test_one_channel_gives_grayscale_images():
    [[picture]] = make((4, 6, 1)).draw(["a red heart"])
    assert picture.mode == "L"


def test_no_captions_give_no_images():
    assert make().draw([]) == []


def test_a_loaded_pipeline_draws_the_same_images(tmp_path):
    drawer = make()
    drawer.save(tmp_path / "drawer.keras")
    search = GreedySearch()
    loaded = TextToImage.load(tmp_path / "drawer.keras")
    assert loaded.vocabulary.tokens == drawer.vocabulary.tokens
    assert (
        pixels(loaded.draw(CAPTIONS, search)) == pixels(drawer.draw(CAPTIONS, search))
    ).all()


def test_error_names_missing_pillow(monkeypatch):
    drawer = make()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"Pillow.*kseq\[plots\]"):
        drawer.draw(CAPTIONS)


def test_rejects_wrong_components_and_blank_captions():
    drawer = make()
    with pytest.raises(ValueError, match="method `draw`.*kseq.text_to_image"):
        TextToImage(keras.Sequential(), drawer.vocabulary)
    with pytest.raises(ValueError, match="kseq.text.Vocabulary"):
        TextToImage(drawer.model, "words")
    with pytest.raises(ValueError, match=r"at least one token.*Leave it out\.$"):
        drawer.draw([" "])


SERVE = """
import json, sys
sys.modules["kseq"] = sys.modules["keras"] = None  # so that an import of them fails
import tensorflow as tf
drawer = tf.saved_model.load(sys.argv[1])
signature = drawer.signatures["serving_default"]
for captions in json.loads(sys.argv[2]):
    captions = [c.encode("latin-1" if c == "caf\u00e9" else "utf-8") for c in captions]
    try:
        drawn = signature(captions=tf.constant(captions))
        print(json.dumps(drawn["images"].numpy().tolist()))
    except tf.errors.InvalidArgumentError as error:
        print(json.dumps(str(error)))
"""


@pytest.mark.thorough
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow exports"
)
def test_an_exported_graph_draws_from_texts(tmp_path):
    drawer = make()
    search = Sampling(num_draws=2, seed=5)
    path = tmp_path / "drawer"
    drawer.export_generation(path, search)
    batches = [CAPTIONS, ["없는 말"], ["a", " "], ["a", "a\0b"], ["café"]]
    done = subprocess.run(
        [sys.executable, "-c", SERVE, path, json.dumps(batches)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *drawn, blank, nul, latin = map(json.loads, done.stdout.splitlines()[-5:])
    for captions, images in zip(batches, drawn, strict=False):
        assert (np.array(images) == pixels(drawer.draw(captions, search))).all()
    assert "`captions` must have at least one token each" in blank
    for message in (nul, latin):
        assert "`captions` must be texts in UTF-8 without a NUL" in message


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow can")
def test_other_backends_do_not_export(tmp_path):
    with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
        make().export_generation(tmp_path / "drawer")
