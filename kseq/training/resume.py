"""A callback that resumes an interrupted training exactly where it stopped."""

import json
import math
import os
import pathlib
import random
import sys
import time
from types import FrameType
from typing import Any

import keras
import numpy as np

from kseq.layers import backends
from kseq.training.states import plain_attributes, tracked, values_of
from kseq.typing import PathLike

FILE = "state.npz"


class Resume(keras.callbacks.Callback):
    """A callback that resumes a `fit` at the batch where it was killed.

    At intervals, it saves everything that the rest of the training depends on: weights,
    optimizer, metrics, the states of seed generators (dropout, for example) and of the
    random generators of Python, NumPy and PyTorch, the position in the data, and what
    the other callbacks have recorded, such as the patience of `EarlyStopping` and the
    best weights of `SaveBest`. Run the same command again to continue from there. The
    final weights equal those of an uninterrupted training, bit for bit if the steps
    themselves are deterministic: on a CPU, and on a GPU with
    `keras.utils.set_random_seed` and deterministic kernels. A finished training is not
    repeated, only loaded.

    If the process is killed at any time, the file is either complete or the previous
    one. With `StopOnInterrupt`, Ctrl-C saves it too. Callbacks that write files of
    their own start those as usual; use `append=True` for `CSVLogger`.

    Args:
        directory: Directory of the file, `state.npz`. Use one directory per training.
        seconds: Time between saves. The file is also saved at the beginning and the
            end.

    Raises:
        ValueError: The data is not a data set of `kseq.training`, which can start at
            any batch; `fit` shuffles the batches once more, or has `steps_per_epoch`;
            this is not the last callback, or the callbacks have changed; the directory
            belongs to another model or other data.

    Example:

    >>> import pathlib, tempfile
    >>> import kseq
    >>> from kseq.training import Resume, batches
    >>> def train(directory, epochs):
    ...     model = kseq.many_to_one(9, num_outputs=1, encoder="rnn", width=3)
    ...     model.compile("adam", "mse")
    ...     data = batches([[5, 6], [7]] * 6, [0.5, 1.5] * 6, batch_size=4)
    ...     resume = [Resume(directory)]
    ...     return model.fit(data, epochs=epochs, callbacks=resume, shuffle=False,
    ...         verbose=0)
    >>> directory = tempfile.mkdtemp()
    >>> [len(train(directory, epochs).history["loss"]) for epochs in (2, 2, 3)]
    [2, 2, 3]
    """

    def __init__(self, directory: PathLike, seconds: float = 300) -> None:
        super().__init__()
        self.path = pathlib.Path(directory, FILE)
        self.seconds = seconds
        self._past: Any = None
        self._fit: Any = None
        self._data: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._fit = fit = checked_fit(self.model, self)
        self._data, self._count = fit["x"], len(fit["x"])
        self._epoch = self._first = 0
        self._is_stopped = False
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self._past = past = self._load()
        if past is None:
            self._save(self._epoch, 0)
            return
        meta = past["meta"]
        self._restore_variables()
        self._epoch, self._first = meta["epoch"], meta["first"]
        self.model._initial_epoch = meta["epoch"]  # as Keras' BackupAndRestore does
        for data, position in zip(self._data_sets(), meta["positions"], strict=True):
            data.start_at(position)
        self._data.start_at(meta["positions"][0], self._first)
        fit["epoch_iterator"]._num_batches = len(self._data)
        self._saved = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._past is not None:
            if not self._first:  # starting to read the data may use random numbers
                self._restore_random()
            return
        if epoch != self._epoch:
            self._epoch, self._first = epoch, 0
            self._fit["epoch_iterator"]._num_batches = self._count
            self._save_if_due(0)

    def on_train_batch_begin(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        if self._past is not None:  # the other callbacks have begun training and epoch
            self._restore_metrics()
            self._restore_rest()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        done = self._first + batch + 1
        if done >= self._count:
            return
        if not self.model.stop_training:
            self._save_if_due(done)
        elif math.isfinite(float((logs or {}).get("loss", 0.0))):
            self._is_stopped = True
            self._save(self._epoch, done)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._past is not None:  # no batch was left
            self._restore_rest()
        elif not self._is_stopped:
            self._save(self.params["epochs"], 0)
        self.model._initial_epoch = None
        self._fit = self._data = None

    def _save_if_due(self, done: int) -> None:
        if time.monotonic() - self._saved >= self.seconds:
            self._save(self._epoch, done)

    def _save(self, epoch: int, first: int) -> None:
        states = [plain_attributes(callback) for callback in self._others()]
        arrays = {
            f"callback/{number}/{name}/{i}": array
            for number, state in enumerate(states)
            for name, value in state["arrays"].items()
            for i, array in enumerate(value)
        }
        numpy_state: Any
        name, *numpy_state = np.random.get_state()
        meta = {
            "epoch": epoch,
            "first": first,
            "count": self._count,
            "positions": [data.position() for data in self._data_sets()],
            "callbacks": [state["values"] for state in states],
            "kinds": [type(callback).__name__ for callback in self._others()],
            "python": random.getstate(),
            "numpy": [name, numpy_state[0].tolist(), *numpy_state[1:]],
        }
        arrays |= values_of(tracked(self.model)) | values_of(self._metrics())
        for device, value in backends.random_states().items():
            arrays[f"random/{device}"] = value.numpy()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{os.getpid()}-{FILE}")
        try:
            with open(temporary, "wb") as file:
                np.savez(file, meta=np.array(json.dumps(meta)), **arrays)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self._saved = time.monotonic()

    def _load(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        with np.load(self.path, allow_pickle=False) as file:
            arrays = dict(file)
        meta = json.loads(str(arrays.pop("meta")))
        mine = tracked(self.model)
        theirs = {n: a for n, a in arrays.items() if n.startswith(("model", "optim"))}
        kinds = [type(callback).__name__ for callback in self._others()]
        is_same = mine.keys() == theirs.keys() and all(
            tuple(mine[name].shape) == theirs[name].shape for name in mine
        )
        if not is_same or (meta["count"], meta["kinds"]) != (self._count, kinds):
            raise ValueError(
                "`directory` must be new or belong to the same training. Received: "
                f"directory={str(self.path.parent)!r}, of another model, of "
                f"{meta['count']} batches (here {self._count}), or of the callbacks "
                f"{meta['kinds']} (here {kinds}). Use another directory for another "
                "training."
            )
        return {"meta": meta, "arrays": arrays}

    def _restore_variables(self) -> None:
        for name, variable in tracked(self.model).items():
            variable.assign(self._past["arrays"][name])

    def _restore_metrics(self) -> None:
        """Restore the metrics of the skipped part of the epoch."""
        if not self._first:
            return
        saved = [name for name in self._past["arrays"] if name.startswith("metric/")]
        if len(self._metrics()) < len(saved):  # metrics are created at their first use
            x, y, *weights = self._data[0]
            outputs = self.model(x, training=False)
            self.model.compute_metrics(x, y, outputs, *(weights or [None]))
        for name, variable in self._metrics().items():
            variable.assign(self._past["arrays"][name])

    def _restore_rest(self) -> None:
        meta, arrays = self._past["meta"], self._past["arrays"]
        self._restore_variables()
        for number, callback in enumerate(self._others()):
            vars(callback).update(meta["callbacks"][number])
            lists: dict[str, list[np.ndarray]] = {}
            for key, array in arrays.items():
                if key.startswith(f"callback/{number}/"):
                    lists.setdefault(key.split("/")[2], []).append(array)
            vars(callback).update(lists)
        if self._first:
            self._restore_random()
        self._past = None

    def _restore_random(self) -> None:
        meta, arrays = self._past["meta"], self._past["arrays"]
        version, state, gauss = meta["python"]
        random.setstate((version, tuple(state), gauss))
        np.random.set_state(meta["numpy"])
        drawn = {n: array for n, array in arrays.items() if n.startswith("random/")}
        backends.set_random_states({n[len("random/") :]: drawn[n] for n in drawn})

    def _metrics(self) -> dict[str, Any]:
        variables = self.model.metrics_variables
        return {f"metric/{number}": each for number, each in enumerate(variables)}

    def _others(self) -> list[keras.callbacks.Callback]:
        """Return the callbacks whose state is saved."""
        left_out = Resume | keras.callbacks.ProgbarLogger
        found = self._fit["callbacks"].callbacks
        return [each for each in found if not isinstance(each, left_out)]

    def _data_sets(self) -> list[Any]:
        """Return the training data, and the validation data if it has a position."""
        validation = self._fit["validation_data"]
        return [self._data, *([validation] if hasattr(validation, "start_at") else [])]


def checked_fit(
    model: keras.Model, callback: keras.callbacks.Callback
) -> dict[str, Any]:
    """Return the local variables of the `fit` that trains this model, if they suit.

    Keras passes neither the data nor the other callbacks to a callback.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        found = frame.f_locals
        is_fit = frame.f_code.co_name == "fit" and "epoch_iterator" in found
        if is_fit and found.get("self") is model:
            break
        frame = frame.f_back
    else:
        raise ValueError("`Resume` must be a callback of Keras' own `fit`.")
    if not hasattr(found["x"], "start_at"):
        raise ValueError(
            "`Resume` needs data that can start at any batch. Received: "
            f"{type(found['x']).__name__}. Use `kseq.training.batches`, "
            "`teacher_forcing` or `windows`."
        )
    if found["shuffle"] or found["steps_per_epoch"] is not None:
        raise ValueError(
            "`Resume` needs all batches, in the order of their data set, which "
            f"shuffles them itself. Received: shuffle={found['shuffle']}, "
            f"steps_per_epoch={found['steps_per_epoch']}. Pass `shuffle=False` to "
            "`fit`, and `steps` to the data set."
        )
    given = found["callbacks"].callbacks
    own = (keras.callbacks.History, keras.callbacks.ProgbarLogger)
    if [each for each in given if not isinstance(each, own)][-1] is not callback:
        raise ValueError(
            "`Resume` must be the last callback, so that it saves what the others did. "
            f"Received: {[type(each).__name__ for each in given]}. Move it to the end."
        )
    return dict(found)
