"""What a search of models that write shall reach: measured on what they do write."""

import contextlib

import keras_tuner

from kseq.training.directions import known_direction


def objective(name, direction=None):
    """The objective of a search, with its direction.

    Args:
        name: A value that `fit` reports, such as "val_loss", or that
            `kseq.training.GenerationScores` adds to it, such as "val_written_bleu".
        direction: "min" or "max". None for what is known of the name: losses, errors
            and rates of errors fall, accuracies, F1, exact match, BLEU and chrF rise;
            else what KerasTuner knows of Keras' metrics.

    Returns:
        A `keras_tuner.Objective`.

    Raises:
        ValueError: The direction is neither of these, or is not known.

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
        '`direction` must be "min" or "max", and may be None for a value that is known '
        f"to rise or fall. Received: name={name!r}, direction={direction!r}."
    )


def make_objective(objective):
    """Returns KerasTuner's `Objective`, its direction inferred where that is possible.

    Args:
        objective: A name, a pair of a name and a direction, an `Objective`, or a list
            of these.

    Raises:
        ValueError: The direction of a metric is not known.
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
            "`objective` must be a metric of Keras or kseq, or a metric and whether "
            "less or more of it is better, or a list of these. Received: objective="
            f'{objective!r}. Pass ("{getattr(found, "name", name)}", "max") or (..., '
            '"min"); several go into one list: ["val_loss", ("val_rank", "max")].'
        )
    return found


def is_plain(objectives):
    """Tell whether a list has parts, none of which are lists."""
    return bool(objectives) and not any(isinstance(x, list) for x in objectives)


def names_of(objective):
    """Return the metrics that an objective reads: a name, or a list of names."""
    parts = getattr(objective, "objectives", None)
    return [part.name for part in parts] if parts else objective.name


def inferred(name):
    """The objective of a name, or None if its direction is known to nobody."""
    if known := known_direction(name):
        return keras_tuner.Objective(name, known)
    with contextlib.suppress(ValueError):  # KerasTuner asks Keras' metrics
        return keras_tuner.oracles.RandomSearchOracle(objective=name).objective
    return None
