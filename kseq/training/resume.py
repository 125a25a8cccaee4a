"""A training that goes on where it was killed, and ends as if it had not been."""

import json
import math
import os
import pathlib
import random
import sys
import time

import keras
import numpy as np

from kseq.layers import backends
from kseq.training.states import plain_attributes, tracked, values_of

FILE = "state.npz"


class Resume(keras.callbacks.Callback):
    """Lets the same `fit` go on at the batch where it was killed.

    Every now and then it writes a file with all that the rest of the training follows
    from: weights, optimizer, metrics, the states of the seed generators of dropout and
    the like and of Python, NumPy and PyTorch, the place in the data, and what the other
    callbacks have learnt, such as the patience of `EarlyStopping` and the best weights
    of `SaveBest`. The same command, run again, begins there. As every step after that
    is what it would have been, the final weights are those of a training that nothing
    has stopped, to the last bit where the steps themselves are exact: on a CPU, and on
    a GPU with `keras.utils.set_random_seed` and deterministic kernels. What has ended
    is not trained again, only loaded.

    The file is whole or that of before, whenever the process is killed. Ctrl-C, with
    `StopOnInterrupt`, writes it too. A callback that writes files of its own begins
    them as it always does, `CSVLogger` by `append=True`.

    Args:
        directory: Where the file lies, `state.npz`; one training has one directory.
        seconds: How often it is written, beside the beginning and the end.

    Raises:
        ValueError: The data are no data set of `kseq.training`, which begins at any
            batch; `fit` shuffles their batches once more, or has `steps_per_epoch`;
            this is not the last of the callbacks, or they are others; the directory is
            that of another model or of other data.

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

    def __init__(self, directory, seconds=300):
        super().__init__()
        self.path = pathlib.Path(directory, FILE)
        self.seconds = seconds
        self._past = None

    def on_train_begin(self, logs=None):
        self._fit = fit = checked_fit(self.model, self)
        self._data, self._count = fit["x"], len(fit["x"])
        self._epoch = self._first = 0
        self._is_stopped = False
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self._past = past = self._load()
        if past is None:
            return self._save(self._epoch, 0)
        meta = past["meta"]
        self._restore_variables()
        self._epoch, self._first = meta["epoch"], meta["first"]
        self.model._initial_epoch = meta["epoch"]  # as Keras' BackupAndRestore does
        for data, position in zip(self._data_sets(), meta["positions"], strict=True):
            data.start_at(position)
        self._data.start_at(meta["positions"][0], self._first)
        fit["epoch_iterator"]._num_batches = len(self._data)
        self._saved = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        if self._past is not None:
            if not self._first:  # what begins to read the data may draw
                self._restore_random()
            return
        if epoch != self._epoch:
            self._epoch, self._first = epoch, 0
            self._fit["epoch_iterator"]._num_batches = self._count
            self._save_if_due(0)

    def on_train_batch_begin(self, batch, logs=None):
        if self._past is not None:  # the others have begun training and epoch
            self._restore_metrics()
            self._restore_rest()

    def on_train_batch_end(self, batch, logs=None):
        done = self._first + batch + 1
        if done >= self._count:
            return
        if not self.model.stop_training:
            self._save_if_due(done)
        elif math.isfinite(float((logs or {}).get("loss", 0.0))):
            self._is_stopped = True
            self._save(self._epoch, done)

    def on_train_end(self, logs=None):
        if self._past is not None:  # nothing was left to do
            self._restore_rest()
        elif not self._is_stopped:
            self._save(self.params["epochs"], 0)
        self.model._initial_epoch = None
        self._fit = self._data = None

    def _save_if_due(self, done):
        if time.monotonic() - self._saved >= self.seconds:
            self._save(self._epoch, done)

    def _save(self, epoch, first):
        states = [plain_attributes(callback) for callback in self._others()]
        arrays = {
            f"callback/{number}/{name}/{i}": array
            for number, state in enumerate(states)
            for name, value in state["arrays"].items()
            for i, array in enumerate(value)
        }
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

    def _load(self):
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
                "`directory` must be new, or that of the same training. Received: "
                f"directory={str(self.path.parent)!r}, of another model, of "
                f"{meta['count']} batches (here {self._count}), or of the callbacks "
                f"{meta['kinds']} (here {kinds}). Name another directory for another "
                "training."
            )
        return {"meta": meta, "arrays": arrays}

    def _restore_variables(self):
        for name, variable in tracked(self.model).items():
            variable.assign(self._past["arrays"][name])

    def _restore_metrics(self):
        """The metrics of the part of an epoch that is left out."""
        if not self._first:
            return
        saved = [name for name in self._past["arrays"] if name.startswith("metric/")]
        if len(self._metrics()) < len(saved):  # they are made as they are first used
            x, y, *weights = self._data[0]
            outputs = self.model(x, training=False)
            self.model.compute_metrics(x, y, outputs, *(weights or [None]))
        for name, variable in self._metrics().items():
            variable.assign(self._past["arrays"][name])

    def _restore_rest(self):
        meta, arrays = self._past["meta"], self._past["arrays"]
        self._restore_variables()
        for number, callback in enumerate(self._others()):
            vars(callback).update(meta["callbacks"][number])
            lists = {}
            for key, array in arrays.items():
                if key.startswith(f"callback/{number}/"):
                    lists.setdefault(key.split("/")[2], []).append(array)
            vars(callback).update(lists)
        if self._first:
            self._restore_random()
        self._past = None

    def _restore_random(self):
        meta, arrays = self._past["meta"], self._past["arrays"]
        version, state, gauss = meta["python"]
        random.setstate((version, tuple(state), gauss))
        np.random.set_state(meta["numpy"])
        drawn = {n: array for n, array in arrays.items() if n.startswith("random/")}
        backends.set_random_states({n[len("random/") :]: drawn[n] for n in drawn})

    def _metrics(self):
        variables = self.model.metrics_variables
        return {f"metric/{number}": each for number, each in enumerate(variables)}

    def _others(self):
        """The callbacks that have something to keep."""
        left_out = Resume | keras.callbacks.ProgbarLogger
        found = self._fit["callbacks"].callbacks
        return [each for each in found if not isinstance(each, left_out)]

    def _data_sets(self):
        """The data to learn from, and to validate with where they have a place."""
        validation = self._fit["validation_data"]
        return [self._data, *([validation] if hasattr(validation, "start_at") else [])]


def checked_fit(model, callback):
    """The variables of Keras' `fit` that trains this model, by name, if they will do.

    No callback is given the data or the other callbacks.
    """
    frame = sys._getframe()
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
            "`Resume` needs data that can begin at any batch. Received: "
            f"{type(found['x']).__name__}. Use `kseq.training.batches`, "
            "`teacher_forcing` or `windows`."
        )
    if found["shuffle"] or found["steps_per_epoch"] is not None:
        raise ValueError(
            "`Resume` needs batches in the order of their data set, which shuffles "
            f"them itself, and all of them. Received: shuffle={found['shuffle']}, "
            f"steps_per_epoch={found['steps_per_epoch']}. Pass `shuffle=False` to "
            "`fit`, and give `steps` to the data set."
        )
    given = found["callbacks"].callbacks
    own = (keras.callbacks.History, keras.callbacks.ProgbarLogger)
    if [each for each in given if not isinstance(each, own)][-1] is not callback:
        raise ValueError(
            "`Resume` must be the last of the callbacks, so that it keeps what the "
            f"others did. Received: {[type(each).__name__ for each in given]}. Put it "
            "at the end."
        )
    return dict(found)
