"""Curves: the metrics of a training by name, from the logs of its epochs."""

from collections.abc import Sequence
from typing import Any


def columns(logs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the metrics of all epochs by name, as in Keras' `History`."""
    names = dict.fromkeys(name for row in logs for name in row)
    return {name: [row[name] for row in logs if name in row] for name in names}


def aligned(logs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the metrics by name, with None for epochs without such a metric."""
    names = dict.fromkeys(name for row in logs for name in row)
    return {name: [row.get(name) for row in logs] for name in names}


def any_value(curve: Sequence[float | None]) -> bool:
    return any(value is not None for value in curve)


def filled(curve: Sequence[float | None]) -> list[float]:
    """Fill epochs without a value with the last value before, or the first one."""
    values, last = [], next(value for value in curve if value is not None)
    for value in curve:
        last = last if value is None else value
        values.append(last)
    return values
