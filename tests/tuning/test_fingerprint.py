import datetime
import functools
import pathlib
import pickle

import keras
import numpy as np
import pytest

import kseq
from kseq.tuning.fingerprint import fingerprint

X = np.arange(12, dtype="float32").reshape(4, 3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((X, X), (X, X + 1)),
        (X, X[:3]),
        (X, X.reshape(3, 4)),
        (X, X.astype("float64")),
        ([[1, 2], [3]], [[1], [2, 3]]),
        ([[1, 2], [3]], [[1, 2], [4]]),
        ([["a"], ["b"]], [["a", "b"]]),
        ({"source": X}, {"target": X}),
        (X, keras.ops.convert_to_tensor(X + 1)),
        ([1, 2, "x"], [1, 2, "y"]),
        (None, [None]),
        (len, max),
        ({1, 2}, {1, 3}),
        (functools.partial(int, base=7), functools.partial(int, base=5)),
        (keras.layers.Dense(3), keras.layers.Dense(5)),
        (keras.losses.Huber(0.5), keras.losses.Huber(0.25)),
        (pathlib.Path("a"), pathlib.Path("b")),
        (datetime.date(2026, 1, 2), datetime.date(2026, 1, 3)),
        (kseq.training.batches(X, X[:, 0], 2), kseq.training.batches(X, X[:, 1], 2)),
        (np.array(["a", "b"]), np.array(["a", "c"])),
        (np.array(["a", "bc"], object), np.array(["a", "bd"], object)),
    ],
)
def test_other_data_has_another_number(one, other):
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((X, X), [X.copy(), X.copy()]),
        (X, np.asfortranarray(X)),
        ([[1, 2], [3]], [[1, 2], [3]]),
        (["ab" + "c", 1.5], ["abc", 1.5]),
        (len, len),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        (functools.partial(int, base=7), functools.partial(int, base=7)),
        (keras.layers.Dense(3), keras.layers.Dense(3)),
        (np.array(["a", 7.5], object), np.array(["A".lower(), 15 / 2], object)),
        (np.zeros((0, 3)), np.zeros((0, 3))),
    ],
)
def test_the_same_data_has_the_same_number(one, other):
    assert fingerprint(one) == fingerprint(other)
    assert len(fingerprint(one)) == 16


def test_the_weights_of_a_model_count_and_the_numbers_in_its_names_do_not():
    def made(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((2,))
        return keras.Model(inputs, keras.layers.Dense(3)(inputs))

    one = made(5)
    assert fingerprint(one) == fingerprint(made(5)) != fingerprint(made(7))
    one.compile("sgd", "mse")
    before = fingerprint(one)
    one.predict(np.ones((3, 2)), verbose=0)
    assert fingerprint(one) == before


class Base:
    def __init__(self, width):
        self.width = width


class Derived(Base):
    pass


def test_what_python_notes_in_a_class_does_not_count():
    before = fingerprint(Derived(3))
    assert before != fingerprint(Derived(5))
    pickle.dumps(Base(3))
    assert "__slotnames__" in vars(Base) and fingerprint(Derived(3)) == before


def test_what_holds_itself_ends():
    row = [1]
    row.append(row)
    assert fingerprint(row) == fingerprint(row) != fingerprint([1, [1]])
