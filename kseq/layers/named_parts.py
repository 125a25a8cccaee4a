"""Parts by name: one layer for each of several inputs."""

import keras


def check_parts(name, parts, kind, example):
    """Return the parts as a dictionary, if each is a layer of the kind with a name.

    Args:
        name: What the argument is called.
        parts: What was given.
        kind: The classes of which a part must be.
        example: Code that would be right.
    """
    is_dictionary = isinstance(parts, dict) and len(parts) > 0
    if not is_dictionary or not all(isinstance(x, kind) for x in parts.values()):
        raise ValueError(
            f"`{name}` must be a dictionary with a layer for each name. Received: "
            f"{name}={parts!r}. Write {example}."
        )
    for key in parts:
        if not isinstance(key, str) or not key.isidentifier():
            raise ValueError(
                f"A name in `{name}` must be of letters, digits and underscores, and "
                f"begin with no digit. Received: {key!r}. Write {example}."
            )
    return dict(parts)


def check_names(name, given, expected):
    """Raise unless a dictionary has exactly the names that are expected."""
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


def rows_by_name(name, columns, unit="rows"):
    """A dictionary for each row, of columns by name that have as many rows.

    Args:
        name: What the argument is called.
        columns: Lists by name.
        unit: What the rows are called.

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


def serialize_parts(parts):
    """The config of layers by name; of a layer that stands there before, its name."""
    configs, names = {}, {}
    for name, part in parts.items():
        first = names.setdefault(id(part), name) if part is not None else name
        is_first = first == name
        configs[name] = keras.saving.serialize_keras_object(part) if is_first else first
    return configs


def deserialize_parts(configs):
    """The layers of a config that `serialize_parts` has made."""
    parts = {}
    for name, config in configs.items():
        is_name = isinstance(config, str)
        parts[name] = (
            parts[config] if is_name else keras.saving.deserialize_keras_object(config)
        )
    return parts
