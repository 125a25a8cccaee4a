"""Callbacks for Keras' `fit`: keep the best model, and stop when asked to."""

import json
import math
import os
import pathlib
import signal
import threading
import zipfile

import keras

from kseq.training.directions import known_direction


class SaveBest(keras.callbacks.Callback):
    """Keeps the best model of a training: on disk, and in memory when it ends.

    After each epoch in which the monitored value has become better, the model is
    written to a file beside `path` and moved there when it is complete, so at any
    moment the file holds a whole model. When training ends, the model has the weights
    of its best epoch again. Of epochs that are equally good the first is kept, which
    has had the least time to learn by heart: where a value is coarse, such as the
    accuracy on few rows, watch a loss. An epoch whose loss is not a number is no
    candidate, and ends the training: its weights are lost.

    The file says what it is worth. A training that goes on, with an `initial_epoch`
    above 0, writes only what is better than the file, and ends with the weights of the
    file where nothing was. A training from epoch 0 begins anew, and so does one that
    goes on beside a file that another callback wrote or that has another `monitor`:
    before such a training writes its first epoch, the file of before is renamed, to
    `model-1.keras` or the next free number, so that nothing good is lost to it.

    Args:
        path: Path of the file, ending in `.keras`. Its folder is made if need be.
        monitor: Name of the value to watch, as `fit` reports it.
        mode: `"min"` if the value shall fall, `"max"` if it shall rise. None for what
            is known of the end of its name: `loss`, `error`, `perplexity`,
            `edit_distance_rate`, `ter`, `wer` and `cer` fall; `accuracy`, `f1`,
            `exact_match`, `bleu` and `chrf` rise.
        saved: What to save: a Keras object that holds the model, such as
            `kseq.text.TextToText`. None for the model itself.

    Attributes:
        best: The best value so far, or None.
        best_epoch: Its epoch, counted from 1, or None.

    Raises:
        ValueError: `path` does not end in `.keras`; the mode is neither of these, or
            must be told; `fit` reports no such value; the loss of the first epoch is
            not a number.

    Example:

    >>> import os, pathlib, tempfile
    >>> import keras, numpy as np
    >>> from kseq.training import SaveBest
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     best = SaveBest(pathlib.Path(folder) / "model.keras", monitor="loss")
    ...     data = np.ones((3, 2)), np.ones((3, 1))
    ...     history = model.fit(*data, epochs=2, callbacks=[best], verbose=0)
    ...     os.listdir(folder), best.best_epoch
    (['model.keras'], 2)
    """

    def __init__(self, path, monitor="val_loss", mode=None, saved=None):
        super().__init__()
        self.path = pathlib.Path(path)
        if self.path.suffix != ".keras":
            raise ValueError(f"`path` must end in .keras. Received: path={str(path)!r}")
        self.monitor = monitor
        self.mode = _mode(monitor, mode)
        self.saved = saved
        self.best = None
        self.best_epoch = None
        self._weights = None
        self._begins = True
        self._owns_file = False

    def on_train_begin(self, logs=None):
        self.best = self.best_epoch = self._weights = None
        self._begins = True
        self._owns_file = False

    def on_epoch_begin(self, epoch, logs=None):
        if self._begins and epoch:
            self.best, self.best_epoch = self._worth()
            self._owns_file = self.best is not None
        self._begins = False

    def on_epoch_end(self, epoch, logs=None):
        if self.monitor not in (logs or {}):
            raise ValueError(
                f"`monitor` must be a value that `fit` reports: {sorted(logs or {})}. "
                f"Received: monitor={self.monitor!r}. A value that begins with val_ "
                "needs `validation_data`."
            )
        value = float(logs[self.monitor])
        losses = {name: x for name, x in logs.items() if name.endswith("loss")}
        if not all(map(math.isfinite, losses.values())):
            return self._give_up(epoch, losses)
        if not self._is_better(value):
            return
        self.best, self.best_epoch = value, epoch + 1
        self._weights = self.model.get_weights()
        self._save()

    def on_train_end(self, logs=None):
        if self._weights is not None:
            self.model.set_weights(self._weights)
            self._weights = None
        elif self.best is not None and hasattr(self._whole, "load_weights"):
            self._whole.load_weights(self.path)

    def _give_up(self, epoch, losses):
        self.model.stop_training = True
        if self.best is None:
            raise ValueError(
                "The loss must be a finite number, or nothing is learned. Received "
                f"after epoch {epoch + 1}: {losses}. Lower the learning rate, give the "
                "optimizer a `global_clipnorm`, or look for NaN in the data."
            )

    def _is_better(self, value):
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        return value < self.best if self.mode == "min" else value > self.best

    def _save(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f".{os.getpid()}-{self.path.name}")
        try:
            self._whole.save(unfinished)
            self._note_worth(unfinished)
            if not self._owns_file:
                self._set_aside()
            unfinished.replace(self.path)
            self._owns_file = True
        finally:
            unfinished.unlink(missing_ok=True)

    def _set_aside(self):
        """Renames the file of an earlier training, which may be better."""
        if not self.path.exists():
            return
        number = 1
        while (other := self.path.with_stem(f"{self.path.stem}-{number}")).exists():
            number += 1
        self.path.rename(other)
        if self.params.get("verbose"):
            print(f"\n{self.path} of an earlier training is {other.name} now.")

    @property
    def _whole(self):
        return self.model if self.saved is None else self.saved

    def _note_worth(self, path):
        """Writes what the file is worth into the comment of its archive."""
        worth = {"monitor": self.monitor, "best": self.best, "epoch": self.best_epoch}
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path, "a") as archive:
                archive.comment = json.dumps(worth).encode()

    def _worth(self):
        """The best value in the file and its epoch, or None for both."""
        if not zipfile.is_zipfile(self.path):
            return None, None
        with zipfile.ZipFile(self.path) as archive:
            try:
                worth = json.loads(archive.comment)
                known = worth["monitor"] == self.monitor
                return (worth["best"], worth["epoch"]) if known else (None, None)
            except (ValueError, KeyError, TypeError):
                return None, None


def _mode(monitor, mode):
    found = known_direction(monitor) if mode is None else mode
    if found in ("min", "max"):
        return found
    raise ValueError(
        '`mode` must be "min" or "max", and may be None for a value that is known to '
        f"fall or rise. Received: mode={mode!r}, monitor={monitor!r}. Pass "
        'mode="max" if more of it is better.'
    )


class StopOnInterrupt(keras.callbacks.Callback):
    """Lets Ctrl-C end training after the current batch, with everything in order.

    The epoch is then closed as always: validation runs, callbacks such as `SaveBest`
    see its results, and `fit` returns its history. A second Ctrl-C interrupts at once.
    Outside the main thread, where Python delivers no signals, it does nothing.

    Args:
        verbose: 1 to print in which epoch training was ended, 0 to be silent.

    Attributes:
        interrupted: Whether Ctrl-C has ended the last training.

    Example:

    >>> import os, signal
    >>> import keras, numpy as np
    >>> from kseq.training import StopOnInterrupt
    >>> class PressControlC(keras.callbacks.Callback):
    ...     def on_train_batch_end(self, batch, logs=None):
    ...         os.kill(os.getpid(), signal.SIGINT)
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> stop = StopOnInterrupt()
    >>> history = model.fit(np.ones((3, 2)), np.ones((3, 1)), epochs=9, verbose=0,
    ...                     callbacks=[stop, PressControlC()])
    <BLANKLINE>
    Ctrl-C has ended the training in epoch 1 of 9.
    >>> len(history.epoch), stop.interrupted
    (1, True)
    """

    def __init__(self, verbose=1):
        super().__init__()
        self.verbose = verbose
        self.interrupted = False
        self._before = None
        self._epoch = 0

    def on_train_begin(self, logs=None):
        self.interrupted = False
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._stop)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1

    def on_train_end(self, logs=None):
        self._restore()
        if self.interrupted and self.verbose:
            epochs = f"epoch {self._epoch} of {self.params['epochs']}"
            print(f"\nCtrl-C has ended the training in {epochs}.")

    def _stop(self, number, frame):
        before = self._before
        self._restore()
        if _is_inside_fit(frame, self.model):
            self.interrupted = True
            self.model.stop_training = True
        elif callable(before):  # an error has ended `fit` before this could be undone
            before(number, frame)

    def _restore(self):
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None


def _is_inside_fit(frame, model):
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return True
        frame = frame.f_back
    return False
