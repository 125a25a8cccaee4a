import itertools
import random

from kseq.tuning.conditions import count_points, disjoint, is_active

LABELS = {"a": frozenset("123"), "b": frozenset("xy"), "c": frozenset("pqr")}


def points():
    return [
        dict(zip(LABELS, values, strict=True))
        for values in itertools.product(*LABELS.values())
    ]


def random_conditions(rng):
    return [
        {
            choice: frozenset(rng.sample(sorted(LABELS[choice]), rng.randint(1, 2)))
            for choice in sorted(rng.sample(sorted(LABELS), rng.randint(0, 3)))
        }
        for _ in range(rng.randint(1, 4))
    ]


def test_exactly_one_disjoint_condition_holds_if_a_given_one_does():
    rng = random.Random(5)
    for _ in range(300):
        given = random_conditions(rng)
        conditions = disjoint(given, LABELS.get)
        for point in points():
            count = sum(is_active([condition], point) for condition in conditions)
            assert count == is_active(given, point), (given, conditions, point)


def test_conditions_that_differ_in_one_choice_are_merged():
    both = disjoint([{"a": frozenset("1")}, {"a": frozenset("2")}], LABELS.get)
    assert both == [{"a": frozenset("12")}]
    every = [{"a": frozenset(label)} for label in "123"]
    assert disjoint(every, LABELS.get) == [{}]


def test_count_of_points_matches_their_enumeration():
    rng = random.Random(7)
    for _ in range(200):
        entries = {x: (sorted(labels), [{}]) for x, labels in LABELS.items()}
        for name, size in (("d", 2), ("e", 3)):
            entries[name] = size, disjoint(random_conditions(rng), LABELS.get)
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


def test_counting_many_independent_choices_is_fast():
    entries = {}
    for index in range(60):
        choice = f"choice {index}"
        entries[choice] = ["a", "b"], [{}]
        entries[f"inside {index}"] = 2, [{choice: frozenset("a")}]
    assert count_points(entries) == 3**60
