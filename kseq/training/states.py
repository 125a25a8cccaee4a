"""The state of a training: variables, and what callbacks have recorded."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kseq.layers import backends

PLAIN = (bool, int, float, str, type(None))


def tracked(model: keras.Model) -> dict[str, Any]:
    """Return the variables that a checkpoint contains, by name."""
    owned = {"model": model.variables, "optimizer": model.optimizer.variables}
    return {
        f"{owner}/{number}": variable
        for owner, variables in owned.items()
        for number, variable in enumerate(variables)
    }


def values_of(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the values of variables as arrays, by the names of the variables."""
    arrays = {}
    for name, variable in variables.items():
        array = backends.array_of(variable)
        # NumPy's files cannot hold bfloat16; float32 holds it exactly.
        arrays[name] = array.astype("float32") if array.dtype.kind == "V" else array
    return arrays


def plain_attributes(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Return what a callback has recorded: plain values and lists of arrays.

    Its settings are left out. The new callback has them, and Keras' callbacks flip the
    sign of `min_delta` when they first see a metric.
    """
    values: dict[str, Any] = {}
    arrays: dict[str, list[np.ndarray]] = {}
    settings = inspect.signature(type(callback).__init__).parameters
    for name, value in vars(callback).items():
        if name in settings or name == "params":
            continue
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, PLAIN) or is_plain(value):
            values[name] = value
        elif isinstance(value, list) and value:
            if all(isinstance(item, np.ndarray) for item in value):
                arrays[name] = value
    return {"values": values, "arrays": arrays}


def is_plain(value: Any) -> bool:
    """Return whether a list or dictionary survives a round trip through JSON."""
    try:
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False
