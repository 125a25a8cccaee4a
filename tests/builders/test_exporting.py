"""Exported searches, run in a process that cannot import kseq."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import (
    BeamSearch,
    GreedySearch,
    MinimumLength,
    NoRepeatNGrams,
    RepetitionPenalty,
    Sampling,
)
from kseq.layers import FeatureEmbedding, RecurrentDecoder, RecurrentEncoder
from tests.helpers import assert_close, random_array, randomize

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow exports"
)
ROOT = Path(__file__).parents[2]
TARGET_SIZE, LENGTH = 7, 6
SOURCE = np.array(
    [[4, 5, 6, 7, 3, 0, 0, 0], [8] + [0] * 7, [9, 10, 4, 2, 2, 2, 3, 5], [0] * 8],
    "int32",
)
NEEDS = {"onnx": "tf2onnx"}
SUFFIXES = {"tf_saved_model": "", "onnx": ".onnx", "litert": ".tflite"}

RUN = """
import json, sys
sys.modules["kseq"] = None  # so that an import of it fails
import numpy as np

def arrays(values):
    kinds = {k: "float32" if "." in str(v) else "int32" for k, v in values.items()}
    return {name: np.array(value, kinds[name]) for name, value in values.items()}

path, calls = sys.argv[1], map(arrays, json.loads(sys.argv[2]))
if path.endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    serve = lambda **inputs: dict(zip(names, session.run(None, inputs), strict=True))
elif path.endswith(".tflite"):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tensorflow.lite.python.interpreter import Interpreter
    serve = Interpreter(path).get_signature_runner()
else:
    import tensorflow as tf
    module = tf.saved_model.load(path)
    serve = lambda **inputs: {k: v.numpy() for k, v in module.serve(inputs).items()}
try:
    import kseq
except ImportError:
    for inputs in calls:
        outputs = serve(**inputs)
        print(json.dumps({name: value.tolist() for name, value in outputs.items()}))
"""


def run(path, *calls):
    """Return the outputs of an exported file for each call, from a new process."""
    lists = [{name: value.tolist() for name, value in c.items()} for c in calls]
    command = [sys.executable, "-c", RUN, str(path), json.dumps(lists)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[-len(calls) :]
    return [{k: np.array(v) for k, v in json.loads(line).items()} for line in lines]


def recurrent():
    """Build a model so wide that XLA would compile its loops outside of an export."""
    return kseq.encoder_decoder(
        11,
        TARGET_SIZE,
        RecurrentEncoder("gru", 32, bidirectional=True),
        RecurrentDecoder("lstm", 32, attention="bahdanau"),
        width=8,
    )


def transformer():
    return kseq.encoder_decoder(11, TARGET_SIZE, "transformer", "transformer", width=8)


def aligned(attention):
    return kseq.encoder_decoder(
        11,
        TARGET_SIZE,
        RecurrentEncoder("gru", 32, bidirectional=True),
        RecurrentDecoder("gru", 32, attention=attention),
        width=8,
    )


MODELS = {
    "recurrent": recurrent,
    "transformer": transformer,
    "location": lambda: aligned("location"),
    "monotonic": lambda: aligned("monotonic"),
    "local": lambda: aligned("local"),
}


def custom_constraint(log_probs, hypotheses):
    """Scale the log-probabilities of odd tokens, some of which are impossible."""
    is_odd = keras.ops.arange(log_probs.shape[-1]) % 2 == 1
    return keras.ops.where(is_odd, 1.5 * log_probs, log_probs)


CONSTRAINTS = [
    MinimumLength(3),
    NoRepeatNGrams(2),
    RepetitionPenalty(1.3),
    custom_constraint,
]
SEARCHES = {
    "greedy": GreedySearch(),
    "beams": BeamSearch(3, 0.6, constraints=CONSTRAINTS),
}


def randomized(model):
    randomize(model)
    for weight in model.weights:
        weight.assign(2.5 * weight)
    model.head.bias.assign(1.2 * (np.arange(TARGET_SIZE) == 3))
    return model


def exported(model, folder, search, format, **shapes):
    if format in NEEDS:
        pytest.importorskip(NEEDS[format])
        pytest.importorskip("onnxruntime")
    path = folder / f"writer{SUFFIXES[format]}"
    model.export_generation(path, search, LENGTH, format, **shapes)
    return path


def assert_same_generation(outputs, result):
    expected = {k: v for k, v in vars(result).items() if v is not None}
    assert outputs.keys() == expected.keys()
    for name in ("token_ids", "lengths", "ended"):
        np.testing.assert_array_equal(outputs[name], expected[name])
    for name in ("log_probs", "token_log_probs"):
        assert_close(outputs[name], expected[name])


@pytest.mark.thorough(all_but=1)
@on_tensorflow
@pytest.mark.parametrize(
    "kind, search, format",
    [
        ("transformer", "greedy", "tf_saved_model"),
        ("recurrent", "beams", "tf_saved_model"),
        ("recurrent", "beams", "onnx"),
        ("transformer", "beams", "onnx"),
        ("transformer", "beams", "litert"),
        ("recurrent", "greedy", "litert"),
        ("location", "beams", "onnx"),
        ("location", "greedy", "litert"),
        ("monotonic", "beams", "onnx"),
        ("monotonic", "greedy", "tf_saved_model"),
        ("local", "beams", "onnx"),
    ],
)
def test_exported_files_match_generate(kind, search, format, tmp_path):
    model, search = randomized(MODELS[kind]()), SEARCHES[search]
    shapes = {"source_shape": (4, 8)} if format == "litert" else {}
    path = exported(model, tmp_path, search, format, **shapes)
    result = model.generate(SOURCE, search, LENGTH)
    assert len(np.unique(result.token_ids[:, 0], axis=0)) > 1
    few = SOURCE[:2, :5]
    if format == "litert":
        assert b"Flex" not in path.read_bytes(), "runs without TensorFlow"
        few = SOURCE[::-1]  # other formats take any number of rows and steps
    outputs = run(path, {"source": SOURCE}, {"source": few})
    assert_same_generation(outputs[0], result)
    assert_same_generation(outputs[1], model.generate(few, search, LENGTH))


@pytest.mark.thorough
@on_tensorflow
@pytest.mark.parametrize("format", ["tf_saved_model", "onnx", "litert"])
def test_an_exported_language_model_continues_a_prefix(format, tmp_path):
    model = randomized(kseq.one_to_many(TARGET_SIZE, decoder="lstm", width=8))
    shapes = {"prefix_shape": (3, 2)} if format == "litert" else {}
    path = exported(model, tmp_path, BeamSearch(2), format, **shapes)
    prefix = np.array([[4, 5], [6, 0], [0, 0]], "int32")
    result = model.generate(3, BeamSearch(2), LENGTH, prefix=prefix)
    assert (result.token_ids[0, :, :2] == [4, 5]).all()
    assert_same_generation(*run(path, {"prefix": prefix}), result)


@pytest.mark.thorough
@on_tensorflow
def test_exports_a_model_of_series(tmp_path):
    embedding = FeatureEmbedding(2, 4, mask_value=0.0)
    model = randomized(kseq.encoder_decoder(embedding, TARGET_SIZE, width=8))
    series = random_array(3, 5, 2) + 0.01
    series[1, 3:] = 0.0
    path = exported(model, tmp_path, None, "tf_saved_model")
    result = model.generate(series, max_length=LENGTH)
    assert_same_generation(*run(path, {"source": series}), result)


@pytest.mark.thorough
@on_tensorflow
@pytest.mark.parametrize("seed", [None, -3])
def test_exported_sampling_follows_the_seed(seed, tmp_path):
    model = randomized(recurrent())
    search = Sampling(2.0, top_p=0.9, num_draws=3, seed=seed)
    path = exported(model, tmp_path, search, "tf_saved_model")
    seeds = (5, -3)
    arguments = [
        {"seed": np.array([s], "int32")} if seed is None else {} for s in seeds
    ]
    found = run(path, *({"source": SOURCE} | each for each in arguments))
    for given, outputs in zip(seeds, found, strict=True):
        known = Sampling(2.0, top_p=0.9, num_draws=3, seed=seed or given)
        assert_same_generation(outputs, model.generate(SOURCE, known, LENGTH))


# Errors -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return kseq.encoder_decoder(11, TARGET_SIZE, width=4)


@on_tensorflow
@pytest.mark.parametrize(
    "options, message",
    [
        ({"format": "pickle"}, "`format` must be one of"),
        ({"format": "onnx"}, '`path` must end with ".onnx"'),
        ({"path": "writer.onnx"}, 'must be a folder.*Use format="onnx"'),
        ({"path": ""}, "`path` must be a new folder"),
        ({"format": "litert"}, '`path` must end with ".tflite"'),
        ({"format": "onnx", "search": Sampling()}, "A random search .*format=.onnx."),
        (
            {"format": "litert", "search": Sampling()},
            "A random search .*format=.litert.",
        ),
        ({"search": "beam"}, "`search` must be a search object"),
        (
            {"max_length": kseq.decoding.RelativeLength()},
            "`max_length` must be a",
        ),
        ({"source_shape": (3,)}, r"`source_shape` must be a shape like \(None, None\)"),
        ({"source_shape": (3, 2.5)}, "`source_shape` must be"),
        ({"prefix_shape": 3}, "`prefix_shape` must be"),
        ({"path": "a.tflite", "format": "litert"}, "needs every size"),
    ],
)
def test_rejects_unsupported_options(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.export_generation(**{"path": "writer", **options})


@on_tensorflow
@pytest.mark.parametrize("format", SUFFIXES)
def test_a_failed_export_leaves_an_earlier_one_unchanged(
    model, format, tmp_path, monkeypatch
):
    path = tmp_path / f"writer{SUFFIXES[format]}"
    if format == "tf_saved_model":
        path.mkdir()
    first = path / "saved_model.pb" if format == "tf_saved_model" else path
    first.write_text("earlier")

    def fails(self, path, *args, **options):
        raise OSError("no room")

    monkeypatch.setattr(keras.Model, "export", fails)
    shapes = {"source_shape": (1, 3)} if format == "litert" else {}
    with pytest.raises(OSError, match="no room"):
        model.export_generation(path, format=format, **shapes)
    assert first.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


@on_tensorflow
def test_error_names_the_missing_converter(model, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"tf2onnx.*pip install kseq\[export\]"):
        model.export_generation("writer.onnx", format="onnx")


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="exports directly")
@pytest.mark.thorough
def test_models_of_other_backends_are_exported_with_tensorflow(model, tmp_path):
    with pytest.raises(
        ValueError, match="Save .*process with KERAS_BACKEND=tensorflow"
    ):
        model.export_generation("writer")
    model.save(tmp_path / "model.keras")
    load = "import keras, kseq; model = keras.saving.load_model('model.keras')"
    done = subprocess.run(
        [sys.executable, "-c", f"{load}; model.export_generation('writer')"],
        cwd=tmp_path,
        env=os.environ | {"KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "writer" / "saved_model.pb").exists(), done.stderr
