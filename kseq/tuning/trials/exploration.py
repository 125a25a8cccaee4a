"""Exploration: find the hyperparameters of a space by building models in a process."""

import math
import re
import tempfile
from typing import Any, NoReturn

import keras_tuner

from kseq.tuning.trials.attempts import Attempt, Engine, hear
from kseq.tuning.trials.errors import SearchFailed
from kseq.tuning.trials.execution import has_own_fit, require_model
from kseq.tuning.trials.job import Exit, Explored, Failed, Job, Lost
from kseq.tuning.trials.layout import SearchDirectory
from kseq.tuning.trials.oracles import hyperparameters_from

EXPLORER = "explorer"


def explored(space: Any, server: Engine, seed: int) -> Any:
    """Return the hyperparameters of a space, which a separate process finds.

    Raises:
        SearchFailed: The space builds no model.
        ValueError: There is nothing to search, nor a custom `fit` that may add it.
    """
    answer = ask_explorer(server, seed)
    if isinstance(answer, Explored):
        known = hyperparameters_from(answer.space)
        if not is_searchable(known) and not has_own_fit(space):
            refuse_space(space)
        return known
    if name := name_under_the_guard(answer.reason):
        raise SearchFailed(
            "The functions and classes of a search must be at the top of a script, "
            f"which each trial imports. Received: `{name}`, which is under `if "
            f'__name__ == "__main__":`. Move `{name}` to the top of the script, above '
            "`if __name__ ...`."
        )
    details = f"\n{answer.details}" if answer.details else ""
    raise SearchFailed(
        "`space` must build a model before any trial can run. Received: "
        f"{space!r}, which failed with {answer.reason}{details}"
    )


def ask_explorer(server: Engine, seed: int) -> Explored | Failed:
    """Return the answer of the exploring process, `Explored` or `Failed`."""
    answer: Explored | Failed | None = None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        attempt = Attempt(server, SearchDirectory(folder), Job(EXPLORER, seed))
        while True:
            for _, message in hear(server, [attempt], 60):
                match message:
                    case Explored() | Failed():
                        answer = message
                    case Exit():
                        return answer or Failed(message.reason())
                    case Lost():
                        raise SearchFailed(
                            "The server of the trials' processes ended before any "
                            "trial. A script that searches needs "
                            '`if __name__ == "__main__":` around the call; its '
                            "messages are above."
                        )


def name_under_the_guard(reason: str) -> str | None:
    """Return the name that another process missed in the script, or None."""
    form = r"AttributeError: .*attribute '(\w+)' on <module '__mp_main__'"
    found = re.match(form, reason)
    return found and found[1]


def refuse_space(space: Any) -> NoReturn:
    raise ValueError(
        "`space` must have a hyperparameter to search over. Received: "
        f"{space!r}, which has none with more than one value."
    )


def complete(values: dict[str, Any], known: Any) -> dict[str, Any]:
    """Return values with defaults for missing ones.

    Raises:
        ValueError: A value has no hyperparameter, or one that is not used.
    """
    hp = keras_tuner.HyperParameters()
    for parameter in known.space:
        hp.merge([parameter])
        if hp.is_active(parameter):
            hp.values[parameter.name] = values.get(parameter.name, parameter.default)
    if unknown := [name for name in values if name not in hp.values]:
        raise ValueError(
            "`first` must contain values of hyperparameters that are used: "
            f"{list(hp.values)}. Received: {unknown}."
        )
    return dict(hp.values)


def count_points(space: Any) -> float:
    """Return the number of different points of a space, infinite if it is unknown."""
    return space.count() if hasattr(space, "count") else math.inf


def is_searchable(hyperparameters: Any) -> bool:
    return any(count_values(hp) > 1 for hp in hyperparameters.space)


def count_values(hp: Any) -> int:
    """Return the number of values of a hyperparameter; 2 stands for any above 1."""
    if isinstance(hp, keras_tuner.engine.hyperparameters.Fixed):
        return 1
    if isinstance(hp, keras_tuner.engine.hyperparameters.Choice):
        return len(hp.values)
    low, high = getattr(hp, "min_value", 0), getattr(hp, "max_value", 1)
    return 1 if low == high else 2


# The following runs in the separate process.


def explore(space: Any) -> dict[str, Any]:
    """Return the hyperparameters of a space, including those behind conditions.

    A condition that held in no build hides the hyperparameters behind it, so a model is
    built for each condition.
    """
    known = keras_tuner.HyperParameters()
    space.declare_hyperparameters(known)
    hp = known.copy()
    met: list[Any] = []
    unmet: list[Any] = []
    while True:
        require_model(space.build(hp))
        new = [h for h in hp.space if not known._exists(h.name, h.conditions)]
        known.merge(new)
        met += [c for c in hp.active_scopes if c not in met]
        unmet += [c for c in hp.inactive_scopes if c not in unmet]
        unmet = [c for c in unmet if c not in met]
        if not unmet:
            return known.get_config()
        met.append(unmet[0])  # try once; the condition may be impossible
        hp = known.copy()
        for condition in unmet[0]:
            hp.values[condition.name] = condition.values[0]
        hp.ensure_active_values()
