"""Callbacks for Keras' `fit`: save the best model, and stop on Ctrl-C."""

import json
import math
import os
import pathlib
import signal
import threading
import zipfile
from types import FrameType
from typing import Any, Literal

import keras

from kseq.training.directions import known_direction
from kseq.typing import PathLike


class SaveBest(keras.callbacks.Callback):
    """A callback that saves the best model, and restores its weights at the end.

    After each epoch that improves the monitored value, the model is saved to a
    temporary file beside `path`, which replaces `path` when it is complete. So the file
    is a complete model at any time. When training ends, the model has the weights of
    its best epoch. Of equally good epochs, the first is kept, because it has overfitted
    least; monitor a loss if the value is coarse, such as the accuracy on few rows. An
    epoch with a loss of NaN or infinity is never saved and ends the training, because
    its weights are unusable.

    The file records its value. A training that continues, with an `initial_epoch` above
    0, only writes what is better than the file. If no epoch is better, it ends with the
    weights of the file. A training from epoch 0 starts over. So does one that continues
    with a file that another callback wrote or that has another `monitor`. Before such a
    training saves its first epoch, it renames the old file to `model-1.keras` or the
    next free number, so that no good model is lost.

    Args:
        path: Path of the file, ending in `.keras`. Its folder is created if needed.
        monitor: Name of the value to monitor, as `fit` reports it.
        mode: `"min"` if lower is better, `"max"` if higher is better. None to derive it
            from the end of the name: `loss`, `error`, `perplexity`, `crps`,
            `edit_distance_rate`, `ter`, `wer` and `cer` are `"min"`; `accuracy`, `f1`,
            `exact_match`, `bleu` and `chrf` are `"max"`.
        saved: The object to save: a Keras object that contains the model, such as
            `kseq.text.TextToText`. None for the model itself.

    Attributes:
        best: The best value so far, or None.
        best_epoch: The epoch of the best value, counted from 1, or None.

    Raises:
        ValueError: `path` does not end in `.keras`; `mode` is invalid, or None for an
            unknown name; `fit` does not report the value; the loss of the first epoch
            is not finite.

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

    def __init__(
        self,
        path: PathLike,
        monitor: str = "val_loss",
        mode: Literal["min", "max"] | None = None,
        saved: Any = None,
    ) -> None:
        super().__init__()
        self.path = pathlib.Path(path)
        if self.path.suffix != ".keras":
            raise ValueError(f"`path` must end in .keras. Received: path={str(path)!r}")
        self.monitor = monitor
        self.mode = _mode(monitor, mode)
        self.saved = saved
        self.best: float | None = None
        self.best_epoch: int | None = None
        self._weights: list[Any] | None = None
        self._begins = True
        self._owns_file = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.best = self.best_epoch = self._weights = None
        self._begins = True
        self._owns_file = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._begins and epoch:
            self.best, self.best_epoch = self._worth()
            self._owns_file = self.best is not None
        self._begins = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None or self.monitor not in logs:
            raise ValueError(
                f"`monitor` must be a value that `fit` reports: {sorted(logs or {})}. "
                f"Received: monitor={self.monitor!r}. Names that begin with val_ need "
                "`validation_data`."
            )
        value = float(logs[self.monitor])
        losses = {name: x for name, x in logs.items() if name.endswith("loss")}
        if not all(map(math.isfinite, losses.values())):
            self._give_up(epoch, losses)
            return
        if not self._is_better(value):
            return
        self.best, self.best_epoch = value, epoch + 1
        self._weights = self.model.get_weights()
        self._save()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._weights is not None:
            self.model.set_weights(self._weights)
            self._weights = None
        elif self.best is not None and hasattr(self._whole, "load_weights"):
            self._whole.load_weights(self.path)

    def _give_up(self, epoch: int, losses: dict[str, Any]) -> None:
        self.model.stop_training = True
        if self.best is None:
            raise ValueError(
                "The loss must be a finite number, or nothing is learned. Received "
                f"after epoch {epoch + 1}: {losses}. Lower the learning rate, pass "
                "`global_clipnorm` to the optimizer, or look for NaN in the data."
            )

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        return value < self.best if self.mode == "min" else value > self.best

    def _save(self) -> None:
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

    def _set_aside(self) -> None:
        """Rename the file of an earlier training, which may be better."""
        if not self.path.exists():
            return
        number = 1
        while (other := self.path.with_stem(f"{self.path.stem}-{number}")).exists():
            number += 1
        self.path.rename(other)
        if self.params.get("verbose"):
            print(f"\n{self.path} of an earlier training was renamed to {other.name}.")

    @property
    def _whole(self) -> Any:
        return self.model if self.saved is None else self.saved

    def _note_worth(self, path: pathlib.Path) -> None:
        """Write the best value and its epoch into the comment of the archive."""
        worth = {"monitor": self.monitor, "best": self.best, "epoch": self.best_epoch}
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path, "a") as archive:
                archive.comment = json.dumps(worth).encode()

    def _worth(self) -> tuple[float | None, int | None]:
        """Return the best value in the file and its epoch, or None for both."""
        if not zipfile.is_zipfile(self.path):
            return None, None
        with zipfile.ZipFile(self.path) as archive:
            try:
                worth = json.loads(archive.comment)
                known = worth["monitor"] == self.monitor
                return (worth["best"], worth["epoch"]) if known else (None, None)
            except (ValueError, KeyError, TypeError):
                return None, None


def _mode(monitor: str, mode: str | None) -> str:
    found = known_direction(monitor) if mode is None else mode
    if found in ("min", "max"):
        return found
    raise ValueError(
        '`mode` must be "min" or "max", or None for a name whose direction is known. '
        f"Received: mode={mode!r}, monitor={monitor!r}. Pass "
        'mode="max" if higher is better.'
    )


class StopOnInterrupt(keras.callbacks.Callback):
    """A callback that lets Ctrl-C end training cleanly after the current batch.

    The epoch is completed as usual: validation runs, callbacks such as `SaveBest` see
    its results, and `fit` returns its history. A second Ctrl-C interrupts at once. The
    callback does nothing outside the main thread, where Python delivers no signals.

    Args:
        verbose: 1 to print the epoch in which training was stopped, 0 to be silent.

    Attributes:
        interrupted: Whether Ctrl-C stopped the last training.

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
    Ctrl-C stopped the training in epoch 1 of 9.
    >>> len(history.epoch), stop.interrupted
    (1, True)
    """

    def __init__(self, verbose: int = 1) -> None:
        super().__init__()
        self.verbose = verbose
        self.interrupted = False
        self._before: Any = None
        self._epoch = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.interrupted = False
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._stop)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch + 1

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._restore()
        if self.interrupted and self.verbose:
            epochs = f"epoch {self._epoch} of {self.params['epochs']}"
            print(f"\nCtrl-C stopped the training in {epochs}.")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        before = self._before
        self._restore()
        if _is_inside_fit(frame, self.model):
            self.interrupted = True
            self.model.stop_training = True
        elif callable(before):  # an error ended `fit` before the handler was restored
            before(number, frame)

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None


def _is_inside_fit(frame: FrameType | None, model: keras.Model) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            return True
        frame = frame.f_back
    return False
