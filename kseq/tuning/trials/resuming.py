"""`fit` that goes on where it was killed, and then ends as if it had not been."""

import contextlib
import inspect
import json
import math
import os
import random
import time
import weakref
from pathlib import Path

import keras
import numpy as np

from kseq.training.batch_dataset import BatchDataset
from kseq.tuning.fingerprint import fingerprint
from kseq.tuning.trials.files import replacing

BEST = "best.weights.h5"  # of the trial, when it has ended
SHARE_OF_TIME = 0.05  # that checkpoints may take
PLAIN = (bool, int, float, str, type(None), np.integer, np.floating)


class FailedTrial(Exception):
    """This trial is no use, for the reason given; the search goes on."""


class FatalError(Exception):
    """No trial of this search can be of use, for the reason given."""


class Fits:
    """All calls of `fit` of one trial, of any model: exact, resumable and observed.

    Within its context, `keras.Model.fit` is another. What an epoch does depends on the
    seed, the number of the call, that of the epoch and the state of the model alone:
    the random numbers of Python and NumPy begin anew in each epoch and after each call,
    arrays are shuffled by the seed and the number of the epoch, and a `PyDataset` lives
    through the ends of the epochs before. The checkpoint of a call holds the variables
    of the model and the optimizer, the states of the seed generators, the logs, and the
    plain attributes of the callbacks. So a trial killed in any epoch of any call ends
    with the same weights as one that was not: calls that had ended give back what they
    gave. A generator or a `tf.data.Dataset` begins anew where `fit` resumes.

    Args:
        directory: Where the checkpoints and the best weights of each call lie.
        objective: The `keras_tuner.Objective` that decides which weights are the best.
        seed: Non-negative integer.
        report: Function of an epoch's number and logs, called after each; returns
            False to stop the training. None where nobody listens.
        epochs: `(first, end)`, where they are not the user's to choose (Hyperband).
        keep_state: Whether the state at the end is needed, to go on from it.
        extra_callbacks: Callbacks for every call.
        several: Whether there may be several calls, by a `fit` of the user's. It may
            then measure the objective itself.
    """

    def __init__(
        self,
        directory,
        objective,
        seed,
        report=None,
        epochs=None,
        keep_state=False,
        extra_callbacks=(),
        several=False,
    ):
        self.directory = Path(directory)
        self.objective = objective
        self.seed = seed
        self.report = report or (lambda epoch, logs: True)
        self.epochs = epochs
        self.keep_state = keep_state
        self.extra_callbacks = list(extra_callbacks)
        self.several = several
        self.calls = []
        self._is_inside = False

    def __enter__(self):
        self._before = vars(keras.Model).get("fit")
        original = keras.Model.fit

        def fit(model, *args, **kwargs):
            if self._is_inside:  # in a callback of another
                return original(model, *args, **kwargs)
            return self._watch(original, model, args, kwargs)

        keras.Model.fit = fit
        return self

    def __exit__(self, *error):
        if self._before is None:
            del keras.Model.fit
        else:
            keras.Model.fit = self._before

    def past_logs(self):
        """The logs of all epochs in the checkpoints of an earlier process."""
        logs, number = [], 0
        while past := load_checkpoint(checkpoint_of(self.directory, number)):
            logs += past["meta"]["logs"]
            number += 1
        return logs

    def logs(self):
        return [row for call in self.calls for row in call.logs]

    def _watch(self, original, model, args, kwargs):
        call = FitCall(self, model, len(self.calls))
        self.calls.append(call)
        self._is_inside = True
        try:
            history = call.run(original, args, kwargs)
        finally:
            self._is_inside = False
        # What follows, such as the weights of the next model, is the same after a call
        # that was resumed.
        keras.utils.set_random_seed(derive(self.seed, len(self.calls)))
        return history


class FitCall:
    """One call of `fit`, numbered within its trial.

    Attributes:
        logs: A dictionary for each epoch.
        best: The best score and the index of its epoch, or None.
        kind: What it trained: the loss and the shapes of the weights. Scores of two
            calls can be compared where these are the same.
        history: A weak reference to what it returned.
    """

    def __init__(self, owner, model, number):
        self.owner = owner
        self.model = model
        self.number = number
        self.seed = derive(owner.seed, number) if number else owner.seed
        self.checkpoint = checkpoint_of(owner.directory, number)
        self.weights = owner.directory / f"best-{number}.weights.h5"
        self.past = load_checkpoint(self.checkpoint)
        self.logs = []
        self.best = None
        self.kind = self.history = self.build_config = None

    def run(self, original, args, kwargs):
        bound = inspect.signature(original).bind(self.model, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        if self.owner.epochs:
            given["initial_epoch"], given["epochs"] = self.owner.epochs
        given["verbose"] = 0
        self._shuffle_by_epoch(given)
        first = given["initial_epoch"]
        if self.past:
            meta = self.past["meta"]  # perhaps of the trial that this one goes on from
            stopped = meta["stopped"] and meta["trial"] == self.owner.directory.name
            first = given["epochs"] if stopped else meta["next_epoch"]
            first = max(first, given["initial_epoch"])
        given["initial_epoch"] = first
        if isinstance(given["x"], keras.utils.PyDataset):
            for _ in range(first):
                given["x"].on_epoch_begin()
                given["x"].on_epoch_end()
        others = [*(given["callbacks"] or []), *self.owner.extra_callbacks]
        counts = given["epochs"], given["validation_freq"]
        checkpoints = CheckpointCallback(self, others, *counts)
        given["callbacks"] = [*others, checkpoints]
        history = original(**given)
        history.history = columns(self.logs)
        history.epoch = list(range(len(self.logs)))
        self.history = weakref.ref(history)  # which holds the model
        shapes = [tuple(weight.shape) for weight in self.model.weights]
        self.kind = fingerprint(self.model.loss), shapes
        self.parameters = self.model.count_params()
        with contextlib.suppress(NotImplementedError, TypeError):
            self.build_config = self.model.get_build_config()
        self.model = self.past = None
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


class ShuffledBatches(BatchDataset):
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


class CheckpointCallback(keras.callbacks.Callback):
    """The last of the callbacks: it sees what the others did, and keeps it."""

    def __init__(self, call, others, epochs, validation_freq):
        super().__init__()
        self.call = call
        self.owner = call.owner
        self.others = others
        self.last_epoch = epochs - 1
        self.validation_freq = validation_freq
        self._saved = time.monotonic()
        self._cost = 0.0

    def on_train_begin(self, logs=None):
        past = self.call.past
        if past is None:
            return
        restore_variables(self.model, past["arrays"])
        for number, callback in enumerate(self.others):
            restore_attributes(callback, number, past)
        self.call.logs = past["meta"]["logs"]
        self.call.best = past["meta"]["best"]

    def on_epoch_begin(self, epoch, logs=None):
        seed = derive(self.call.seed, epoch)
        random.seed(seed)
        np.random.seed(seed)

    def on_epoch_end(self, epoch, logs=None):
        logs = {n: float(v) for n, v in (logs or {}).items() if np.ndim(v) == 0}
        self.call.logs.append(logs)
        score = self._score(epoch, logs)
        best, better = self.call.best, self.owner.objective.better_than
        if score is not None and (best is None or better(score, best[0])):
            self.call.best = [score, len(self.call.logs) - 1]
            with replacing(self.call.weights, ".weights.h5") as path:
                self.model.save_weights(path)
        if not self.owner.report(epoch, logs):
            self.model.stop_training = True
        last = self.model.stop_training or epoch == self.last_epoch
        is_needed = self.owner.keep_state or self.owner.several
        rested = time.monotonic() - self._saved
        if (last and is_needed) or rested > self._cost / SHARE_OF_TIME:
            self._save(epoch)
        if last and self.call.best is None and not self.owner.several:
            self._refuse_objective(logs)

    def _score(self, epoch, logs):
        """The score of an epoch, or None: not every epoch is validated."""
        objective, score = self.owner.objective, None
        if objective.has_value(logs):
            score = objective.get_value(logs)
        elif self.call.best is None and self._is_complete(epoch):
            self._refuse_objective(logs)
        for name, value in ((objective.name, score), ("loss", logs.get("loss", 0.0))):
            if value is not None and not math.isfinite(value):
                raise FailedTrial(f"{name} was {value} in epoch {epoch + 1}")
        return score

    def _is_complete(self, epoch):
        """Tell whether no later epoch can report what this one does not."""
        is_known = all(map(reports_nothing, self.others))
        is_validated = validates(epoch, self.validation_freq)
        return is_known and is_validated and not self.owner.several

    def _refuse_objective(self, logs):
        raise FatalError(
            "`objective` must be a metric that `fit` reports: one of "
            f"{', '.join(sorted(logs))}. Received: objective="
            f"{self.owner.objective.name!r}. Add it to the metrics of `compile`; one "
            "that begins with val_ needs `validation_data` too."
        )

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
            "logs": self.call.logs,
            "best": self.call.best,
            "callbacks": [state["values"] for state in states],
        }
        arrays |= variables(self.model)
        save_checkpoint(self.call.checkpoint, meta, arrays)
        self._saved = time.monotonic()
        self._cost = self._saved - began


def derive(seed, number):
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def checkpoint_of(directory, number):
    """The file of a call of `fit`, by its number in the trial."""
    return Path(directory) / f"checkpoint-{number}.npz"


def validates(epoch, validation_freq):
    """Tell whether Keras' `fit` validates after an epoch, counted from 0."""
    if isinstance(validation_freq, int):
        return (epoch + 1) % validation_freq == 0
    return epoch + 1 in validation_freq


def reports_nothing(callback):
    """Tell whether a callback adds nothing to the logs, or does so after each epoch."""
    known = type(callback).__module__.partition(".")[0] in ("keras", "kseq")
    return known and not isinstance(callback, keras.callbacks.LambdaCallback)


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
    """The metrics of all epochs by name, as in Keras' `History`."""
    names = dict.fromkeys(name for row in logs for name in row)
    return {name: [row[name] for row in logs if name in row] for name in names}


def aligned(logs):
    """As `columns`, with None in an epoch that has no such metric."""
    names = dict.fromkeys(name for row in logs for name in row)
    return {name: [row.get(name) for row in logs] for name in names}
