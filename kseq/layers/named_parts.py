"""Dictionaries of layers and of data: one entry for each of several named inputs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras


def check_parts(name: str, parts: Any, kind: Any, example: str) -> dict[str, Any]:
    """Return a copy of a dictionary of layers; raise if it is anything else.

    Args:
        name: Name of the argument, for the message.
        parts: Value of the argument.
        kind: Class or union of classes that each layer must belong to.
        example: Correct code, for the message.

    Raises:
        ValueError: `parts` is not a dictionary, a layer is not of the kind, or a name
            is not an identifier.
    """
    is_dictionary = isinstance(parts, dict) and len(parts) > 0
    if not is_dictionary or not all(isinstance(x, kind) for x in parts.values()):
        raise ValueError(
            f"`{name}` must be a dictionary with a layer for each name. Received: "
            f"{name}={parts!r}. Write for example {example}."
        )
    for key in parts:
        if not isinstance(key, str) or not key.isidentifier():
            raise ValueError(
                f"A name in `{name}` must consist of letters, digits and underscores, "
                f"and must not start with a digit. Received: {key!r}. Write for "
                f"example {example}."
            )
    return dict(parts)


def check_names(name: str, given: Any, expected: Iterable[str]) -> None:
    """Raise unless a dictionary has exactly the expected names."""
    expected = list(expected)
    if not isinstance(given, dict):
        example = ", ".join(f'"{key}": ...' for key in expected)
        raise ValueError(
            f"`{name}` must be a dictionary, {{{example}}}. Received: "
            f"{type(given).__name__}."
        )
    if set(given) != set(expected):
        missing = [key for key in expected if key not in given]
        unknown = [key for key in given if key not in expected]
        problems = [f"without {missing}"] * bool(missing)
        problems += [f"with {unknown}, unknown to the model"] * bool(unknown)
        raise ValueError(
            f"`{name}` must have the names {expected}. Received: {name} "
            f"{' and '.join(problems)}."
        )


def rows_by_name(
    name: str, columns: Mapping[str, Sequence[Any]], unit: str = "rows"
) -> list[dict[str, Any]]:
    """Convert a dictionary of columns to a list of rows, each a dictionary.

    Args:
        name: Name of the argument, for the message.
        columns: Lists by name, all of the same length.
        unit: Word for the rows in the message.

    Raises:
        ValueError: The columns have different numbers of rows.
    """
    counts = {key: len(rows) for key, rows in columns.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"`{name}` must have as many {unit} under each name. Received: {counts} "
            f"{unit}."
        )
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


def serialize_parts(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configs of layers by name, or for a repeated layer its first name."""
    configs: dict[str, Any] = {}
    names: dict[int, str] = {}
    for name, part in parts.items():
        first = names.setdefault(id(part), name) if part is not None else name
        is_first = first == name
        configs[name] = keras.saving.serialize_keras_object(part) if is_first else first
    return configs


def deserialize_parts(configs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the layers from the result of `serialize_parts`."""
    parts: dict[str, Any] = {}
    for name, config in configs.items():
        is_name = isinstance(config, str)
        parts[name] = (
            parts[config] if is_name else keras.saving.deserialize_keras_object(config)
        )
    return parts
