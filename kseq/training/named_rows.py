"""Several inputs by name, as dictionaries that may be nested."""

from collections.abc import Iterable
from typing import Any


def each_input(data: Any) -> list[Any]:
    """List the inputs in order. A single input gives a list of one."""
    if isinstance(data, dict):
        return [rows for part in data.values() for rows in each_input(part)]
    return [data]


def by_name(data: Any, values: Iterable[Any]) -> Any:
    """Return the values, one per input, under the names of the data."""
    values = iter(values)

    def filled(part):
        if isinstance(part, dict):
            return {name: filled(each) for name, each in part.items()}
        return next(values)

    return filled(data)


def names_of(name: str, data: Any) -> list[str]:
    """List the names of the inputs for messages, such as `source["tags"]`."""
    if isinstance(data, dict):
        return [
            label
            for key, part in data.items()
            for label in names_of(f'{name}["{key}"]', part)
        ]
    return [name]
