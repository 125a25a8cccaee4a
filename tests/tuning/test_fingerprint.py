import datetime
import functools
import pathlib
import pickle
import re
import sys
import types

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
def test_different_values_have_different_fingerprints(one, other):
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
def test_equal_values_have_equal_fingerprints(one, other):
    assert fingerprint(one) == fingerprint(other)
    assert len(fingerprint(one)) == 16


def test_fingerprint_depends_on_weights_but_not_on_automatic_names():
    def make_model(seed):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((2,))
        return keras.Model(inputs, keras.layers.Dense(3)(inputs))

    one = make_model(5)
    assert fingerprint(one) == fingerprint(make_model(5)) != fingerprint(make_model(7))
    one.compile("sgd", "mse")
    before = fingerprint(one)
    one.predict(np.ones((3, 2)), verbose=0)
    assert fingerprint(one) == before


class Base:
    def __init__(self, width):
        self.width = width


class Derived(Base):
    pass


def test_attributes_that_python_adds_to_a_class_are_ignored():
    before = fingerprint(Derived(3))
    assert before != fingerprint(Derived(5))
    pickle.dumps(Base(3))
    assert "__slotnames__" in vars(Base) and fingerprint(Derived(3)) == before


def test_list_that_contains_itself_has_a_fingerprint():
    row = [1]
    row.append(row)
    assert fingerprint(row) == fingerprint(row) != fingerprint([1, [1]])


def make_module(code, name="user_program", **names):
    """Return a module of this code, like the program of a user."""
    module = types.ModuleType(name)
    vars(module).update(functools=functools, keras=keras, kseq=kseq, np=np, **names)
    exec(compile(code, f"/here/{name}.py", "exec"), vars(module))
    return module


READS = [  # code with a value @, that value, and another
    ("import types\nA = types.SimpleNamespace(n=@)\ndef space(): return A.n", "3", "4"),
    ("import argparse\nA = argparse.Namespace(n=@)\ndef space(): return A.n", "3", "4"),
    ("@functools.lru_cache\ndef a(): return @\ndef space(): return a()", "3", "4"),
    (
        "import contextlib\n@contextlib.contextmanager\ndef a(): yield @\n"
        "def space(): return a()"
    ),
    (
        "@functools.singledispatch\ndef a(x): return 0\n@a.register\n"
        "def _(x: int): return @\ndef space(): return a(1)"
    ),
    ("A = @\ndef space(): return A(1)", "np.sin", "np.cos"),
    ("A = @\ndef space(): return A(1)", "min", "max"),
    ("A = @\ndef space(): return A(1)", "keras.ops.sin", "keras.ops.cos"),
    ("space = functools.partial(@)", "np.add", "np.multiply"),
    ("import re\nA = re.compile(@)\ndef space(): return A", "'a'", "'b'"),
    ("import re\nspace = re.compile(@)", "'a'", "'b'"),
    ("import pathlib\nA = pathlib.Path(@)\ndef space(): return A", "'a'", "'b'"),
    ("class M(type): n = @\nclass A(metaclass=M): pass\ndef space(): return A.n"),
    (
        "V = kseq.text.Vocabulary('word').adapt([@])\ndef space(): return V",
        "'a'",
        "'b'",
    ),
    (
        "V = kseq.text.Vocabulary('word').adapt([@])\n"
        "class B(keras.callbacks.Callback):\n"
        "  def __init__(self): self.words = V\nspace = [B()]",
        "'a'",
        "'b'",
    ),
    (
        "V = keras.layers.StringLookup()\nV.adapt(np.array([@]))\n"
        "def space(): return V",
        "'a'",
        "'b'",
    ),
    ("def space():\n  import user_module\n  return user_module.N"),
    ("def space():\n  from user_module import N\n  return N"),
    ("def space():\n  from user_module import f as g\n  return g()"),
    ("def space():\n  import user_package.inner as m\n  return m.N"),
]
READS = [read if isinstance(read, tuple) else (read, "3", "4") for read in READS]


@pytest.fixture
def user_modules(monkeypatch):
    """Return a function that installs modules for user code, with a number inside."""

    def install(number):
        code = f"N = {number}\ndef f(): return N"
        package = make_module("", "user_package", __path__=[])
        package.inner = make_module(code, "user_package.inner")
        for module in (package, package.inner, make_module(code, "user_module")):
            monkeypatch.setitem(sys.modules, module.__name__, module)

    return install


@pytest.mark.parametrize(("code", "one", "other"), READS)
def test_fingerprint_depends_on_values_outside_a_function(
    code, one, other, user_modules
):
    numbers = []
    for value in (one, other, one):
        user_modules(value)
        program = make_module(re.sub(r"@(?!\w)", value, code))
        numbers.append(fingerprint(program.space))
    assert numbers[0] == numbers[2] != numbers[1]


@pytest.mark.parametrize(
    ("code", "use"),
    [
        ("@functools.lru_cache\ndef A(n): return n\ndef space(): return A(1)", "A(1)"),
        (
            "@functools.singledispatch\ndef A(n): return n\ndef space(): return A(1)",
            "A(1)",
        ),
        ("import random\nA = random.Random(1)\ndef space(): return A", "A.random()"),
        ("A = np.random.default_rng(1)\ndef space(): return A", "A.normal()"),
        ("import logging\nA = logging.getLogger('a')\ndef space(): A", "A.setLevel(9)"),
        ("A = keras.metrics.Mean()\ndef space(): return A", "A.result()"),
        (
            "A = kseq.text.Vocabulary('word_piece', max_tokens=33).adapt(['ab b'])\n"
            "def space(): return A",
            "A.encode(['a'])",
        ),
    ],
)
def test_using_an_object_does_not_change_the_fingerprint(code, use):
    program = make_module(code)
    before = fingerprint(program.space)
    exec(use, vars(program))
    assert fingerprint(program.space) == before
