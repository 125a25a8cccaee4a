"""Checks of the arguments of a search, before anything runs."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import keras_tuner

from kseq.tuning.space import Space


def check_numbers(least: int = 1, **numbers: Any) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise ValueError(
                f"`{name}` must be an integer of {least} or more. Received: "
                f"{name}={number!r}."
            )


def check_space(space: Any) -> None:
    """Check what needs no model. The processes of a search check the rest."""
    if isinstance(space, Space):
        space.declare_hyperparameters(keras_tuner.HyperParameters())


def checked_first(first: Any, oracle: Any, space: Any) -> list[dict[str, Any]]:
    is_list = isinstance(first, list | tuple)
    if not is_list or not all(isinstance(values, dict) for values in first):
        raise ValueError(
            f"`first` must be a list of dicts of values. Received: first={first!r}."
        )
    if first and isinstance(oracle, keras_tuner.oracles.GridSearchOracle):
        raise ValueError(
            f"`first` must be empty for the grid, which tries all. Received: {first}."
        )
    for number, values in enumerate(first if isinstance(space, Space) else ()):
        try:
            space.checked_values(values)
        except ValueError as error:
            raise ValueError(f"`first[{number}]`: {error}") from None
    return list(first)


def check_rules(stopping: Any, **seconds: Any) -> None:
    is_rule = callable(getattr(stopping, "is_hopeless", None))
    if stopping is not None and (not is_rule or isinstance(stopping, type)):
        raise ValueError(
            "`stopping` must be None or a rule such as `MedianStopping()`, with "
            f"parentheses. Received: stopping={stopping!r}."
        )
    for name, limit in seconds.items():
        is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
        if limit is not None and not (is_number and limit > 0):
            raise ValueError(
                f"`{name}` must be None or a number of seconds above 0. Received: "
                f"{name}={limit!r}."
            )


def as_directory(directory: Any) -> Path:
    if not isinstance(directory, str | os.PathLike):
        raise ValueError(
            "`directory` must be the path of a folder. Received: "
            f"directory={directory!r}."
        )
    return Path(directory)


def require_tensorboard() -> None:
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "tensorboard=True needs the package tensorboard. Received: an environment "
            "without it. Install it: pip install tensorboard."
        )
