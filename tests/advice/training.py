"""Training: bad calls, their advice, and corrected calls."""

import keras
import numpy as np

from kseq.text import Vocabulary
from kseq.training import (
    EditDistanceRate,
    ExactMatch,
    GenerationScores,
    Resume,
    SaveBest,
    SequenceCrossentropy,
    TokenAccuracy,
    TokenDropout,
    Unfreeze,
    batches,
    layout_map,
    teacher_forcing,
    text_scores,
    windows,
)
from tests.helpers import gradient_of_gradient, random_array

X, Y = random_array(7, 2), random_array(7, 1, seed=1)
LARGE = 1e6 * X
NAN = np.where(X == X[0, 0], np.nan, X)
IDS = np.array([[4, 5, 3], [6, 3, 0]])
OTHER_PADDING = np.array([[4, 5, 3], [6, 3, -1]])
LOGITS = random_array(2, 3, 7)
CLASSES = np.array([4, 0])
SOURCE, TARGET = [[4, 5], [6]], [[2, 4, 3], [2, 3]]
TEXT = np.arange(4, 11)


def curvature(loss):
    assert np.abs(gradient_of_gradient(lambda z: loss(IDS, z), LOGITS)).max() > 0


def classify():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert np.isfinite(loss(CLASSES, LOGITS[:, 0]))


def train(x=X, monitor="loss", optimizer="sgd", **options):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", run_eagerly=True)
    best = SaveBest("best.keras", monitor)
    model.fit(x, Y, 1, 2, 0, [best], **options)
    assert np.isfinite(best.best)


def gradient_descent(learning_rate=1e3, **options):
    return keras.optimizers.SGD(learning_rate, **options)


def evaluate_logits(**metrics):
    """Evaluate logits with weights of their tokens."""
    model = keras.Sequential([keras.Input((3, 7)), keras.layers.Identity()])
    model.compile(loss=SequenceCrossentropy(), run_eagerly=True, **metrics)
    return model.evaluate(LOGITS, IDS, sample_weight=np.ones((2, 3)), verbose=0)


def unfreeze(is_frozen):
    first = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((2,)), first, keras.layers.Dense(1)])
    first.trainable = not is_frozen
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[Unfreeze(first, after=1)])
    assert first.trainable


def generation_scores(scores, to_text=None):
    return GenerationScores(SOURCE, TARGET, scores, to_text)


def resume(data=None, after=(), directory="first", **options):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    if data is None:
        data = batches(X, Y[:, 0], batch_size=3)
    callbacks = [Resume(directory), *after]
    options = {"shuffle": False, "verbose": 0} | options
    model.fit(data, callbacks=callbacks, **options)


def resume_another(directory="first"):
    resume()
    resume(batches(X, Y[:, 0], batch_size=2), directory=directory)


def build_layout_map(*axes):
    devices = keras.distribution.list_devices()[:1]
    shape = [1] * len(axes)
    layout_map(keras.distribution.DeviceMesh(shape, list(axes), devices))


ADVICE = {
    "a mesh without an axis for the model": (
        lambda: build_layout_map("batch"),
        'Create the mesh with it: `keras.distribution.DeviceMesh((1, 2), ["batch", '
        '"model"])`.',
        lambda: build_layout_map("batch", "model"),
    ),
    "arrays for a training that resumes": (
        lambda: resume(X),
        "Use `kseq.training.batches`, `teacher_forcing` or `windows`.",
        resume,
    ),
    "batches that are shuffled again": (
        lambda: resume(shuffle=True),
        "Pass `shuffle=False` to `fit`, and `steps` to the data set.",
        lambda: resume(batches(X, Y[:, 0], steps=2, batch_size=3), shuffle=False),
    ),
    "a callback after the last": (
        lambda: resume(after=[keras.callbacks.TerminateOnNaN()]),
        "Move it to the end.",
        resume,
    ),
    "the directory of another training": (
        resume_another,
        "Use another directory for another training.",
        lambda: resume_another("second"),
    ),
    "a row with more tokens than a batch": (
        lambda: batches([[4] * 9, [5]], [0, 1], batch_tokens=8),
        "Use `max_length` to leave out longer rows.",
        lambda: batches([[4] * 9, [5]], [0, 1], batch_tokens=8, max_length=8),
    ),
    "scores of texts without a decoding function": (
        lambda: generation_scores(["bleu"]),
        "Pass a function from token ids to texts, such as a vocabulary's `decode`.",
        lambda: generation_scores(["bleu"], Vocabulary("byte").decode),
    ),
    "a text in place of texts": (
        lambda: text_scores("a dog", ["a dog"]),
        "Wrap it in a list: `[written]`.",
        lambda: text_scores(["a dog"], ["a dog"]),
    ),
    "error rates without a word": (
        lambda: text_scores(["a"], [""], "wer"),
        'Use "exact_match".',
        lambda: text_scores(["a"], [""], "exact_match"),
    ),
    "padding among the tokens of a target": (
        lambda: teacher_forcing(None, [[2, 0, 3]]),
        "If your vocabulary uses this id for a token, pass another `pad_token_id`.",
        lambda: teacher_forcing(None, [[2, 0, 3]], pad_token_id=7)[0],
    ),
    "a monitored value without a mode": (
        lambda: SaveBest("best.keras", "val_score"),
        'Pass mode="max" if higher is better.',
        lambda: SaveBest("best.keras", "val_score", mode="max"),
    ),
    "a value that is not reported": (
        lambda: train(monitor="val_loss"),
        "Names that begin with val_ need `validation_data`.",
        lambda: train(monitor="val_loss", validation_data=(X, Y)),
    ),
    "layers that are not frozen": (
        lambda: unfreeze(is_frozen=False),
        "Set `layer.trainable = False`, and compile again.",
        lambda: unfreeze(is_frozen=True),
    ),
    "a loss that is not finite": (
        lambda: train(LARGE, optimizer=gradient_descent()),
        "Lower the learning rate, pass `global_clipnorm` to the optimizer, or look for "
        "NaN in the data.",
        lambda: (
            train(LARGE, optimizer=gradient_descent(1e-15)),
            train(LARGE, optimizer=gradient_descent(global_clipnorm=1.0)),
        ),
    ),
    "data with NaN": (
        lambda: train(NAN),
        "Lower the learning rate, pass `global_clipnorm` to the optimizer, or look for "
        "NaN in the data.",
        lambda: train(np.nan_to_num(NAN)),
    ),
    "ids for logits": (
        lambda: SequenceCrossentropy()(IDS, IDS),
        "Use `EditDistanceRate` to compare two arrays of token ids, and a loss and "
        "metrics of Keras for one answer per row.",
        lambda: (EditDistanceRate()(IDS, IDS), classify()),
    ),
    "the edit distance of a class": (
        lambda: EditDistanceRate()(CLASSES, LOGITS[:, 0]),
        "Use an accuracy of Keras for one answer per row.",
        lambda: keras.metrics.SparseCategoricalAccuracy()(CLASSES, LOGITS[:, 0]),
    ),
    "a second gradient of a loss": (
        lambda: curvature(SequenceCrossentropy()),
        "Use a loss of Keras: `keras.losses.SparseCategoricalCrossentropy("
        "from_logits=True, ignore_class=0)`.",
        lambda: curvature(
            keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
        ),
    ),
    "ids beyond the logits": (
        lambda: SequenceCrossentropy()(OTHER_PADDING, LOGITS),
        "Encode it with the vocabulary that the model was made for. If padding has "
        "another id, pass it: `SequenceCrossentropy(pad_token_id=...)`.",
        lambda: (
            SequenceCrossentropy()(IDS, LOGITS),
            SequenceCrossentropy(pad_token_id=-1)(OTHER_PADDING, LOGITS),
        ),
    ),
    "weights of tokens for whole sequences": (
        lambda: evaluate_logits(weighted_metrics=[ExactMatch()]),
        "Use `TokenAccuracy` with weights of tokens; pass this metric under `metrics`, "
        "not `weighted_metrics`.",
        lambda: (
            evaluate_logits(weighted_metrics=[TokenAccuracy()]),
            evaluate_logits(metrics=[ExactMatch()], weighted_metrics=[]),
        ),
    ),
    "the weight of padding": (
        lambda: teacher_forcing(SOURCE, TARGET, class_weight={0: 0.0, 4: 2.0})[0],
        "Leave the padding out.",
        lambda: teacher_forcing(SOURCE, TARGET, class_weight={4: 2.0})[0],
    ),
    "a target of one token": (
        lambda: teacher_forcing(SOURCE, [[4], [5]]),
        "Add the start and end tokens to every target.",
        lambda: teacher_forcing(SOURCE, [[2, 4, 3], [2, 5, 3]])[0],
    ),
    "a row of labels shorter than its steps": (
        lambda: batches([[4, 5, 6]], [[1, 2]]),
        "Each token needs a label: is a label missing, or does a word contain a space? "
        "Only rows of labels for CTC may be shorter: pass `aligned=False`.",
        lambda: (
            batches([[4, 5, 6]], [[1, 2, 1]])[0],
            batches([[4, 5, 6]], [[1, 2]], aligned=False)[0],
        ),
    ),
    "the class weight of a number": (
        lambda: batches(SOURCE, [0.5, 1.5], class_weight={0: 2.0}),
        "Use `sample_weight`.",
        lambda: batches(SOURCE, [0.5, 1.5], sample_weight=[2.0, 1.0])[0],
    ),
    "steps of a whole text": (
        lambda: windows(TEXT, 3, shuffle=False, steps=5),
        "Leave `steps` out, or use `shuffle=True`.",
        lambda: (windows(TEXT, 3, shuffle=False)[0], windows(TEXT, 3, steps=5)[0]),
    ),
    "token dropout of several inputs": (
        lambda: TokenDropout(teacher_forcing([[4]], [[2, 3]]), 0.5)[0],
        'If there are several inputs, name one: `name="target"`.',
        lambda: TokenDropout(teacher_forcing([[4]], [[2, 3]]), 0.5, name="target")[0],
    ),
}
