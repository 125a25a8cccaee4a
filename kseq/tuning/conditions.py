"""Conditions on choices under which a dimension is used.

A condition is a dict `{choice: labels}`: each of these choices has one of its labels.
The empty dict always holds. The choices are in the order of their nesting, so that each
is itself active if the ones before it hold.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

Condition: TypeAlias = dict[Any, frozenset[Any]]
Entries: TypeAlias = Mapping[Any, tuple[Any, Sequence[Condition]]]


def disjoint(
    conditions: Sequence[Condition], labels: Callable[[Any], frozenset[Any]]
) -> list[Condition]:
    """Return conditions, no two of which hold at once, that cover the given ones.

    Args:
        conditions: List of conditions.
        labels: Function from a choice to the set of its labels.
    """
    pieces: list[Condition] = []
    pieces = []
    for condition in sorted(conditions, key=len):
        rest = [condition]
        for piece in pieces:
            rest = [part for whole in rest for part in _without(whole, piece, labels)]
        pieces += rest
    while pair := _mergeable(pieces):
        first, second, choice = pair
        union = first[choice] | second[choice]
        merged = {**first, choice: union}
        if union == labels(choice):
            del merged[choice]
        pieces = [p for p in pieces if p is not first and p is not second] + [merged]
    return pieces


def enclosing(conditions: Sequence[Condition]) -> Condition:
    """Return the narrowest single condition that holds if any of the given ones does.

    KerasTuner has no "or". Several hyperparameters of one name do not help: its
    `ensure_active_values` drops the value of all of them if one is inactive.
    """
    shared = set.intersection(*({*condition} for condition in conditions))
    return {
        choice: frozenset().union(*(condition[choice] for condition in conditions))
        for choice in conditions[0]
        if choice in shared
    }


def _without(
    condition: Condition, other: Condition, labels: Callable[[Any], frozenset[Any]]
) -> list[Condition]:
    """Return disjoint conditions that hold where `condition` does and `other` not."""
    parts: list[Condition] = []
    inside = condition
    for choice, chosen in other.items():
        possible = inside.get(choice, labels(choice))
        if outside := possible - chosen:
            parts.append({**inside, choice: outside})
        if not possible & chosen:
            return parts
        inside = {**inside, choice: possible & chosen}
    return parts


def _mergeable(
    pieces: Sequence[Condition],
) -> tuple[Condition, Condition, Any] | None:
    """Return two conditions that differ in only one choice, and that choice."""
    for i, first in enumerate(pieces):
        for second in pieces[i + 1 :]:
            if first.keys() == second.keys():
                differing = [c for c in first if first[c] != second[c]]
                if len(differing) == 1:
                    return first, second, differing[0]
    return None


def is_active(conditions: Sequence[Condition], values: Mapping[Any, Any]) -> bool:
    """Return whether one of the conditions holds for values by choice."""
    return any(
        all(
            choice in values and values[choice] in chosen
            for choice, chosen in c.items()
        )
        for c in conditions
    )


def count_points(entries: Entries) -> float:
    """Count the different points of a space, ignoring values that are not used.

    Args:
        entries: Dict from a choice, or another dimension, to `(labels or number of
            values, disjoint conditions)`.
    """
    total: float = 1
    for part in _independent(entries):
        total *= _count_dependent(part)
    return total


def _count_dependent(entries: Entries) -> float:
    parents = {choice for _, cs in entries.values() for c in cs for choice in c}
    if not parents:
        [(values, _)] = entries.values()
        return len(values) if isinstance(values, list) else values
    root = next(x for x in entries if x in parents and {} in entries[x][1])
    rest = {x: entry for x, entry in entries.items() if x is not root}
    return sum(count_points(_given(rest, root, x)) for x in entries[root][0])


def _given(entries: Entries, choice: Any, label: Any) -> Entries:
    """Return the entries that may be active for one label of a choice."""
    result: dict[Any, tuple[Any, list[Condition]]] = {}
    for x, (values, conditions) in entries.items():
        fitting = [
            {other: chosen for other, chosen in c.items() if other is not choice}
            for c in conditions
            if label in c.get(choice, (label,))
        ]
        if fitting:
            result[x] = values, fitting
    return result


def _independent(entries: Entries) -> list[Entries]:
    """Split entries into parts that share no condition."""
    group = {x: {x} for x in entries}
    for x, (_, conditions) in entries.items():
        for choice in {choice for c in conditions for choice in c}:
            if group[x] is not group[choice]:
                group[x] |= group[choice]
                for member in group[choice]:
                    group[member] = group[x]
    parts = {id(part): part for part in group.values()}.values()
    return [{x: e for x, e in entries.items() if x in part} for part in parts]
