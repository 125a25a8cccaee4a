"""When a dimension matters: which options must be chosen for it to be used.

A condition is a dict `{choice: labels}`: each of these choices has one of its labels.
The empty dict always holds. The choices stand in the order of their nesting, so that
each is itself active where those before it hold.
"""


def disjoint(conditions, labels):
    """Conditions that hold where any of the given ones holds, and never two at once.

    Args:
        conditions: List of conditions.
        labels: Function of a choice that gives the set of its labels.
    """
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


def enclosing(conditions):
    """The narrowest single condition that holds wherever one of the given ones does.

    KerasTuner knows no "or". Several hyperparameters of one name are no way out: its
    `ensure_active_values` drops the value of all where one is inactive.
    """
    shared = set.intersection(*({*condition} for condition in conditions))
    return {
        choice: frozenset().union(*(condition[choice] for condition in conditions))
        for choice in conditions[0]
        if choice in shared
    }


def _without(condition, other, labels):
    """Disjoint conditions that hold where the one holds and the other does not."""
    parts, inside = [], condition
    for choice, chosen in other.items():
        possible = inside.get(choice, labels(choice))
        if outside := possible - chosen:
            parts.append({**inside, choice: outside})
        if not possible & chosen:
            return parts
        inside = {**inside, choice: possible & chosen}
    return parts


def _mergeable(pieces):
    """Two conditions that differ in one choice alone, and that choice."""
    for i, first in enumerate(pieces):
        for second in pieces[i + 1 :]:
            if first.keys() == second.keys():
                differing = [c for c in first if first[c] != second[c]]
                if len(differing) == 1:
                    return first, second, differing[0]
    return None


def is_active(conditions, values):
    """Whether one of the conditions holds for values by choice."""
    return any(
        all(
            choice in values and values[choice] in chosen
            for choice, chosen in c.items()
        )
        for c in conditions
    )


def count_points(entries):
    """How many different points there are, values that do not matter left out.

    Args:
        entries: A dict of a choice, or anything else that has values, to
            `(labels or number of values, disjoint conditions)`.
    """
    total = 1
    for part in _independent(entries):
        total *= _count_dependent(part)
    return total


def _count_dependent(entries):
    parents = {choice for _, cs in entries.values() for c in cs for choice in c}
    if not parents:
        [(values, _)] = entries.values()
        return len(values) if isinstance(values, list) else values
    root = next(x for x in entries if x in parents and {} in entries[x][1])
    rest = {x: entry for x, entry in entries.items() if x is not root}
    return sum(count_points(_given(rest, root, x)) for x in entries[root][0])


def _given(entries, choice, label):
    """The entries that may be active once a choice is made."""
    result = {}
    for x, (values, conditions) in entries.items():
        fitting = [
            {other: chosen for other, chosen in c.items() if other is not choice}
            for c in conditions
            if label in c.get(choice, (label,))
        ]
        if fitting:
            result[x] = values, fitting
    return result


def _independent(entries):
    """Splits entries into parts that share no condition."""
    group = {x: {x} for x in entries}
    for x, (_, conditions) in entries.items():
        for choice in {choice for c in conditions for choice in c}:
            if group[x] is not group[choice]:
                group[x] |= group[choice]
                for member in group[choice]:
                    group[member] = group[x]
    parts = {id(part): part for part in group.values()}.values()
    return [{x: e for x, e in entries.items() if x in part} for part in parts]
