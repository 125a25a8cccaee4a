"""Checkpoints: the state of a training between two epochs, as a file of arrays."""

import inspect
import json
import os

import keras
import numpy as np

from kseq.tuning.trials.errors import FailedTrial
from kseq.tuning.trials.files import replacing
from kseq.tuning.trials.layout import CHECKPOINT

PLAIN = (bool, int, float, str, type(None), np.integer, np.floating)


def save_checkpoint(path, meta, arrays):
    with replacing(path, CHECKPOINT) as temporary:
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
