"""Examples that several parts share, and their removal."""

import itertools

import numpy as np

from kseq.datasets import disjoint, load


def test_examples_of_later_parts_are_removed_from_earlier_ones():
    train = ([["a"], ["b", "c"], ["d"], ["a"], ["g"]], [1, 2, 3, 4, 5])
    validation = ([["d"], ["e"], ["f"]], [6, 7, 8])
    test = ([["e"], ["g"], ["e"]], [9, 10, 11])
    assert disjoint(train, validation, test) == [
        ([["a"], ["b", "c"], ["a"]], [1, 2, 4]),
        ([["d"], ["f"]], [6, 8]),
        test,
    ]


def test_pairs_are_compared_by_both_texts():
    train = (["a", "b", "c", "d"], ["A", "B", "C", "D"])
    test = (["a", "x", "D"], ["Y", "B", "c"])  # "D" the source is not "D" the target
    assert disjoint(train, test, columns=(0, 1)) == [(["c", "d"], ["C", "D"]), test]
    assert disjoint(train, test, columns=(1,))[0] == (
        ["a", "c", "d"],
        ["A", "C", "D"],
    )


def test_arrays_are_compared_by_shape_and_values():
    train = ([np.zeros((2, 1)), np.zeros((1, 2)), np.ones((2, 1))], ["a", "b", "c"])
    test = ([np.zeros((2, 1))], ["d"])
    [(series, labels), _] = disjoint(train, test)
    assert labels == ["b", "c"] and series[0].shape == (1, 2)


def test_parts_that_share_nothing_are_unchanged():
    parts = [(["a"], ["x"], [1]), (["b"], ["x"], [1])]
    assert disjoint(*parts) == parts


def test_disjoint_real_parts_share_no_sentence(data_set):
    splits = load("atis", data_set("atis").parent)
    parts = disjoint(*splits.values())
    assert [len(words) for words, _, _ in parts] == [4_395, 497, 893]
    for one, other in itertools.combinations(parts, 2):
        assert not {*map(tuple, one[0])} & {*map(tuple, other[0])}
