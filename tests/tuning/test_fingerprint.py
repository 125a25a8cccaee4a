import keras
import numpy as np
import pytest

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
        (len, max),
        (np.array(["a", 7.5], object), np.array(["A".lower(), 15 / 2], object)),
        (np.zeros((0, 3)), np.zeros((0, 3))),
    ],
)
def test_the_same_data_has_the_same_number(one, other):
    assert fingerprint(one) == fingerprint(other)
    assert len(fingerprint(one)) == 8
