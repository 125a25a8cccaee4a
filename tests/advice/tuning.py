"""Searches of hyperparameters: bad calls, their advice, and corrected calls.

Calls of `search` train nothing where training does not matter.
"""

import concurrent.futures
import functools
import threading
import types

import keras
import keras_tuner
import numpy as np

import kseq
from kseq.layers import RecurrentEncoder
from kseq.text import Vocabulary
from kseq.training import GenerationScores
from kseq.tuning import (
    Choice,
    Fixed,
    Int,
    Results,
    Space,
    Training,
    search,
)
from kseq.tuning.budget import WatchObjective
from tests.forking import forked_trials
from tests.tuning.searches import CustomLoop, Instant, Measured, Small, X, Y

IDS = [[4, 5], [6]]
WORDS = Vocabulary("word").adapt(["Anna works"])


class Ranked(Instant):
    """A space whose score has a custom name."""

    def fit(self, hp, model, *args, **kwargs):
        return {"rank": hp.get("x") ** 2}


class Unregistered(keras.layers.Dense):
    """A layer that cannot be restored from its config alone."""


class WithCustomLayers(CustomLoop):
    """A space whose model cannot be loaded without it."""

    def build(self, hp):
        hp.Int("units", 2, 7)
        model = keras.Sequential([keras.layers.Input((5,)), Unregistered(1)])
        model.compile("sgd", "mse", run_eagerly=True)
        return model


def try_one(space=None, data=None, directory="search", **options):
    options = {"max_trials": 1, "seed": 3, "verbose": False, **options}
    return search(space or Instant(), data, directory=directory, **options)


def reported(path):
    return try_one().report(path)


def train_one(space, **options):
    options = {"epochs": 1, "validation_data": (X, Y), "max_failures": 1, **options}
    return try_one(space, (X, Y), **options)


class RemoteExecutor(concurrent.futures.ThreadPoolExecutor):
    """An executor on a host with other disks."""

    def submit(self, task, program, names):
        program = program.replace("supervise('/", "supervise('/elsewhere/")
        return super().submit(task, program, names)


class CustomExecutor(concurrent.futures.Executor):
    """A custom executor with one slot."""

    def submit(self, task, *args):
        future = concurrent.futures.Future()
        future.set_result(task(*args))
        return future


def run_on(executor):
    with forked_trials(), executor:
        return try_one(directory="search", executor=executor)


def search_in_a_used_directory():
    try_one(seed=3)
    try_one(seed=5)


def search_beside_a_file(directory="."):
    with open("thesis.tex", "w") as file:
        file.write("long work")
    return try_one(directory=directory)


def make_data():
    """Create data and a lock in the process of a trial."""
    assert threading.Lock()
    return X, Y


def load_custom_layers(space=None):
    try_one(WithCustomLayers(), (X, Y))
    return Results.load("search", space).best_model()


def watch_epoch(logs_of):
    """Run the end of an epoch with an objective on generated texts."""
    objective = keras_tuner.Objective("val_written_exact_match", "max")
    watch = WatchObjective([types.SimpleNamespace(objective=objective)])
    logs = {"loss": 1.0}
    for callback in logs_of:
        callback.set_model(ConstantModel())
        callback.set_params({"epochs": 1})
        callback.on_epoch_end(0, logs)
    watch.on_epoch_end(0, logs)


class ConstantModel:
    """A model that generates the same for all sources."""

    start_token_id, end_token_id, pad_token_id = 2, 3, 0

    def generate(self, source, *args, **options):
        token_ids = np.array([[[4, 3]]] * len(source))
        return types.SimpleNamespace(token_ids=token_ids)


def scores():
    return GenerationScores(IDS, [[4, 3], [5, 3]], "exact_match")


def classifier(**options):
    return Space(kseq.many_to_one, 11, 2, width=3, **options)


def declared(space):
    hp = keras_tuner.HyperParameters()
    space.declare_hyperparameters(hp)
    assert hp.space


def training(**options):
    settings = {"loss": "mse", "run_eagerly": True, **options}
    return Training(classifier(encoder=Choice("rnn", "gru")), **settings)


def fit(space, **options):
    hp = keras_tuner.HyperParameters()
    space.declare_hyperparameters(hp)
    data = np.array([[4, 5], [6, 7]]), np.ones((2, 2))
    return space.fit(hp, space.build(hp), *data, verbose=0, **options)


def hyperband(space):
    tuner = keras_tuner.Hyperband(space, "loss", max_epochs=2, overwrite=True)
    assert tuner.oracle.max_epochs == 2


ADVICE = {
    "a score of generated sequences": (
        lambda: watch_epoch([]),
        "Names that begin with val_ need `validation_data`; scores of generated "
        "sequences need `kseq.training.GenerationScores` among the callbacks.",
        lambda: watch_epoch([scores()]),
    ),
    "a layer in place of a space": (
        lambda: classifier(encoder=RecurrentEncoder("gru", 3)),
        "Use Space(RecurrentEncoder, ...).",
        lambda: classifier(encoder=Space(RecurrentEncoder, "gru", 3)).build({}),
    ),
    "a reversed range": (
        lambda: Int(9, 1),
        "Swap them.",
        lambda: Int(1, 9),
    ),
    "a fixed list": (
        lambda: Fixed([1, 2]),
        "Pass anything else to a `Space` as it is.",
        lambda: Space(list, [1, 2]).build({}),
    ),
    "options with the same name": (
        lambda: Choice(Space(RecurrentEncoder, "gru"), Space(RecurrentEncoder, "rnn")),
        "Name them by keyword: Choice(first=..., second=...).",
        lambda: Choice(
            first=Space(RecurrentEncoder, "gru"), second=Space(RecurrentEncoder, "rnn")
        ),
    ),
    "the directory of another search": (
        search_in_a_used_directory,
        "Nothing was changed; use another directory, make the same call again, or "
        "pass `overwrite=True` to delete the search.",
        lambda: (
            try_one(seed=5, directory="another"),
            try_one(seed=3),
            try_one(seed=5, overwrite=True),
        ),
    ),
    "a directory with other files": (
        search_beside_a_file,
        "Nothing was changed; use another.",
        lambda: search_beside_a_file("another"),
    ),
    "a directory in a file": (
        lambda: try_one(directory=f"{__file__}/search"),
        "Use a path such as 'search'.",
        lambda: try_one(directory="search"),
    ),
    "a subdirectory of a search": (
        lambda: (try_one(), Results.load("search/trials")),
        "Use the directory that was passed to `kseq.tuning.search`.",
        lambda: Results.load("search"),
    ),
    "data that cannot be pickled": (
        lambda: try_one(data=threading.Lock()),
        "Open files, locks and models in the process of the trial: in the space's "
        "`build` or `fit`, or in a function that makes the data.",
        lambda: try_one(data=make_data),
    ),
    "the address of a cluster": (
        lambda: try_one(executor="tcp://127.0.0.1:8786"),
        "Pass distributed.Client(address), or wrap another engine in an Executor with "
        "a method `submit`.",
        lambda: run_on(CustomExecutor()),
    ),
    "a directory that workers do not have": (
        lambda: run_on(RemoteExecutor()),
        "Use a folder on a disk that all hosts mount under the same path.",
        lambda: run_on(concurrent.futures.ThreadPoolExecutor()),
    ),
    "a custom metric without a direction": (
        lambda: try_one(Ranked(), objective="rank"),
        'Pass ("rank", "max") or (..., "min"); several go into one list: ["val_loss", '
        '("val_rank", "max")].',
        lambda: (
            try_one(Ranked(), objective=("rank", "max"), directory="max"),
            try_one(Ranked(), objective=("rank", "min"), directory="min"),
        ),
    ),
    "objectives that are not a list": (
        lambda: train_one(Measured(), objective=("val_loss", ("val_mae", "min"))),
        'several go into one list: ["val_loss", ("val_rank", "max")].',
        lambda: train_one(Measured(), objective=["val_loss", ("val_mae", "min")]),
    ),
    **{
        f"a report in {kind}": (
            functools.partial(reported, path),
            f"Use a path such as {example}.",
            functools.partial(reported, example),
        )
        for kind, path, example in (
            ("a folder", ".", "./report.html"),
            ("a missing folder", "nowhere/page.html", "report.html"),
            ("nothing", None, "report.html"),
        )
    },
    "Hyperband without epochs": (
        lambda: try_one(tuner="hyperband"),
        "Pass epochs=27, for example.",
        lambda: try_one(tuner="hyperband", epochs=27),
    ),
    "two dimensions with the same name": (
        lambda: Space(dict, a=Int(1, 2, name="n"), b=Int(1, 2, name="n")).defaults(),
        "Rename one, or use one object in both places.",
        lambda: (
            Space(dict, a=Int(1, 2, name="n"), b=Int(1, 2, name="m")).defaults(),
            Space(dict, a=(both := Int(1, 2, name="n")), b=both).defaults(),
        ),
    ),
    "the model of a search without training": (
        lambda: try_one().best_model(),
        "Train the model passed to `fit`, or other models from `build`, or use "
        "`best_values()`.",
        lambda: (
            try_one().best_values(),
            train_one(CustomLoop(), directory="trained").best_model(),
        ),
    ),
    "a model with custom layers": (
        load_custom_layers,
        "Pass the space: `Results.load(directory, space)`.",
        lambda: load_custom_layers(WithCustomLayers()),
    ),
    "an objective that is not measured": (
        lambda: train_one(Small(), objective=("val_mae", "min")),
        "Add it to the metrics of `compile`; names that begin with val_ also need "
        "`validation_data`.",
        lambda: train_one(Measured(), objective=("val_mae", "min")),
    ),
    "a space without dimensions": (
        lambda: declared(classifier()),
        "Add `Int`, `Float`, `Choice` or `Boolean`.",
        lambda: declared(classifier(dropout=kseq.tuning.Float(0.0, 0.5))),
    ),
    "batches in place of a space": (
        lambda: training(batches=kseq.training.batches(IDS, [0, 1])),
        "Use Space(kseq.training.batches, ...); pass an existing data set to `search`.",
        lambda: training(batches=Space(kseq.training.batches, batch_size=2)),
    ),
    "epochs as a dimension": (
        lambda: fit(training(epochs=Int(1, 2)), epochs=1),
        "Use a number in the space; `Hyperband` chooses the epochs itself.",
        lambda: (fit(training(epochs=2), epochs=1), hyperband(training(epochs=2))),
    ),
}
