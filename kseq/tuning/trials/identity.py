"""Identity of a search: everything that determines its trials, by name."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from kseq.tuning.call_tree import Call
from kseq.tuning.fingerprint import described, fingerprint
from kseq.tuning.naming import fixed_values
from kseq.tuning.objectives import make_objective

FORMAT = 4
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
    fixed = fixed_values(space) if isinstance(space, Call) else {}
    return {
        "format": FORMAT,
        "tuner": type(oracle).__name__,
        "settings of the tuner": fingerprint([type(oracle), plain_settings(oracle)]),
        "objective": objective_facts(oracle.objective),
        "seed": oracle.seed,
        "hyperparameters": [h.name for h in known.space],
        "ranges": ranges(known),
        "epochs": getattr(oracle, "max_epochs", None),
        **({"first": first} if first else {}),
        **settings,
        "space": described(space),
        **{f"{name} of the space": value for name, value in fixed.items()},
    }


def ranges(known: Any) -> dict[str, Any]:
    """Return the arguments of each hyperparameter, by name and condition."""
    found: dict[str, Any] = {}
    for each in known.get_config()["space"]:
        config = {"kind": each["class_name"], **each["config"]}
        conditions = [parent["config"] for parent in config.pop("conditions", [])]
        name = config.pop("name")
        if name in found:  # with another condition
            name = f"{name} if {conditions}"
        found[name] = json.loads(json.dumps({**config, "conditions": conditions}))
    return found


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Describe in words how two identities differ.

    Fingerprints are not shown, nor keys whose change another one tells in more detail.
    """
    unlike = [k for k in sorted({*there, *here}) if there.get(k) != here.get(k)]
    told = _different_ranges(there.get("ranges"), here.get("ranges"))
    redundant = {"ranges", "hyperparameters"} if told else set[str]()
    if told or any(key.endswith(" of the space") for key in unlike):
        redundant.add("space")
    if "tuner" in unlike:
        redundant.add("settings of the tuner")
    for name in told:  # the options that only one side has
        inside = [
            k for k in unlike if k.removesuffix(" of the space").startswith(f"{name}/")
        ]
        redundant |= {k for k in inside if there.get(k) is None or here.get(k) is None}
    rest = [_difference(k, there, here) for k in unlike if k not in redundant]
    return [*told.values(), *rest]


def _different_ranges(there: Any, here: Any) -> dict[str, str]:
    if not isinstance(there, dict) or not isinstance(here, dict):
        return {}
    found = {}
    for name in {**there, **here}:
        old, new = there.get(name), here.get(name)
        if old is None or new is None:
            found[name] = f"{name}: only {'there' if old else 'here'}"
        elif unlike := [k for k in {**old, **new} if old.get(k) != new.get(k)]:
            texts = [_difference(k, old, new) for k in unlike]
            found[name] = f"{name} has other {', '.join(texts)}"
    return found


def _difference(key: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    old, new = brief(there.get(key)), brief(here.get(key))
    return f"{key}: changed" if old == new else f"{key}: there {old}, here {new}"


def brief(value: Any, length: int = 60) -> str:
    """Return a short text, without the fingerprint of `described`."""
    text = re.sub(r"(^| )[0-9a-f]{16}$", "", str(value))
    return text if len(text) <= length else text[: length - 3] + "..."


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
