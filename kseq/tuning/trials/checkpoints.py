"""Checkpoints: the state of a training between two epochs, as a file of arrays."""

import json
import os

import numpy as np

from kseq.training.states import tracked, values_of
from kseq.tuning.trials.errors import FailedTrial
from kseq.tuning.trials.files import replacing
from kseq.tuning.trials.layout import CHECKPOINT


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


def variables(model):
    return values_of(tracked(model))


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
