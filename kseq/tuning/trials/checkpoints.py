"""Checkpoints: the state of a training between two epochs, as a file of arrays."""

import json
import os
from typing import Any

import numpy as np

from kseq.training.states import tracked, values_of
from kseq.tuning.trials.errors import FailedTrial
from kseq.tuning.trials.files import replacing
from kseq.tuning.trials.layout import CHECKPOINT
from kseq.typing import PathLike


def save_checkpoint(
    path: PathLike, meta: dict[str, Any], arrays: dict[str, Any]
) -> None:
    with replacing(path, CHECKPOINT) as temporary:
        np.savez(temporary, meta=np.array(json.dumps(meta)), **arrays)


def load_checkpoint(path: PathLike) -> dict[str, Any] | None:
    """Return the meta data and the arrays, or None if absent or damaged."""
    if not os.path.exists(path):
        return None
    try:
        with open(path, "rb") as file:
            arrays = dict(np.load(file, allow_pickle=False))
        return {"meta": json.loads(str(arrays.pop("meta"))), "arrays": arrays}
    except Exception:  # a damaged zip file may raise anything
        return None


def variables(model: Any) -> dict[str, np.ndarray]:
    return values_of(tracked(model))


def restore_variables(model: Any, arrays: dict[str, np.ndarray]) -> None:
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


def restore_attributes(callback: Any, number: int, past: dict[str, Any]) -> None:
    states = past["meta"]["callbacks"]
    if number >= len(states):
        return
    vars(callback).update(states[number])
    lists: dict[str, list[np.ndarray]] = {}
    for key, array in past["arrays"].items():
        if key.startswith(f"callback/{number}/"):
            _, _, name, _ = key.split("/")
            lists.setdefault(name, []).append(array)
    vars(callback).update(lists)
