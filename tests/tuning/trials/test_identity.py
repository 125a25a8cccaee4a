"""Identity of a search: a search is another one if its trials can differ."""

import json
import os
import subprocess
import sys
import types

import keras_tuner
import numpy as np
import pytest

from kseq.tuning import Choice, Int, Space
from kseq.tuning.trials.identity import differences, identity, settings
from kseq.tuning.trials.oracles import make_oracle

PROGRAM = '''
"""A program that searches."""
import functools, random
import keras, keras_tuner
import numpy as np
from keras.losses import Huber, MeanSquaredError
from kseq.layers import MaxPooling, MeanPooling
from kseq.tuning import Choice, Int, Space, Training

SCALE = 0.5
KINDS = {"mean", "max", "sum", "last"}


def scaled(x):
    return x * SCALE


def dense(units, activation="tanh"):
    """A layer."""
    return keras.layers.Dense(units, activation)


def times(factor):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args):
            return factor * function(*args)
        return wrapper
    return decorate


@times(3.0)
def loss(y_true, y_pred):
    return keras.ops.mean((y_true - y_pred) ** 2)


class Base(keras_tuner.HyperModel):
    def __init__(self, width=3):
        super().__init__()
        self.width = width

    def layers(self, hp):
        return [keras.layers.Input((5,)), dense(self.width)]


class Bias(keras.metrics.Metric):
    def update_state(self, y_true, y_pred, sample_weight=None):
        self.value = keras.ops.mean(y_true - y_pred)

    def result(self):
        return self.value


class Small(Base):
    def build(self, hp):
        rate = hp.Float("rate", 1e-3, 1e-1)
        head = [keras.layers.Dense(1, activation="relu" if "max" in KINDS else None)]
        model = keras.Sequential([*self.layers(hp), *head])
        model.compile(keras.optimizers.SGD(scaled(rate)), loss, metrics=[Bias()])
        return model


def network(encoder, pooling, second=None, rows=()):
    inputs = keras.Input((None, 3))
    x = pooling(encoder(inputs))
    return keras.Model(inputs, keras.layers.Dense(1)(x))


def make_data():
    x = np.random.default_rng(3).normal(size=(7, 5))
    return x, x[:, :1]


encoder = Space(keras.layers.Dense, Int(2, 3))
nested = Training(
    Space(network, encoder, pooling=Space(MeanPooling), second=encoder,
          rows=list(range(30))),
    optimizer="sgd",
    loss=Huber(delta=0.5),
    run_eagerly=True,
).limited(max_parameters=900)
plain = Small(width=3)
x = np.ones((7, 5))
fit = {
    "validation_data": (x, x[:, :1]),
    "class_weight": {0: 1.0, 1: 2.0},
    "batch_size": 4,
    "callbacks": [
        keras.callbacks.EarlyStopping("val_loss", patience=2),
        keras.callbacks.LambdaCallback(lambda epoch, logs: print(epoch, 7)),
    ],
}
oracle = {"tuner": "bayesian"}
'''
IDENTITIES = """
import json, sys
from tests.tuning.trials.test_identity import identities
print(json.dumps(identities(vars(sys.modules["__main__"]))))
"""
OTHER_CODE = [
    ('activation="relu" if', 'activation="selu" if'),  # the body of build(hp)
    ("return x * SCALE", "return x / SCALE"),  # a function that it calls
    ("SCALE = 0.5", "SCALE = 0.25"),  # a value that this one reads
    ('"sum", "last"}', '"sum", "first"}'),
    ('units, activation="tanh"', 'units, activation="gelu"'),  # a default
    ("[keras.layers.Input((5,)), dense", "[keras.layers.Input((7,)), dense"),  # a base
    ("Small(width=3)", "Small(width=5)"),  # an attribute of the HyperModel
    ("@times(3.0)", "@times(2.0)"),  # the argument of a decorator
    ("return factor * function", "return factor + function"),  # the decorator
    ("(y_true - y_pred) ** 2", "(y_true - y_pred) ** 4"),  # a custom loss
    ("mean(y_true - y_pred)", "mean(y_pred - y_true)"),  # a custom metric
    ("Space(MeanPooling)", "Space(MaxPooling)"),
    ("Huber(delta=0.5)", "MeanSquaredError()"),
    ("Huber(delta=0.5)", "Huber(delta=0.25)"),
    ("second=encoder", "second=Space(keras.layers.Dense, 3)"),
    ("list(range(30))", "list(range(1, 31))"),
    ("x = pooling(encoder(inputs))", "x = pooling(encoder(-inputs))"),  # the builder
    ("max_parameters=900", "max_parameters=800"),
    ("x = np.ones((7, 5))", "x = np.zeros((7, 5))"),  # the validation data
    ("{0: 1.0, 1: 2.0}", "{0: 1.0, 1: 3.0}"),
    ("patience=2", "patience=3"),  # a callback
    ("print(epoch, 7)", "print(epoch, 8)"),  # a lambda of a callback
    ('"batch_size": 4', '"batch_size": 5'),
    ("default_rng(3)", "default_rng(5)"),  # the function that makes the data
    ('"tuner": "bayesian"', '"tuner": "random"'),
]
SAME_CODE = [
    ('"""A program that searches."""', "# A comment\n" * 30),
    ("lambda epoch, logs: print", "lambda epoch, logs: (\n\n  print"),
    ('"""A layer."""', '"""A dense layer, as everybody knows it."""'),
    ("nested = Training(", "unused = [1, 2]\nnested = Training("),
    ('{"mean", "max", "sum", "last"}', '{"last", "sum", "max", "mean"}'),
    ('"batch_size": 4', '"batch_size": 2 * 2'),
]


def identities(names):
    """Return the identities of the two searches of the program."""
    oracle = make_oracle(objective="val_loss", seed=3, epochs=None, **names["oracle"])
    given = settings(names["make_data"], names["fit"])
    known = keras_tuner.HyperParameters()
    return [
        identity(space, known, oracle, [], given)
        for space in (names["plain"], names["nested"])
    ]


def changed_program(old, new):
    assert PROGRAM.count(old) == 1
    program = PROGRAM.replace(old, new)
    return program + ")" if "(\n\n  print" in new else program


def identities_of_program(program, name, path):
    """Return the identities of a program, run as a module of this name and path."""
    module = types.ModuleType(name)
    exec(compile(program, path, "exec"), vars(module))
    return identities(vars(module))


@pytest.fixture(scope="module")
def unchanged():
    return identities_of_program(PROGRAM, "program", "/here/program.py")


@pytest.mark.parametrize("change", OTHER_CODE, ids=lambda change: change[1])
def test_relevant_changes_make_another_search(unchanged, change):
    there = identities_of_program(
        changed_program(*change), "program", "/here/program.py"
    )
    assert there != unchanged


@pytest.mark.parametrize("change", SAME_CODE, ids=lambda change: change[1][:20])
def test_irrelevant_changes_make_no_other_search(unchanged, change):
    old, new = change
    if "lambda" in new:  # one line becomes three
        old, new = old + "(epoch, 7)", new + "(epoch, 7))"
    program = PROGRAM.replace(old, new)
    assert program != PROGRAM
    assert identities_of_program(program, "renamed", "/there/renamed.py") == unchanged


@pytest.mark.thorough
def test_search_is_the_same_in_another_process_and_folder(unchanged, tmp_path):
    path = tmp_path / "elsewhere.py"
    path.write_text(PROGRAM + IDENTITIES)
    root = os.path.join(os.path.dirname(__file__), "..", "..", "..")
    environment = {**os.environ, "PYTHONHASHSEED": "11", "PYTHONPATH": root}
    run = [sys.executable, path]
    output = subprocess.check_output(run, cwd=tmp_path, env=environment, text=True)
    assert json.loads(output.splitlines()[-1]) == unchanged


def test_identities_differ_in_the_names_of_the_changes(unchanged):
    there = identities_of_program(
        changed_program("patience=2", "patience=3"), "program", "/here"
    )
    pairs = zip(unchanged, there, strict=True)
    different = [{k for k in one if one[k] != other[k]} for one, other in pairs]
    assert different == [{"callbacks of fit"}, {"callbacks of fit"}]
    there = identities_of_program(
        changed_program("Space(MeanPooling)", "Space(MaxPooling)"), "p", "/here"
    )
    different = {k for k in unchanged[1] if unchanged[1][k] != there[1][k]}
    assert different == {"space", "model/pooling of the space"}
    assert unchanged[1]["model/pooling of the space"].startswith("MeanPooling ")


def test_differences_are_told_once_and_without_fingerprints():
    found = {
        ("width", Choice(4, 8), Choice(4, 16)): (
            "width has other values: there [4, 8], here [4, 16]"
        ),
        ("width", Int(1, 3), Int(1, 5)): ("width has other max_value: there 3, here 5"),
        (
            "width",
            Int(1, 3),
            7,
        ): "width: only there; width of the space: there None, here 7",
        ("width", len, max): "width of the space: there len, here max",
    }
    for (name, *sides), text in found.items():
        spaces = [Space(dict, **{name: side}, other=Int(1, 2)) for side in sides]
        assert "; ".join(differences(*map(identity_of, spaces))) == text
    space = identity_of(spaces[0])
    there, here = ({**space, **settings(data, {})} for data in ([3], [5]))
    assert differences(there, here) == ["data: changed"]


def identity_of(space):
    known = keras_tuner.HyperParameters()
    space.declare_hyperparameters(known)
    oracle = make_oracle("random", "val_loss", 3, None)
    return json.loads(json.dumps(identity(space, known, oracle, [], {})))


def test_numpy_numbers_can_be_saved_as_json():
    given = settings(None, {"epochs": np.int64(3), "share": np.float32(0.5)})
    assert given == settings(None, {"epochs": np.int64(3), "share": np.float32(0.5)})
    json.dumps(given)
