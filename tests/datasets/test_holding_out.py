"""Held-out parts of pairs, which share no source."""

import collections
import random

import pytest

from kseq.datasets import hold_out

SOURCES = [f"q{i % 13}" for i in range(31)]
TARGETS = [f"a{i}" for i in range(31)]


def test_every_pair_is_in_one_part_and_no_source_in_two():
    parts = hold_out(SOURCES, TARGETS, 3)
    sources = [set(part[0]) for part in parts.values()]
    assert list(parts) == ["train", "validation", "test"]
    assert [len(part) for part in sources] == [7, 3, 3]
    assert len(set.union(*sources)) == 13
    pairs = [pair for part in parts.values() for pair in zip(*part, strict=True)]
    assert collections.Counter(pairs) == collections.Counter(
        zip(SOURCES, TARGETS, strict=True)
    )


def test_the_parts_depend_on_the_seed_and_not_on_the_order():
    order = list(range(31))
    random.Random(1).shuffle(order)
    shuffled = [SOURCES[i] for i in order], [TARGETS[i] for i in order]
    first, again = hold_out(SOURCES, TARGETS, 3, 5), hold_out(*shuffled, 3, 5)
    for part in first:
        assert set(first[part][0]) == set(again[part][0])
    assert set(hold_out(SOURCES, TARGETS, 3, 6)["test"][0]) != set(first["test"][0])


@pytest.mark.parametrize("number", [0, 7, 2.0, -1])
def test_rejects_invalid_numbers_of_sources(number):
    with pytest.raises(ValueError, match=f"Received: number={number} with 13"):
        hold_out(SOURCES, TARGETS, number)


def test_rejects_unequal_numbers_of_sources_and_targets():
    with pytest.raises(ValueError, match="31 sources, 30 targets"):
        hold_out(SOURCES, TARGETS[1:], 3)
