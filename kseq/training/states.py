"""The state of a training: variables, and what callbacks have learnt."""

import inspect
import json

import numpy as np

from kseq.layers import backends

PLAIN = (bool, int, float, str, type(None))


def tracked(model):
    """The variables that a checkpoint holds, with a name for each."""
    owned = {"model": model.variables, "optimizer": model.optimizer.variables}
    return {
        f"{owner}/{number}": variable
        for owner, variables in owned.items()
        for number, variable in enumerate(variables)
    }


def values_of(variables):
    """What variables hold, as arrays, by the names of the variables."""
    arrays = {}
    for name, variable in variables.items():
        array = backends.array_of(variable)
        # NumPy's files know no bfloat16; float32 holds it exactly.
        arrays[name] = array.astype("float32") if array.dtype.kind == "V" else array
    return arrays


def plain_attributes(callback):
    """What a callback has learnt, of plain values and lists of arrays.

    Its settings are not among it: the new callback has them, and those of Keras turn
    the sign of `min_delta` when they first see a metric.
    """
    values, arrays = {}, {}
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


def is_plain(value):
    """Tell whether JSON gives a list or a dictionary back as it was."""
    try:
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False
