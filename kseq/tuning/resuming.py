"""`fit` that goes on where it was killed, and then ends as if it had not been."""

import inspect
import json
import math
import os
import random
import time
from pathlib import Path

import keras
import numpy as np

from kseq.training.data_set import DataSet
from kseq.tuning.files import replacing

BEST = "best.weights.h5"
CHECKPOINT = "checkpoint.npz"
SHARE_OF_TIME = 0.05  # that checkpoints may take
PLAIN = (bool, int, float, str, type(None), np.integer, np.floating)


class FailedTrial(Exception):
    """This trial is no use, for the reason given; the search goes on."""


class FatalError(Exception):
    """No trial of this search can be of use, for the reason given."""


class ResumableFit:
    """Stands in front of `model.fit`, and makes it exact, resumable and observed.

    What an epoch does depends on the seed, its number and the state of the model
    alone: the random numbers of Python and NumPy begin anew in each epoch, arrays are
    shuffled by the seed and the number of the epoch, and a `PyDataset` lives through
    the ends of the epochs before. A checkpoint holds the variables of the model and the
    optimizer, the states of the seed generators, the logs, and the plain attributes of
    the callbacks. So a `fit` killed in any epoch ends with the same weights as one that
    was not. A generator or a `tf.data.Dataset` begins anew where `fit` resumes.

    Args:
        model: A compiled model. Its `fit` is replaced.
        directory: Where `checkpoint.npz` and `best.weights.h5` of the trial lie.
        objective: The `keras_tuner.Objective` that decides which weights are the best.
        seed: Non-negative integer.
        report: Function of an epoch's number and logs, called after each; returns
            False to stop the training. None where nobody listens.
        epochs: `(first, end)`, where they are not the user's to choose (Hyperband).
        keep_state: Whether the state at the end is needed, to go on from it.
    """

    def __init__(
        self,
        model,
        directory,
        objective,
        seed,
        report=None,
        epochs=None,
        keep_state=False,
        extra_callbacks=(),
    ):
        self.model = model
        self.directory = Path(directory)
        self.objective = objective
        self.seed = seed
        self.report = report or (lambda epoch, logs: True)
        self.epochs = epochs
        self.keep_state = keep_state
        self.extra_callbacks = list(extra_callbacks)
        self.past = load_checkpoint(self.directory / CHECKPOINT)
        self._fit = model.fit
        model.fit = self.fit

    def fit(self, *args, **kwargs):
        bound = inspect.signature(self._fit).bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        if self.epochs:
            given["initial_epoch"], given["epochs"] = self.epochs
        given["verbose"] = 0
        self._shuffle_by_epoch(given)
        first = given["initial_epoch"]
        if self.past:
            meta = self.past["meta"]  # perhaps of the trial that this one goes on from
            stopped = meta["stopped"] and meta["trial"] == self.directory.name
            first = given["epochs"] if stopped else meta["next_epoch"]
            first = max(first, given["initial_epoch"])
        given["initial_epoch"] = first
        if isinstance(given["x"], keras.utils.PyDataset):
            for _ in range(first):
                given["x"].on_epoch_begin()
                given["x"].on_epoch_end()
        others = [*(given["callbacks"] or []), *self.extra_callbacks]
        keeper = Keeper(self, others, given["epochs"])
        given["callbacks"] = [*others, keeper]
        history = self._fit(**given)
        history.history = columns(keeper.logs)
        history.epoch = list(range(len(keeper.logs)))
        return history

    def _shuffle_by_epoch(self, given):
        """Puts arrays into batches whose order the seed and the epoch decide."""
        arrays = [given["x"], given["y"], given["sample_weight"]]
        leaves = [leaf for leaf in keras.tree.flatten(arrays) if leaf is not None]
        whole = all(isinstance(leaf, np.ndarray) for leaf in leaves)
        if not (whole and given["shuffle"]) or given["steps_per_epoch"]:
            return
        if given["validation_split"] and given["validation_data"] is None:
            share = given.pop("validation_split")
            kept = math.floor(len(leaves[0]) * (1 - share))  # the last rows, as Keras
            given["validation_data"] = pack(take(arrays, slice(kept, None)))
            arrays = take(arrays, slice(kept))
        given.pop("validation_split", None)
        batch_size = given.pop("batch_size") or 32
        if given["validation_batch_size"] is None:
            given["validation_batch_size"] = batch_size
        given.update(y=None, sample_weight=None, shuffle=False)
        given["x"] = ShuffledBatches(arrays, batch_size, self.seed)


class ShuffledBatches(DataSet):
    """Rows of arrays in batches, in an order that the seed and the epoch decide."""

    def __init__(self, arrays, batch_size, seed):
        super().__init__()
        self.arrays = arrays
        self.batch_size = batch_size
        self.seed = seed
        leaves = [leaf for leaf in keras.tree.flatten(arrays) if leaf is not None]
        self.num_rows = len(leaves[0])
        self._start_epoch(0)

    def _start_epoch(self, epoch):
        self.epoch = epoch
        self.order = np.random.default_rng([self.seed, epoch]).permutation(
            self.num_rows
        )

    def on_epoch_end(self):
        self._start_epoch(self.epoch + 1)

    def __len__(self):
        return -(-self.num_rows // self.batch_size)

    def __getitem__(self, index):
        start = index * self.batch_size
        rows = self.order[start : start + self.batch_size]
        return pack(take(self.arrays, rows))


class Keeper(keras.callbacks.Callback):
    """The last of the callbacks: it sees what the others did, and keeps it."""

    def __init__(self, owner, others, epochs):
        super().__init__()
        self.owner = owner
        self.others = others
        self.last_epoch = epochs - 1
        self.logs = []
        self.best = None  # score and epoch
        self._saved = time.monotonic()
        self._cost = 0.0

    def on_train_begin(self, logs=None):
        past = self.owner.past
        if past is None:
            return
        restore_variables(self.model, past["arrays"])
        for number, callback in enumerate(self.others):
            restore_attributes(callback, number, past)
        self.logs = past["meta"]["logs"]
        self.best = past["meta"]["best"]

    def on_epoch_begin(self, epoch, logs=None):
        seed = np.random.SeedSequence([self.owner.seed, epoch]).generate_state(1)[0]
        random.seed(int(seed))
        np.random.seed(int(seed))

    def on_epoch_end(self, epoch, logs=None):
        logs = {n: float(v) for n, v in (logs or {}).items() if np.ndim(v) == 0}
        self.logs.append(logs)
        score = self._score(epoch, logs)
        better = self.owner.objective.better_than
        if self.best is None or better(score, self.best[0]):
            self.best = [score, epoch]
            with replacing(self.owner.directory / BEST, ".weights.h5") as path:
                self.model.save_weights(path)
        if not self.owner.report(epoch, logs):
            self.model.stop_training = True
        last = self.model.stop_training or epoch == self.last_epoch
        rested = time.monotonic() - self._saved
        if (last and self.owner.keep_state) or rested > self._cost / SHARE_OF_TIME:
            self._save(epoch)

    def _score(self, epoch, logs):
        objective = self.owner.objective
        if not objective.has_value(logs):
            raise FatalError(
                "`objective` must be a metric that `fit` reports: one of "
                f"{', '.join(sorted(logs))}. Received: objective={objective.name!r}. "
                "Add it to the metrics of `compile`; one that begins with val_ needs "
                "`validation_data` too."
            )
        score = objective.get_value(logs)
        for name, value in ((objective.name, score), ("loss", logs.get("loss", 0.0))):
            if not math.isfinite(value):
                raise FailedTrial(f"{name} was {value} in epoch {epoch + 1}")
        return score

    def _save(self, epoch):
        began = time.monotonic()
        states = [plain_attributes(callback) for callback in self.others]
        arrays = {
            f"callback/{number}/{name}/{i}": array
            for number, state in enumerate(states)
            for name, value in state["arrays"].items()
            for i, array in enumerate(value)
        }
        meta = {
            "trial": self.owner.directory.name,
            "seed": self.owner.seed,
            "next_epoch": epoch + 1,
            "stopped": bool(self.model.stop_training),
            "logs": self.logs,
            "best": self.best,
            "callbacks": [state["values"] for state in states],
        }
        arrays |= variables(self.model)
        save_checkpoint(self.owner.directory / CHECKPOINT, meta, arrays)
        self._saved = time.monotonic()
        self._cost = self._saved - began


def save_checkpoint(path, meta, arrays):
    with replacing(path, ".npz") as temporary:
        np.savez(temporary, meta=np.array(json.dumps(meta)), **arrays)


def load_checkpoint(path):
    """Returns the meta data and the arrays, or None if absent or damaged."""
    if not os.path.exists(path):
        return None
    try:
        with open(path, "rb") as file:
            arrays = dict(np.load(file, allow_pickle=False))
        return {"meta": json.loads(str(arrays.pop("meta"))), "arrays": arrays}
    except Exception:  # whatever a damaged zip file may raise
        return None


def tracked(model):
    """The variables that a checkpoint holds, with a name for each."""
    owned = {"model": model.variables, "optimizer": model.optimizer.variables}
    return {
        f"{owner}/{number}": variable
        for owner, variables in owned.items()
        for number, variable in enumerate(variables)
    }


def variables(model):
    arrays = {}
    for name, variable in tracked(model).items():
        array = keras.ops.convert_to_numpy(variable.value)
        # NumPy's files know no bfloat16; float32 holds it exactly.
        arrays[name] = array.astype("float32") if array.dtype.kind == "V" else array
    return arrays


def restore_variables(model, arrays):
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    mine = tracked(model)
    theirs = {n: a for n, a in arrays.items() if not n.startswith("callback/")}
    same = mine.keys() == theirs.keys() and all(
        tuple(mine[name].shape) == theirs[name].shape for name in mine
    )
    if not same:
        raise FailedTrial("its checkpoint was written by another model")
    for name, variable in mine.items():
        variable.assign(theirs[name])


def plain_attributes(callback):
    """What a callback has learnt, of plain values and lists of arrays.

    Its settings are not among it: the new callback has them, and those of Keras turn
    the sign of `min_delta` when they first see a metric.
    """
    values, arrays = {}, {}
    settings = inspect.signature(type(callback).__init__).parameters
    for name, value in vars(callback).items():
        if name in settings:
            continue
        if isinstance(value, PLAIN):
            is_numpy = isinstance(value, np.generic)
            values[name] = value.item() if is_numpy else value
        elif isinstance(value, list) and value:
            if all(isinstance(item, np.ndarray) for item in value):
                arrays[name] = value
    return {"values": values, "arrays": arrays}


def restore_attributes(callback, number, past):
    states = past["meta"]["callbacks"]
    if number >= len(states):
        return
    vars(callback).update(states[number])
    lists = {}
    for key, array in past["arrays"].items():
        if key.startswith(f"callback/{number}/"):
            _, _, name, _ = key.split("/")
            lists.setdefault(name, []).append(array)
    vars(callback).update(lists)


def take(arrays, rows):
    return [
        None if part is None else keras.tree.map_structure(lambda a: a[rows], part)
        for part in arrays
    ]


def pack(arrays):
    """Rows as Keras takes them: x, (x, y) or (x, y, sample_weight)."""
    while arrays[-1] is None:
        arrays = arrays[:-1]
    return tuple(arrays)


def columns(logs):
    names = dict.fromkeys(name for row in logs for name in row)
    return {name: [row[name] for row in logs if name in row] for name in names}
