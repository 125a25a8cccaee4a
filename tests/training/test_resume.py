"""Resumed training, equal to an uninterrupted one to the last bit."""

import contextlib
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from kseq.training import (
    Resume,
    SaveBest,
    StopOnInterrupt,
    TokenDropout,
    batches,
)

ROOT = pathlib.Path(__file__).parents[2]
IDS = [[5 + i % 7, 6, 5, 8][: 1 + i % 4] for i in range(29)]


class Killed(Exception):
    pass


def raise_killed():
    raise Killed


class CallAtStep(keras.callbacks.Callback):
    """A callback that calls a function before one of the steps."""

    def __init__(self, step, function):
        super().__init__()
        self.step, self.function = step, function
        self.steps = itertools.count()  # not a plain value, so Resume does not save it

    def on_train_batch_begin(self, batch, logs=None):
        if next(self.steps) == self.step:
            self.function()


def data():
    return TokenDropout(batches(IDS, [i % 3 for i in range(29)], batch_tokens=16), 0.2)


def model(seed):
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(13, 5),
            layers.Dropout(0.4),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"])
    return model


def train(directory, step=None, seed=1, function=raise_killed, epochs=3, **options):
    """Return weights, history and first callback of a training, or None if killed."""
    callbacks = [
        keras.callbacks.EarlyStopping("loss", patience=2, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("accuracy", patience=0, min_delta=0.5),
        SaveBest(f"{directory}/best.keras", "loss"),
        StopOnInterrupt(verbose=0),
        CallAtStep(step, function),
        Resume(directory, **options),
    ]
    trained = model(seed)
    try:
        history = trained.fit(
            data(),
            validation_data=data(),
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )
    except Killed:
        return None
    return trained.get_weights(), history.history, callbacks[0]


def assert_same(actual, expected):
    for weights, expected_weights in zip(actual[0], expected[0], strict=True):
        np.testing.assert_array_equal(weights, expected_weights)
    assert actual[1] == expected[1]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return train(tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.parametrize(
    ("kills", "seconds"),
    [([1], 0), ([len(data()) + 2, 1, 2], 0), ([len(data())], 0), ([4], 300)],
    ids=["first epoch", "again and again", "between epochs", "nothing saved"],
)
def test_killed_training_ends_with_the_same_weights(
    kills, seconds, reference, tmp_path
):
    for number, kill in enumerate(kills):
        # Another seed, because everything that matters comes from the file.
        assert train(tmp_path, kill, seed=1 + number, seconds=seconds) is None
    ended = train(tmp_path, seed=7, seconds=seconds)
    assert_same(ended, reference)
    assert ended[2].best == reference[2].best
    assert_same(train(tmp_path, seed=9), reference)  # already finished


def test_interrupted_training_resumes_at_the_same_batch(reference, tmp_path):
    def press_ctrl_c():
        os.kill(os.getpid(), signal.SIGINT)

    stopped = train(tmp_path, 2, function=press_ctrl_c)
    assert len(stopped[1]["loss"]) == 1
    assert_same(train(tmp_path, seed=5), reference)


def test_number_of_epochs_can_be_raised(tmp_path):
    train(tmp_path / "few", epochs=1)
    losses = train(tmp_path / "few", epochs=2)[1]["loss"]
    assert len(losses) == 2 and losses == train(tmp_path / "more", epochs=2)[1]["loss"]


def test_resumed_epoch_has_metrics_of_all_its_batches_and_no_warning(tmp_path):
    def fit(step):
        trained = model(3)
        seen = []
        log = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(float(logs["loss"]))
        )
        callbacks = [
            log,
            CallAtStep(step, raise_killed),
            Resume(tmp_path / "a", seconds=0),
        ]
        with contextlib.suppress(Killed):
            trained.fit(data(), epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
        return seen

    first, second = fit(len(data()) + 2), fit(None)
    assert len(first) + len(second) == 2 * len(data())
    uninterrupted = model(3)
    uninterrupted.fit(data(), epochs=2, shuffle=False, verbose=0)
    history = uninterrupted.history.history["loss"]
    np.testing.assert_allclose(second[-1], history[-1], rtol=1e-6)


def test_rejects_a_directory_of_another_training(tmp_path):
    def fit(trained, *others):
        callbacks = [*others, Resume(tmp_path)]
        trained.fit(data(), shuffle=False, verbose=0, callbacks=callbacks)

    fit(model(1))
    wider = keras.Sequential([keras.Input((None,)), keras.layers.Embedding(13, 3)])
    wider.add(keras.layers.GlobalAveragePooling1D())
    wider.compile("adam", "sparse_categorical_crossentropy")
    for wrong in ([wider], [model(1), keras.callbacks.TerminateOnNaN()]):
        with pytest.raises(ValueError, match="must be new or belong to the same"):
            fit(*wrong)


SCRIPT = """
import json, os, signal, sys
from tests.training.test_resume import train
directory, step = sys.argv[1], int(sys.argv[2])
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
weights, history, _ = train(directory, step, seed=2, function=kill, seconds=0)
print(json.dumps([[each.tolist() for each in weights], history]))
"""


@pytest.mark.thorough
def test_training_resumes_after_kill_9(tmp_path):
    def run(step, directory=tmp_path / "killed"):
        command = [sys.executable, "-c", SCRIPT, str(directory), str(step)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert run(5).returncode == run(4).returncode == -signal.SIGKILL
    killed, uninterrupted = run(-1), run(-1, tmp_path / "uninterrupted")
    assert json.loads(killed.stdout) == json.loads(uninterrupted.stdout)
