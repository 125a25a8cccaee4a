"""The identity of a search: all that its trials follow from, by names."""

import hashlib
import json

from kseq.tuning.call_tree import Call
from kseq.tuning.fingerprint import described, fingerprint
from kseq.tuning.naming import fixed_values
from kseq.tuning.objectives import make_objective

FORMAT = 3
MAY_CHANGE = ("seed", "_seed_state", "max_trials")  # of an oracle: the same search


def identity(space, known, oracle, first, settings):
    """Return what makes a search this one, as a dictionary that JSON can hold.

    Args:
        space: The `keras_tuner.HyperModel`.
        known: Its `keras_tuner.HyperParameters`.
        oracle: The fresh Oracle of KerasTuner.
        first: The values to try first.
        settings: What `settings` says of the data and the arguments of `fit`.
    """
    config = json.dumps(known.get_config()["space"], sort_keys=True)
    fixed = fixed_values(space) if isinstance(space, Call) else {}
    return {
        "format": FORMAT,
        "tuner": type(oracle).__name__,
        "settings of the tuner": fingerprint([type(oracle), plain_settings(oracle)]),
        "objective": objective_facts(oracle.objective),
        "seed": oracle.seed,
        "ranges": hashlib.sha256(config.encode()).hexdigest()[:16],
        "hyperparameters": [h.name for h in known.space],
        "epochs": getattr(oracle, "max_epochs", None),
        **({"first": first} if first else {}),
        **settings,
        "space": described(space),
        **{f"{name} of the space": value for name, value in fixed.items()},
    }


def objective_facts(objective):
    """The name and the direction of an objective, and those of its parts."""
    parts = getattr(objective, "objectives", [])
    return [objective.name, objective.direction, *map(objective_facts, parts)]


def objective_of(facts):
    """The objective of which `objective_facts` told these."""
    name, direction, *parts = facts
    pairs = [(name, direction) for name, direction, *_ in parts]
    return make_objective(pairs or (name, direction))


def settings(data, fit_arguments, executions_per_trial=1):
    """Return what makes a search this one, besides its space and its tuner."""
    given = {f"{name} of fit": described(v) for name, v in fit_arguments.items()}
    return {
        "data": fingerprint(data),
        "executions_per_trial": executions_per_trial,
        **given,
    }


def plain_settings(oracle):
    return {
        name: value
        for name, value in vars(oracle).items()
        if isinstance(value, bool | int | float | str) and name not in MAY_CHANGE
    }
