"""Objectives of a search: metrics and their directions."""

import contextlib
from collections.abc import Sequence
from typing import Any, Literal

import keras_tuner

from kseq.training.directions import known_direction


def objective(
    name: str, direction: Literal["min", "max"] | None = None
) -> keras_tuner.Objective:
    """Make the objective of a search.

    Args:
        name: A value that `fit` reports, such as "val_loss", or that
            `kseq.training.GenerationScores` adds, such as "val_written_bleu".
        direction: "min" or "max". None to derive it from the name: losses, errors,
            error rates and CRPS are "min"; accuracies, F1, exact match, BLEU and chrF
            are "max"; Keras' metrics are as KerasTuner knows them.

    Returns:
        A `keras_tuner.Objective`.

    Raises:
        ValueError: The direction is invalid, or None for an unknown name.

    Example:

    >>> from kseq.tuning import objective
    >>> objective("val_written_edit_distance_rate").direction
    'min'
    """
    if direction in ("min", "max"):
        return keras_tuner.Objective(name, direction)
    if direction is None:
        with contextlib.suppress(ValueError):
            return make_objective(name)
    raise ValueError(
        '`direction` must be "min" or "max", or None for a name whose direction is '
        f"known. Received: name={name!r}, direction={direction!r}."
    )


def make_objective(objective: Any) -> Any:
    """Return KerasTuner's `Objective`, with its direction inferred if possible.

    Args:
        objective: A name, a pair of a name and a direction, an `Objective`, or a list
            of these.

    Raises:
        ValueError: The direction of a metric is unknown.
    """
    if isinstance(objective, list) and is_plain(objective):
        parts = [make_objective(part) for part in objective]
        return keras_tuner.oracles.RandomSearchOracle(objective=parts).objective
    found = objective
    if isinstance(objective, tuple) and len(objective) == 2:
        found = keras_tuner.Objective(*objective)
    elif isinstance(objective, str):
        found = inferred(objective)
    ok = isinstance(found, keras_tuner.Objective)
    if not ok or found.direction not in ("min", "max"):
        name = objective if isinstance(objective, str) else "val_loss"
        raise ValueError(
            "`objective` must be a metric of Keras or kseq, or a metric and its "
            "direction, or a list of these. Received: objective="
            f'{objective!r}. Pass ("{getattr(found, "name", name)}", "max") or (..., '
            '"min"); several go into one list: ["val_loss", ("val_rank", "max")].'
        )
    return found


def is_plain(objectives: Sequence[Any]) -> bool:
    """Return whether a list has items, none of which are lists."""
    return bool(objectives) and not any(isinstance(x, list) for x in objectives)


def names_of(objective: Any) -> Any:
    """Return the metrics that an objective reads: a name, or a list of names."""
    parts = getattr(objective, "objectives", None)
    return [part.name for part in parts] if parts else objective.name


def inferred(name: str) -> keras_tuner.Objective | None:
    """Return the objective of a name, or None if its direction is unknown."""
    if known := known_direction(name):
        return keras_tuner.Objective(name, known)
    with contextlib.suppress(ValueError):  # KerasTuner looks at Keras' metrics
        return keras_tuner.oracles.RandomSearchOracle(objective=name).objective
    return None
