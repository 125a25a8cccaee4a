"""Identity of a search: everything that determines its trials, by name."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kseq.tuning.call_tree import Call
from kseq.tuning.fingerprint import described, fingerprint
from kseq.tuning.naming import fixed_values
from kseq.tuning.objectives import make_objective

FORMAT = 3
MAY_CHANGE = ("seed", "_seed_state", "max_trials")  # ignored attributes of an oracle


def identity(
    space: Any,
    known: Any,
    oracle: Any,
    first: Sequence[dict[str, Any]],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the identity of a search, as a dictionary for JSON.

    Args:
        space: The `keras_tuner.HyperModel`.
        known: Its `keras_tuner.HyperParameters`.
        oracle: The new Oracle of KerasTuner.
        first: The values to try first.
        settings: The output of `settings` for the data and the arguments of `fit`.
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


def objective_facts(objective: Any) -> list[Any]:
    """Return the name and the direction of an objective, and those of its parts."""
    parts = getattr(objective, "objectives", [])
    return [objective.name, objective.direction, *map(objective_facts, parts)]


def objective_of(facts: Sequence[Any]) -> Any:
    """Return the objective from the output of `objective_facts`."""
    name, direction, *parts = facts
    pairs = [(name, direction) for name, direction, *_ in parts]
    return make_objective(pairs or (name, direction))


def settings(
    data: Any, fit_arguments: Mapping[str, Any], executions_per_trial: int = 1
) -> dict[str, Any]:
    """Return the part of a search's identity besides its space and its tuner."""
    given = {f"{name} of fit": described(v) for name, v in fit_arguments.items()}
    return {
        "data": fingerprint(data),
        "executions_per_trial": executions_per_trial,
        **given,
    }


def plain_settings(oracle: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(oracle).items()
        if isinstance(value, bool | int | float | str) and name not in MAY_CHANGE
    }
