"""Names of the dimensions of a space, and the conditions under which they are used."""

from collections.abc import Iterator
from typing import Any

from kseq.tuning import conditions
from kseq.tuning.call_tree import Call, children
from kseq.tuning.choice import Choice
from kseq.tuning.conditions import Condition
from kseq.tuning.dimensions import Dimension
from kseq.tuning.fingerprint import described

MOST_VALUES = 20  # of a list: a longer one is data


def entries(root: Any) -> list[tuple[str, Dimension, list[Condition]]]:
    """List all dimensions as `(name, dimension, disjoint conditions)`.

    A dimension comes after those that it depends on, as KerasTuner requires.
    """
    found: dict[Dimension, list[tuple[tuple[str, ...], Condition]]] = {}
    for dimension, path, when in _places(root, (), {}):
        found.setdefault(dimension, []).append((path, when))
    names = {
        dimension: _shortest([path for path, _ in places])
        for dimension, places in found.items()
    }
    _check_names(names)
    alternatives = {
        dimension: conditions.disjoint([when for _, when in places], _label_set)
        for dimension, places in found.items()
    }
    ordered: dict[Dimension, tuple[str, Dimension, list[Condition]]] = {}

    def enter(dimension):
        for when in alternatives[dimension]:
            for choice in when:
                enter(choice)
        entry = names[dimension], dimension, alternatives[dimension]
        ordered.setdefault(dimension, entry)

    for dimension in alternatives:
        enter(dimension)
    return list(ordered.values())


def fixed_values(node: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the values, functions and objects that are not searched, by name."""
    found: dict[str, Any]
    if isinstance(node, Call):
        found = {"/".join(path): described(node.function)} if path else {}
    elif children(node) and not is_data(node) or isinstance(node, Dimension):
        found = {}
    else:
        return {"/".join(path): described(node)}
    for key, child in children(node):
        found |= fixed_values(child, (*path, key))
    return found


def _shortest(paths: list[tuple[str, ...]]) -> str:
    path = min(paths, key=len)
    return "/".join(path)


def is_data(node: Any) -> bool:
    return isinstance(node, list | tuple) and len(node) > MOST_VALUES


def _places(
    node: Any, path: tuple[str, ...], when: Condition
) -> Iterator[tuple[Dimension, tuple[str, ...], Condition]]:
    """Yield `(dimension, path, condition)` for each place of a dimension in a tree."""
    if isinstance(node, Dimension):
        path = path if node.name is None else (node.name,)
        yield node, path, when
    if not isinstance(node, Choice):
        for key, child in children(node):
            yield from _places(child, (*path, key), when)
        return
    for label, (key, child) in zip(node.labels, children(node), strict=True):
        inside = {**when, node: frozenset([label]) & when.get(node, {label})}
        if inside[node]:
            yield from _places(child, (*path, key), inside)


def _label_set(choice: Choice) -> frozenset[Any]:
    return frozenset(choice.labels)


def _check_names(names: dict[Dimension, str]) -> None:
    by_name: dict[str, Dimension] = {}
    for dimension, name in names.items():
        if by_name.setdefault(name, dimension) is not dimension:
            raise ValueError(
                "Dimensions of a space must have different names. Received: "
                f"{by_name[name]} and {dimension}, both with name={name!r}. Rename "
                "one, or use one object in both places."
            )
