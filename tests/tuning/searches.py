"""Small spaces for the tests of searches, in a module that trials can import.

Run as a program, it performs one search, for tests that kill it.
"""

import os
import signal
import sys
import time
from pathlib import Path

import keras
import keras_tuner
import numpy as np

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(37, 5)).astype("float32")
Y = X @ RANDOM.normal(size=(5, 1)).astype("float32")


class Small(keras_tuner.HyperModel):
    """A network of one or two layers, whose width is active if there are two."""

    def build(self, hp):
        layers = [keras.layers.Input((5,)), keras.layers.Dropout(0.1)]
        deep = hp.Boolean("deep")
        with hp.conditional_scope("deep", [True]):
            units = hp.Int("units", 2, 7)
            if deep:
                layers.append(keras.layers.Dense(units, activation="tanh"))
        model = keras.Sequential([*layers, keras.layers.Dense(1)])
        rate = hp.Float("rate", 1e-3, 1e-1, sampling="log")
        model.compile(keras.optimizers.SGD(rate), "mse", run_eagerly=True)
        return model


class Measured(Small):
    """The same network, compiled with a metric."""

    def build(self, hp):
        model = super().build(hp)
        model.compile(model.optimizer, "mse", metrics=["mae"], run_eagerly=True)
        return model


class Dying(Small):
    """A network that kills its process once, in the third epoch of a trial."""

    def __init__(self, marker):
        super().__init__()
        self.marker = marker

    def fit(self, hp, model, *args, **kwargs):
        kwargs["callbacks"] = [KillOnce(self.marker)]
        return super().fit(hp, model, *args, **kwargs)


class KillOnce(keras.callbacks.Callback):
    def __init__(self, marker):
        super().__init__()
        self.marker = Path(marker)

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2 and self.marker.with_suffix(".first").exists():
            if not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        self.marker.with_suffix(".first").touch()


class Waiting(Small):
    """A network that waits in the third epoch of each trial for the file `go`."""

    def __init__(self, directory):
        super().__init__()
        self.directory = Path(directory)

    def fit(self, hp, model, *args, **kwargs):
        kwargs["callbacks"] = [Wait(self.directory)]
        return super().fit(hp, model, *args, **kwargs)


class Wait(keras.callbacks.Callback):
    def __init__(self, directory):
        super().__init__()
        self.directory = directory

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2 and not (self.directory / "go").exists():
            (self.directory / "pid").write_text(str(os.getpid()))
            while not (self.directory / "go").exists():
                time.sleep(0.05)


class Failing(keras_tuner.HyperModel):
    """A network whose one hyperparameter selects how it fails."""

    def build(self, hp):
        how = hp.Choice("how", ["fine", "nan", "raise", "exit", "kill", "late"])
        if how == "raise":
            raise MemoryError("no room for it")
        inputs = keras.Input((5,))
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
        model.compile("sgd", "mse", run_eagerly=True)
        return model

    def fit(self, hp, model, *args, **kwargs):
        how = hp.get("how")
        if how == "exit":
            os._exit(3)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGSEGV)
        if how == "late":
            signal.pause()
        return float("nan") if how == "nan" else 0.5


class Phases(Small):
    """A network that trains in two phases, of which the second makes it worse."""

    def __init__(self, reported="first"):
        super().__init__()
        self.reported = reported

    def fit(self, hp, model, *args, **kwargs):
        first = model.fit(*args, **kwargs)
        model.optimizer.learning_rate = 3.0
        second = model.fit(*args, **kwargs)
        results = {"first": first, "second": second}
        return results.get(self.reported, min(first.history["val_loss"]))


class Folds(Small):
    """A network that trains a new model for each fold, not the one from `build`."""

    def fit(self, hp, model, x, y, **kwargs):
        scores = []
        for fold in range(2):
            one = self.build(hp)
            history = one.fit(x[fold::2], y[fold::2], **kwargs)
            scores.append(min(history.history["val_loss"]))
        return sum(scores) / len(scores)


class CustomLoop(Small):
    """A network with a custom training loop, whose score no epoch reports."""

    def fit(self, hp, model, x, y, callbacks=None, **kwargs):
        for callback in callbacks:
            callback.set_model(model)
        for _ in range(3):
            model.train_on_batch(x, y)
        return {"val_loss": float(model.evaluate(x, y, verbose=0))}


class OnlyInFit(keras_tuner.HyperModel):
    """A network with hyperparameters only in `fit`."""

    def build(self, hp):
        model = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=True)
        return model

    def fit(self, hp, model, *args, **kwargs):
        kwargs["batch_size"] = hp.Choice("batch_size", [5, 7, 11, 13])
        if hp.Boolean("long"):
            kwargs["epochs"] = 3
        return model.fit(*args, **kwargs)


class Instant(keras_tuner.HyperModel):
    """A network without training, whose score is computed from its hyperparameter."""

    def build(self, hp):
        hp.Float("x", -1, 1)
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    def fit(self, hp, model, *args, **kwargs):
        return {"val_loss": hp.get("x") ** 2}


def settings(directory):
    """Return the arguments of a search, the same whether it is killed or not."""
    data = {"validation_data": (X, Y), "epochs": 4, "batch_size": 8}
    return {
        "max_trials": 3,
        "seed": 3,
        "directory": directory,
        "verbose": False,
        **data,
    }


if __name__ == "__main__":
    from kseq.tuning.search import search
    from tests.tuning.searches import Waiting

    [directory, waiting] = sys.argv[1:]
    search(Waiting(waiting), (X, Y), **settings(directory))
