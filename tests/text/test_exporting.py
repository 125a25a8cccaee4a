"""Exported pipelines, run in a process that imports neither kseq nor Keras."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BeamSearch, Sampling
from kseq.text import TextToLabels, TextToText, TextWriter, Vocabulary
from tests.helpers import assert_close

TEXTS = [
    "Ein Mann, der (nach rechts) blickt.",
    'She said: "isn\'t it?" - $5,000!',
    "12시 땡! 오늘은 뭐하지~ ㅎㅎ^^",
    "你好，世界。「是」",
    "שלום עולם",
    "👩‍👩‍👧 🇰🇷 x²=1",
    "e\u0301a\u0300 \u0301",
    "  two\tspaces ▁ \u00a0",
    "É ﬁne ①",
]
SPLITS = [
    "character",
    "word",
    "word_and_mark",
    "word_piece",
    "sentence_piece",
    "byte",
    "jamo",
]
HOSTILE = ["a\0b", "caf\xe9", " ", ""]

# Loads only operations of tensorflow_text, because the package itself imports Keras.
SERVE = """
import importlib.util, json, pathlib, sys
sys.modules["kseq"] = sys.modules["keras"] = None  # so that an import of them fails
import tensorflow as tf
[package] = importlib.util.find_spec("tensorflow_text").submodule_search_locations
for name in ("normalize_ops", "sentencepiece_tokenizer", "fast_wordpiece_tokenizer"):
    tf.load_op_library(str(pathlib.Path(package, "python", "ops", f"_{name}.so")))

def encoded(name, value):
    if name == "seed":
        return tf.constant(value)
    if value[-1:] == ["caf\u00e9"]:
        value = [text.encode("latin-1") for text in value]
    return tf.constant(value, tf.string)

def plain(value):
    value = value.numpy()
    if value.dtype != object:
        return value.tolist()
    return [part.decode() if isinstance(part, bytes) else [p.decode() for p in part]
            for part in value.tolist()]

for path, calls in json.loads(sys.stdin.read()):
    served = tf.saved_model.load(path).signatures["serving_default"]
    for call in calls:
        inputs = {name: encoded(name, value) for name, value in call.items()}
        try:
            outputs = served(**inputs)
            print(json.dumps({name: plain(value) for name, value in outputs.items()}))
        except tf.errors.InvalidArgumentError as error:
            print(json.dumps(str(error)))
"""


def serve(exports):
    """Return the outputs of each call of each export, computed in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", SERVE],
        input=json.dumps([[str(path), calls] for path, calls in exports]),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    number = sum(len(calls) for _, calls in exports)
    lines = iter(done.stdout.splitlines()[-number:])
    return [[json.loads(next(lines)) for _ in calls] for _, calls in exports]


def vocabulary_of(split, normalization=None, lowercase=False, *, texts=TEXTS):
    limit = {"max_tokens": 400} if "piece" in str(split) else {}
    texts = [text.split() for text in texts] if split is None else texts * 3
    return Vocabulary(split, normalization, lowercase, **limit).adapt(texts)


def translator_into_another_language(source, target):
    """Return a pipeline whose target vocabulary is learned from texts of its own."""
    texts = [text[::-1] for text in TEXTS]
    return translator_of(vocabulary_of(*source), vocabulary_of(*target, texts=texts))


def translator_of(source, target):
    keras.utils.set_random_seed(3)
    model = kseq.encoder_decoder(source.size, target.size, "rnn", "rnn", width=7)
    for weight in model.weights:
        weight.assign(3.0 * weight)
    model.head.bias.assign(0.5 * (np.arange(target.size) == 3))
    return TextToText(model, source, target)


GREEDY, BEAMS = None, BeamSearch(3)
PAIRS = {
    "words to characters": (("word",), ("character", "NFD"), GREEDY),
    "marks to bytes": (("word_and_mark", "NFC"), ("byte",), GREEDY),
    "pieces to jamo": (("word_piece", "NFKC", True), ("jamo", "NFC"), GREEDY),
    "sentence pieces": (("sentence_piece",), ("sentence_piece",), BEAMS),
    "symbols to pieces": ((None,), ("word_piece",), Sampling(num_draws=2)),
}
PROMPTS = ["한국", "", "a é", "שלום"]
ROWS = [["Ein", "Mann,", "der"], ["שלום", "", ""]]
LONG = "x 한" * 25_000
TAGGED = [" É ging\u3000 \x85heim\n", "שלום", "👩‍👩‍👧 x  y z\u2028"]
TAGGERS = {
    "words": ("word", "NFD", True),
    "characters": ("character",),
    "composed words": ("word", "NFKC"),
    "lists": (None,),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Return pipelines and the outputs of their graphs in a new process, by name."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow exports")
    folder = tmp_path_factory.mktemp("graphs")
    pipelines, calls = {}, {}
    for name, (source, target, search) in PAIRS.items():
        pipeline = translator_into_another_language(source, target)
        pipeline.export_generation(folder / name, search, max_length=6)
        pipelines[name] = pipeline
        calls[name] = [{"texts": TEXTS}, {"texts": TEXTS[:1]}]
    hostile = [{"texts": ["a", text]} for text in HOSTILE] + [{"texts": [LONG]}]
    calls["sentence pieces"] += hostile
    seeds = 1, 1, 2
    calls["words to characters"].append({"texts": []})
    calls["symbols to pieces"] = [{"texts": ROWS, "seed": [seed]} for seed in seeds]

    letters = vocabulary_of("jamo")
    model = kseq.one_to_many(letters.size, decoder="transformer", width=8)
    pipelines["writer"] = TextWriter(model, letters, window=16)
    pipelines["writer"].export_generation(folder / "writer", max_length=16)
    prompts = [PROMPTS, [""], ["a", "한국어 사람들"], ["a\0"]]
    calls["writer"] = [{"prompts": texts} for texts in prompts]

    pieces = vocabulary_of("sentence_piece")
    model = kseq.many_to_one(pieces.size, 3, "gru", width=32)
    pipelines["classifier"] = TextToLabels(model, pieces, ["gut", "나쁨", "½"])
    calls["classifier"] = [{"texts": TEXTS}]
    for name, options in TAGGERS.items():
        words = vocabulary_of(*options)
        model = kseq.many_to_many(words.size, 2, "rnn", width=3)
        pipelines[name] = TextToLabels(model, words, ["name", "verb"])
        calls[name] = [{"texts": TAGGED if options[0] else ROWS}]
    head = kseq.layers.CRF(labels=["O", "B-a", "I-a"])
    words = vocabulary_of("word")
    model = kseq.many_to_many(words.size, 3, "rnn", width=3, head=head)
    for weight in model.weights:
        weight.assign(3 * keras.random.normal(weight.shape, seed=5))
    pipelines["crf"] = TextToLabels(model, words, head.labels)
    calls["crf"] = [{"texts": TEXTS}]
    for name in ("classifier", "crf", *TAGGERS):
        pipelines[name].export_labels(folder / name)
    outputs = serve([(folder / name, calls[name]) for name in pipelines])
    return pipelines, dict(zip(pipelines, outputs, strict=True))


def texts_and_scores(hypotheses):
    return (
        [[best.text for best in row] for row in hypotheses],
        [[best.log_prob for best in row] for row in hypotheses],
    )


@pytest.mark.parametrize("name", list(PAIRS)[:-1])
def test_a_graph_returns_the_texts_of_generate(name, served):
    pipelines, outputs = served
    expected = pipelines[name].generate(TEXTS, PAIRS[name][-1], max_length=6)
    for found, rows in zip(outputs[name], (expected, expected[:1]), strict=False):
        texts, scores = texts_and_scores(rows)
        assert found["texts"] == texts
        assert_close(np.array(found["log_probs"]), np.array(scores), rtol=1e-4)


def test_a_graph_reads_symbols_and_samples_by_a_seed(served):
    first, again, other = served[1]["symbols to pieces"]
    assert first == again != other
    assert np.shape(first["texts"]) == np.shape(first["log_probs"]) == (2, 2)


def test_a_graph_translates_or_rejects_hostile_texts(served):
    pipelines, outputs = served
    nul, latin, blank, empty, whole = outputs["sentence pieces"][2:]
    for message in (nul, latin):
        assert "`texts` must be texts in UTF-8 without a NUL" in message
    assert len(blank["texts"]) == 2  # a space is a token
    assert "`texts` must have at least one token each" in empty
    [expected] = pipelines["sentence pieces"].generate([LONG], BEAMS, max_length=6)
    assert whole["texts"] == [[hypothesis.text for hypothesis in expected]]


def test_a_graph_of_a_recurrent_model_accepts_a_batch_without_texts(served):
    found = served[1]["words to characters"][-1]
    assert found == {"texts": [], "log_probs": []}


def test_a_graph_continues_prompts(served, tmp_path):
    pipelines, outputs = served
    writer = pipelines["writer"]
    found, blank, full, nul = outputs["writer"]
    expected = writer.generate(PROMPTS, max_length=16)
    assert [texts[0] for texts in found["texts"]] == expected
    assert blank["texts"] == [writer.generate([""], max_length=16)]
    assert "`prompts` must leave room for a token within 16" in full
    assert "`prompts` must be texts in UTF-8 without a NUL" in nul
    with pytest.raises(ValueError, match="`max_length=16`"):
        writer.export_generation(tmp_path / "writer", max_length=17)


def test_a_graph_returns_the_best_path_of_a_crf(served):
    pipelines, outputs = served
    [found] = outputs["crf"]
    labels = pipelines["crf"].label(TEXTS)
    for row, shares, expected in zip(
        found["labels"], found["probabilities"], labels, strict=True
    ):
        assert [name for name in row if name] == [label.name for label in expected]
        probabilities = np.array([label.probabilities for label in expected])
        assert_close(np.array(shares)[: len(expected)], probabilities)


def test_a_graph_labels_texts(served):
    pipelines, outputs = served
    [found] = outputs["classifier"]
    expected = pipelines["classifier"].label(TEXTS)
    assert found["labels"] == [label.name for label in expected]
    probabilities = np.array([label.probabilities for label in expected])
    assert_close(np.array(found["probabilities"]), probabilities)


@pytest.mark.parametrize("name", TAGGERS)
def test_a_graph_labels_words_and_returns_their_offsets(name, served):
    pipelines, outputs = served
    [found], split = outputs[name], TAGGERS[name][0]
    texts = TAGGED if split else ROWS
    has_places = name in ("words", "characters")
    for row, labels in enumerate(pipelines[name].label(texts)):
        assert [n for n in found["labels"][row] if n] == [
            label.name for label in labels
        ]
        probabilities = found["probabilities"][row]
        expected = np.array([label.probabilities for label in labels])
        assert_close(np.array(probabilities[: len(labels)]), expected)
        assert not np.any(probabilities[len(labels) :])
        if has_places:
            words = texts[row].split() if split == "word" else list(texts[row])
            assert [word for word in found["words"][row] if word] == words
            places = found["offsets"][row][: len(words)]
            assert [texts[row][first:last] for first, last in places] == words
    assert ("words" in found) == ("offsets" in found) == has_places


@pytest.mark.parametrize("split", SPLITS)
def test_detokenize_in_a_graph_equals_decode(split):
    import tensorflow as tf

    random = np.random.default_rng(3)
    for form in (None, "NFD", "NFKC"):
        vocabulary = vocabulary_of(split, form)
        ids = random.integers(0, vocabulary.size, (200, 23))
        ids[:150] = np.where(ids[:150] == 3, 1, ids[:150])
        for row, known in zip(ids, vocabulary.encode(TEXTS), strict=False):
            row[: len(known)] = known[:23]
        last = random.integers(vocabulary.size * 2 // 3, vocabulary.size, (50, 23))
        ids = np.concatenate([ids, last]).astype("int32")
        texts = tf.function(vocabulary.detokenize)(tf.constant(ids))
        assert [text.decode() for text in texts.numpy()] == vocabulary.decode(ids)
        assert vocabulary.detokenize(tf.zeros((0, 3), "int32")).shape == (0,)
        assert vocabulary.detokenize(tf.zeros((2, 0), "int32")).shape == (2,)


def export_translator(path):
    pipeline = translator_of(vocabulary_of("byte"), vocabulary_of("byte"))
    pipeline.export_generation(path, max_length=2)


def export_classifier(path):
    model = kseq.many_to_one(vocabulary_of("byte").size, 2, "rnn", width=3)
    TextToLabels(model, vocabulary_of("byte"), ["bad", "good"]).export_labels(path)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it exports")
@pytest.mark.parametrize("export", [export_translator, export_classifier])
def test_a_failed_export_leaves_an_earlier_one_unchanged(export, tmp_path, monkeypatch):
    path = tmp_path / "graph"
    path.mkdir()
    (path / "saved_model.pb").write_text("earlier")

    def fails(self, path, *args, **options):
        raise OSError("no room")

    monkeypatch.setattr(type(keras.export.ExportArchive()), "write_out", fails)
    with pytest.raises(OSError, match="no room"):
        export(path)
    assert (path / "saved_model.pb").read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]
    assert len(list(path.iterdir())) == 1


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it exports")
def test_rejects_a_path_that_ends_like_a_file_of_another_format(tmp_path):
    pipeline = translator_of(vocabulary_of("byte"), vocabulary_of("byte"))
    with pytest.raises(ValueError, match="SavedModel, which is a folder.*writer.onnx"):
        pipeline.export_generation(tmp_path / "writer.onnx")


def test_rejects_exports_of_vocabularies_without_a_split(tmp_path):
    symbols = vocabulary_of(None)
    translator = translator_of(symbols, symbols)
    with pytest.raises(ValueError, match="needs a `split`"):
        translator.export_generation(tmp_path / "writer")
    with pytest.raises(ValueError, match="needs a `split`"):
        symbols.detokenize([[4]])


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow can")
def test_other_backends_do_not_export(tmp_path):
    letters = vocabulary_of("jamo")
    translator = translator_of(letters, letters)
    labels = TextToLabels(
        kseq.many_to_one(letters.size, 2, width=3), letters, ["a", "b"]
    )
    for export in (translator.export_generation, labels.export_labels):
        with pytest.raises(ValueError, match="KERAS_BACKEND=tensorflow"):
            export(tmp_path / "writer")
