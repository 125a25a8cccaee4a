import itertools
import random

from kseq.tuning.conditions import count_points, disjoint, is_active

LABELS = {"a": frozenset("123"), "b": frozenset("xy"), "c": frozenset("pqr")}


def points():
    return [
        dict(zip(LABELS, values, strict=True))
        for values in itertools.product(*LABELS.values())
    ]


def random_conditions(draw):
    return [
        {
            choice: frozenset(draw.sample(sorted(LABELS[choice]), draw.randint(1, 2)))
            for choice in sorted(draw.sample(sorted(LABELS), draw.randint(0, 3)))
        }
        for _ in range(draw.randint(1, 4))
    ]


def test_disjoint_conditions_hold_where_the_given_ones_do_and_never_twice():
    draw = random.Random(5)
    for _ in range(300):
        given = random_conditions(draw)
        parts = disjoint(given, LABELS.get)
        for point in points():
            times = sum(is_active([part], point) for part in parts)
            assert times == is_active(given, point), (given, parts, point)


def test_conditions_that_differ_in_one_choice_are_one():
    both = disjoint([{"a": frozenset("1")}, {"a": frozenset("2")}], LABELS.get)
    assert both == [{"a": frozenset("12")}]
    every = [{"a": frozenset(label)} for label in "123"]
    assert disjoint(every, LABELS.get) == [{}]


def test_points_are_counted_as_enumeration_counts_them():
    draw = random.Random(7)
    for _ in range(200):
        entries = {x: (sorted(labels), [{}]) for x, labels in LABELS.items()}
        for name, size in (("d", 2), ("e", 3)):
            entries[name] = size, disjoint(random_conditions(draw), LABELS.get)
        expected = 0
        for point in points():
            factors = [
                size
                for size, when in list(entries.values())[3:]
                if is_active(when, point)
            ]
            expected += (
                factors[0] * factors[1] if len(factors) == 2 else sum(factors) or 1
            )
        assert count_points(entries) == expected


def test_counting_many_independent_choices_takes_no_time():
    entries = {}
    for index in range(60):
        choice = f"choice {index}"
        entries[choice] = ["a", "b"], [{}]
        entries[f"inside {index}"] = 2, [{choice: frozenset("a")}]
    assert count_points(entries) == 3**60
