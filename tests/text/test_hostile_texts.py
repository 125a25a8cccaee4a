"""Hostile texts, which pipelines and their graphs answer or reject with a message."""

import functools
import itertools

import keras
import numpy as np
import pytest

import kseq
from kseq.text import TextToImage, TextToLabels, TextToText, TextWriter, Vocabulary
from tests.text.hostile import HOSTILE

NOT_TEXTS = {"lone surrogate": "a\ud83d", "None": None, "number": 3}
TEXTS = ["Ein Mann, ein Hund.", "한국어 문장", "שלום e\u0301 👩"] * 3


def vocabulary(split, *options):
    limit = {"max_tokens": 400} if "piece" in split else {}
    return Vocabulary(split, *options, **limit).adapt(TEXTS)


def translator():
    source, target = vocabulary("sentence_piece"), vocabulary("word_piece", "NFC")
    model = kseq.encoder_decoder(source.size, target.size, "gru", "gru", width=5)
    return TextToText(model, source, target)


def writer():
    letters = vocabulary("jamo")
    return TextWriter(kseq.one_to_many(letters.size, decoder="gru", width=5), letters)


def classifier():
    words = vocabulary("word", "NFD", True)
    model = kseq.many_to_one(words.size, 2, "gru", width=5)
    return TextToLabels(model, words, ["gut", "나쁨"])


def tagger():
    letters = vocabulary("character")
    model = kseq.many_to_many(letters.size, 2, "gru", width=5)
    return TextToLabels(model, letters, ["a", "b"])


def drawer():
    marks = vocabulary("word_and_mark")
    tokenizer = kseq.image_tokenizer((4, 4, 3), patch_size=2, width=4)
    return TextToImage(kseq.text_to_image(marks.size, tokenizer, width=4), marks)


def generate_texts(pipeline, texts):
    return [best.text for best, *_ in pipeline.generate(texts, max_length=5)]


def continue_prompts(pipeline, texts):
    return pipeline.generate(texts, max_length=400)


def label_texts(pipeline, texts):
    return [
        [label.name for label in found] if isinstance(found, list) else found.name
        for found in pipeline.label(texts)
    ]


def draw_images(pipeline, texts):
    return [np.asarray(picture).tolist() for [picture] in pipeline.draw(texts)]


KINDS = {  # functions that build, call and export a pipeline
    "translator": (
        translator,
        generate_texts,
        ("export_generation", {"max_length": 5}),
    ),
    "writer": (writer, continue_prompts, ("export_generation", {"max_length": 400})),
    "classifier": (classifier, label_texts, ("export_labels", {})),
    "tagger": (tagger, label_texts, ("export_labels", {})),
    "drawer": (drawer, draw_images, ("export_generation", {})),
}


@functools.cache
def pipeline_of(kind):
    keras.utils.set_random_seed(7)
    return KINDS[kind][0]()


def answer_of(kind, text):
    """Return the answer of a pipeline, or None if it raises an error with a message."""
    try:
        [answer] = KINDS[kind][1](pipeline_of(kind), [text])
    except ValueError as error:
        assert "Received: " in str(error) and len(str(error)) < 1000
        return None
    return answer


# The drawer is a Transformer, for which the long text needs too much memory.
CASES = set(itertools.product(KINDS, HOSTILE)) - {("drawer", "long")}


@pytest.mark.parametrize(("kind", "text"), sorted(CASES))
def test_every_pipeline_answers_or_rejects_with_a_message(kind, text):
    answer = answer_of(kind, HOSTILE[text])
    is_text = text not in ("NUL", "Latin-1", "truncated UTF-8")
    assert is_text or answer is None
    if answer is not None and kind == "writer":
        assert answer.startswith(HOSTILE[text])


@pytest.mark.parametrize("text", NOT_TEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_rejects_values_that_are_not_texts(kind, text):
    assert answer_of(kind, NOT_TEXTS[text]) is None


@functools.cache
def graph_of(kind, folder):
    import tensorflow as tf

    method, options = KINDS[kind][2]
    path = str(folder / kind)
    getattr(pipeline_of(kind), method)(path, **options)
    return tf.saved_model.load(path).signatures["serving_default"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("graphs")


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="graphs of strings are TensorFlow's"
)
@pytest.mark.parametrize(("kind", "text"), sorted(CASES))
def test_a_graph_gives_the_answers_and_errors_of_its_pipeline(kind, text, folder):
    import tensorflow as tf

    graph = graph_of(kind, folder)
    names = {"writer": "prompts", "drawer": "captions"}
    name = names.get(kind, "texts")
    expected = answer_of(kind, HOSTILE[text])
    try:
        outputs = graph(**{name: tf.constant([HOSTILE[text]])})
    except tf.errors.InvalidArgumentError as error:
        assert expected is None and f"`{name}` must" in str(error)
        return
    if kind == "drawer":
        assert outputs["images"].numpy()[0, 0].tolist() == expected
    elif kind in ("translator", "writer"):
        assert outputs["texts"].numpy()[0, 0].decode() == expected
    else:
        labels = outputs["labels"].numpy()[0]
        is_tagger = kind == "tagger"
        found = [x.decode() for x in labels if x] if is_tagger else labels.decode()
        assert found == expected
