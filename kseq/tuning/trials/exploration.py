"""The hyperparameters of a space, found by building models in a process."""

import tempfile

import keras_tuner

from kseq.tuning.trials.attempts import Attempt, hear
from kseq.tuning.trials.errors import SearchFailed
from kseq.tuning.trials.execution import has_own_fit, require_model
from kseq.tuning.trials.job import Exit, Explored, Failed, Job, Lost
from kseq.tuning.trials.layout import SearchDirectory
from kseq.tuning.trials.oracles import hyperparameters_from

EXPLORER = "explorer"


def explored(space, server, seed):
    """Returns the hyperparameters of a space; a process of its own finds them.

    Raises:
        SearchFailed: The space builds no model.
        ValueError: It has nothing to search over, and no `fit` that might have.
    """
    answer = ask_explorer(server, seed)
    if isinstance(answer, Explored):
        known = hyperparameters_from(answer.space)
        if not is_searchable(known) and not has_own_fit(space):
            refuse_space(space)
        return known
    details = f"\n{answer.details}" if answer.details else ""
    raise SearchFailed(
        "`space` must build a model before any trial can run. Received: "
        f"{space!r}, which failed with {answer.reason}{details}"
    )


def ask_explorer(server, seed):
    """Returns what the process says that explores, `Explored` or `Failed`."""
    answer = None
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
                            '`if __name__ == "__main__":` around the call, and its '
                            "messages stand above."
                        )


def refuse_space(space):
    raise ValueError(
        "`space` must have a hyperparameter to search over. Received: "
        f"{space!r}, which has none with more than one value."
    )


def complete(values, space, known):
    """Values with the defaults of what is missing.

    Raises:
        ValueError: A value has no hyperparameter, or one that does not count.
    """
    if hasattr(space, "checked_values"):
        space.checked_values(values)
    hp = keras_tuner.HyperParameters()
    for parameter in known.space:
        hp.merge([parameter])
        if hp.is_active(parameter):
            hp.values[parameter.name] = values.get(parameter.name, parameter.default)
    if unknown := [name for name in values if name not in hp.values]:
        raise ValueError(
            "`first` must hold values of hyperparameters that count: "
            f"{list(hp.values)}. Received: {unknown}."
        )
    return dict(hp.values)


def is_searchable(hyperparameters):
    return any(count_values(hp) > 1 for hp in hyperparameters.space)


def count_values(hp):
    """How many values a hyperparameter can take; 2 stands for any number above 1."""
    if isinstance(hp, keras_tuner.engine.hyperparameters.Fixed):
        return 1
    if isinstance(hp, keras_tuner.engine.hyperparameters.Choice):
        return len(hp.values)
    low, high = getattr(hp, "min_value", 0), getattr(hp, "max_value", 1)
    return 1 if low == high else 2


# What follows runs in the process.


def explore(space):
    """Returns the hyperparameters of a space, those of every condition among them.

    A condition that no build has met hides what is behind it, so a model is built for
    each of them.
    """
    known = keras_tuner.HyperParameters()
    space.declare_hyperparameters(known)
    hp, met, unmet = known.copy(), [], []
    while True:
        require_model(space.build(hp))
        new = [h for h in hp.space if not known._exists(h.name, h.conditions)]
        known.merge(new)
        met += [c for c in hp.active_scopes if c not in met]
        unmet += [c for c in hp.inactive_scopes if c not in unmet]
        unmet = [c for c in unmet if c not in met]
        if not unmet:
            return known.get_config()
        met.append(unmet[0])  # once is enough, should it be impossible
        hp = known.copy()
        for condition in unmet[0]:
            hp.values[condition.name] = condition.values[0]
        hp.ensure_active_values()
