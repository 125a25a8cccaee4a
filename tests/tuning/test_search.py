"""Searches that are killed, that fail, or that use several workers."""

import html
import os
import re
import signal
import subprocess
import sys
import threading
import time

import keras
import keras_tuner
import numpy as np
import pytest

from kseq.tuning import Choice, Int, Space
from kseq.tuning.results import Results
from kseq.tuning.search import search
from kseq.tuning.trials import exploration
from kseq.tuning.trials.errors import SearchFailed
from kseq.tuning.trials.job import Failed
from kseq.tuning.trials.server import TrialServer
from kseq.tuning.trials.stopping import MedianStopping
from kseq.tuning.trials.table import LiveTable
from tests.tuning.searches import (
    CustomLoop,
    Dying,
    Failing,
    Folds,
    Instant,
    Measured,
    OnlyInFit,
    Phases,
    Small,
    Waiting,
    X,
    Y,
    settings,
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Return the results of an uninterrupted search with one worker."""
    directory = tmp_path_factory.mktemp("reference")
    return search(Small(), (X, Y), **settings(directory / "search"))


def outcome(results):
    """Return the results that a kill must not change."""
    keys = ("trial", "status", "score", "epoch", "epochs", "values")
    rows = [{key: row[key] for key in keys} for row in results.table()]
    curves = [results.curves(row["trial"]) for row in rows]
    return rows, curves


def test_search_returns_its_trials_and_the_best_model(reference):
    rows, curves = outcome(reference)
    assert [row["status"] for row in rows] == ["completed"] * 3
    assert len({row["score"] for row in rows}) == 3
    assert all(len(curve["val_loss"]) == 4 for curve in curves)
    best = min(rows, key=lambda row: row["score"])
    assert reference.best["trial"] == best["trial"]
    model = reference.best_model()
    loss = model.evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(best["score"], rel=1e-5)
    page = reference.report(reference.directory / "report.html").read_text()
    names = {"space": Small()}
    exec(html.unescape(re.search("<pre>(.*?)</pre>", page, re.S)[1]), names)
    assert names["model"].evaluate(X, Y, verbose=0) == loss


def test_search_directory_has_the_files_that_every_version_expects(reference):
    root = reference.directory
    left = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    of_search = {"journal.json", "search.json", "lock"}
    of_trial = ["trial.json", "output.txt"]
    of_trial += ["best.weights.h5", "build_config.json", "model.json"]
    trials = [f"trials/{row['trial']}" for row in reference.table()]
    left.discard("report.html")  # another test may have written it
    assert left == of_search | {f"{t}/{name}" for t in trials for name in of_trial}


def test_best_models_are_ordered_by_score(reference):
    scores = sorted(row["score"] for row in reference.table())
    models = reference.best_models(2)
    losses = [model.evaluate(X, Y, verbose=0) for model in models]
    assert losses == pytest.approx(scores[:2], rel=1e-5)
    assert len(reference.best_models(9)) == 3
    with pytest.raises(ValueError, match="`number` must be .*Received"):
        reference.best_models(0)


def test_killed_trial_resumes_where_it_stopped(tmp_path, reference):
    space = Dying(str(tmp_path / "killed"))
    results = search(space, (X, Y), **settings(tmp_path / "search"))
    assert (tmp_path / "killed").exists()
    assert outcome(results) == outcome(reference)
    assert [row["attempts"] for row in results.table()] == [2, 1, 1]


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("space", [Phases(), Phases("second"), Phases("score")])
def test_score_and_weights_are_the_best_of_several_fits(tmp_path, space):
    arguments = settings(tmp_path) | {"max_trials": 2, "epochs": 2}
    results = search(space, (X, Y), **arguments)
    row = results.best
    curve = results.curves(row["trial"])["val_loss"]
    assert len(curve) == row["epochs"] == 4 and max(curve[2:]) > row["score"]
    assert row["score"] == min(curve) == curve[row["epoch"] - 1]
    loss = results.best_model().evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(row["score"], rel=1e-5)


def test_best_model_of_several_folds_is_from_the_best_fold(tmp_path):
    results = search(Folds(), (X, Y), **settings(tmp_path) | {"max_trials": 2})
    row = results.best
    curve = results.curves(row["trial"])["val_loss"]
    assert row["score"] == pytest.approx((min(curve[:4]) + min(curve[4:])) / 2)
    loss = results.best_model().evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(min(curve), rel=1e-5)
    with pytest.raises(ValueError, match="`number` must be"):
        results.best_hyperparameters(0)


def test_custom_loop_has_a_best_model_and_a_search_without_training_has_none(tmp_path):
    arguments = settings(tmp_path / "a") | {"max_trials": 1}
    results = search(CustomLoop(), (X, Y), **arguments)
    loss = results.best_model().evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(results.best["score"], rel=1e-5)
    arguments["directory"] = tmp_path / "b"
    results = search(Instant(), **arguments)
    with pytest.raises(ValueError, match="trained a model.*Received: trial 0"):
        results.best_model()


def test_hyperparameters_can_be_only_in_fit(tmp_path):
    arguments = settings(tmp_path) | {"epochs": 1, "workers": 2}
    for trials in (2, 5):  # the second call resumes the search
        results = search(OnlyInFit(), (X, Y), **arguments | {"max_trials": trials})
    rows = results.table()
    assert len({str(row["values"]) for row in rows}) == len(rows) == 5
    assert all(set(row["values"]) == {"batch_size", "long"} for row in rows)
    assert {row["epochs"] for row in rows} == {1, 3}
    with pytest.raises(ValueError, match="hyperparameter to search over"):
        search(NoHyperparameters(), (X, Y), **settings(tmp_path / "none"))


class NoHyperparameters(OnlyInFit):
    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, **kwargs)


def test_curves_that_lack_epochs_are_compared_and_reported(tmp_path):
    sparse = {"validation_freq": 2, "stopping": MedianStopping(1, 1)}
    results = search(Small(), (X, Y), **settings(tmp_path), **sparse)
    for row in results.table():
        curve = results.curves(row["trial"])["val_loss"]
        assert [value is None for value in curve] == [True, False] * (len(curve) // 2)
        assert row["score"] == min(curve[1::2])
    assert "Learning curves" in results.report(tmp_path / "report.html").read_text()


class Maximized(Small):
    """The same network, compiled with a metric to maximize."""

    def build(self, hp):
        model = super().build(hp)
        metrics = [keras.metrics.R2Score(name="rank")]
        model.compile(model.optimizer, "mse", metrics=metrics, run_eagerly=True)
        return model


@pytest.mark.parametrize("tuner", ["random", "bayesian", "hyperband"])
def test_several_objectives_are_summed(tmp_path, tuner):
    objective, directory = ["val_loss", ("val_rank", "max")], tmp_path / "search"
    arguments = settings(directory) | {"max_trials": 2, "epochs": 2, "tuner": tuner}
    results = search(Maximized(), (X, Y), objective=objective, **arguments)
    for row in results.table():
        curves = results.curves(row["trial"])
        losses, ranks = curves["val_loss"], curves["val_rank"]
        sums = [a - b for a, b in zip(losses, ranks, strict=True)]
        assert row["score"] == pytest.approx(min(sums))
    scores = [row["score"] for row in results.table()]
    assert len(scores) == 2 and results.best["score"] == min(scores)
    loss, rank = results.best_model().evaluate(X, Y, verbose=0)
    assert loss - rank == pytest.approx(results.best["score"], rel=1e-4)
    again = search(Maximized(), (X, Y), objective=objective, **arguments)
    loaded = Results.load(directory)
    for other in (again, loaded):
        assert other.table() == results.table()
        assert str(other.objective) == str(results.objective)
    assert "Learning curves" in loaded.report(tmp_path / "report.html").read_text()


def test_error_names_an_objective_that_is_not_measured(tmp_path):
    with pytest.raises(
        ValueError, match=r"Received: objective=\['val_loss', 'val_mae'"
    ):
        search(Small(), (X, Y), objective=["val_loss", "val_mae"], **settings(tmp_path))


def test_several_executions_have_a_mean_score_and_the_best_model(tmp_path):
    arguments = settings(tmp_path) | {"max_trials": 2, "epochs": 2}
    results = search(Small(), (X, Y), **arguments, executions_per_trial=2)
    row = results.best
    curve = results.curves(row["trial"])["val_loss"]
    both = min(curve[:2]), min(curve[2:])
    assert both[0] != both[1] and row["score"] == pytest.approx(sum(both) / 2)
    loss = results.best_model().evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(min(both), rel=1e-5)
    with pytest.raises(ValueError, match="executions_per_trial: there 2, here 1"):
        search(Small(), (X, Y), **arguments)


def test_results_are_loaded_without_data_and_space(reference):
    before = {p: p.stat().st_mtime_ns for p in reference.directory.rglob("*")}
    results = Results.load(reference.directory)
    assert outcome(results) == outcome(reference) and str(results) == str(reference)
    assert results.best_hyperparameters(2)[0] == reference.best_values()
    loss = results.best_model().evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(reference.best["score"], rel=1e-5)
    again = Results.load(str(reference.directory), Small()).best_model()
    assert again.evaluate(X, Y, verbose=0) == pytest.approx(loss)
    assert {p: p.stat().st_mtime_ns for p in reference.directory.rglob("*")} == before
    with pytest.raises(ValueError, match="must contain a search.*search.json"):
        Results.load(reference.directory / "trials")


def test_overwrite_replaces_a_search_but_no_other_files(tmp_path):
    arguments = settings(tmp_path / "a") | {"max_trials": 1}
    search(Instant(), **arguments)
    with pytest.raises(SearchFailed):
        search(raising_builder, **arguments, overwrite=True)
    assert len(Results.load(tmp_path / "a").table()) == 1
    changes = {"seed": 5, "overwrite": True, "max_trials": 2}
    results = search(Instant(), **arguments | changes)
    assert len(results.table()) == 2 and results.identity["seed"] == 5
    (tmp_path / "thesis.tex").write_text("long work")
    with pytest.raises(ValueError, match="must be empty, new, or from this search"):
        search(Instant(), **arguments | {"directory": tmp_path}, overwrite=True)


def wait_until(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.05)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def start_search(tmp_path):
    """Start the search as a program; return it and the id of a waiting trial."""
    (tmp_path / "pid").unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.tuning.searches", tmp_path / "search", tmp_path],
        cwd=os.path.join(os.path.dirname(__file__), "..", ".."),
        start_new_session=True,
    )
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    return process, int((tmp_path / "pid").read_text())


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("kill", [os.kill, os.killpg])  # the parent, or its group
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_search_resumes_where_it_stopped(tmp_path, reference, kill):
    process, trial = start_search(tmp_path)
    family = [trial, *children(process.pid)]
    assert len(family) >= 2 and all(map(is_alive, family))
    kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(map(is_alive, family)))
    assert list(tmp_path.glob("search/attempts/*/*/checkpoint-0.npz"))
    (tmp_path / "go").touch()
    results = search(Waiting(tmp_path), (X, Y), **settings(tmp_path / "search"))
    assert outcome(results) == outcome(reference)


def parent_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_search_continues_if_the_server_of_its_trials_is_killed(tmp_path, reference):
    def kill_server():
        file = tmp_path / "pid"
        wait_until(lambda: file.exists() and file.read_text())
        trial = int(file.read_text())
        os.kill(parent_of(trial), signal.SIGKILL)
        wait_until(lambda: not is_alive(trial))
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill_server)
    killer.start()
    results = search(Waiting(tmp_path), (X, Y), **settings(tmp_path / "search"))
    killer.join()
    assert outcome(results) == outcome(reference)
    assert [row["attempts"] for row in results.table()] == [1, 1, 1]


def test_ctrl_c_stops_a_search_and_the_same_call_resumes_it(
    tmp_path, reference, monkeypatch
):
    def press_ctrl_c(self, event):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LiveTable, "show_end", press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            search(Small(), (X, Y), **settings(tmp_path))
    results = search(Small(), (X, Y), **settings(tmp_path))
    assert outcome(results) == outcome(reference)


def test_finished_search_returns_without_more_trials(reference):
    arguments = settings(reference.directory)
    began = reference.directory.joinpath("trials").stat().st_mtime
    again = search(Small(), (X, Y), **arguments)
    assert outcome(again) == outcome(reference)
    assert reference.directory.joinpath("trials").stat().st_mtime == began


def test_each_failed_trial_has_a_reason_and_the_search_continues(tmp_path):
    results = search(
        Failing(),
        (X, Y),
        tuner="grid",
        directory=tmp_path,
        retries=0,
        max_failures=9,
        trial_timeout=8,
        workers=2,
        verbose=False,
    )
    reasons = {row["values"]["how"]: row["reason"] for row in results.table()}
    assert reasons == {
        "fine": None,
        "nan": "val_loss was nan",
        "raise": "MemoryError: no room for it",
        "exit": "its process ended with exit code 3",
        "kill": "its process was killed by SIGSEGV",
        "late": "it took more than trial_timeout=8 s",
    }
    assert results.best["values"] == {"how": "fine"}
    page = results.report(tmp_path / "report.html").read_text()
    assert "MemoryError: no room for it" in page


def resident_pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_the_parent_does_not_grow(tmp_path, monkeypatch):
    pages = []
    monkeypatch.setattr(
        LiveTable, "show_end", lambda *args: pages.append(resident_pages())
    )
    search(Instant(), max_trials=16, seed=5, directory=tmp_path, verbose=False)
    assert len(pages) == 16
    assert pages[-1] <= 1.1 * pages[2]


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("tuner", ["hyperband", "bayesian"])
def test_tuners_of_keras_tuner_run(tmp_path, tuner):
    arguments = settings(tmp_path) | {"max_trials": 5, "epochs": 3}
    if tuner == "bayesian":
        arguments["stopping"] = MedianStopping(1, 2)
    else:
        arguments["tensorboard"] = True
    results = search(Small(), (X, Y), tuner=tuner, **arguments, workers=2)
    rows = results.table()
    assert len(rows) == 5 and all(np.isfinite(row["score"]) for row in rows)
    assert all(("units" in row["values"]) == row["values"]["deep"] for row in rows)
    if tuner == "hyperband":
        for row in rows:
            files = (tmp_path / "tensorboard" / row["trial"]).rglob("events*")
            content = b"".join(file.read_bytes() for file in files)
            assert b"epoch_loss" in content and b"rate" in content
            assert b"_hparams_/session_end_info" in content


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("tuner", ["random", "hyperband"])
def test_first_values_are_tried_first(tmp_path, tuner):
    first = [{"deep": True, "units": 5}, {"rate": 0.02}]
    arguments = settings(tmp_path) | {"tuner": tuner, "first": first, "epochs": 2}
    for trials in (1, 3):  # the second call resumes the search
        results = search(Small(), (X, Y), **arguments | {"max_trials": trials})
    table = results.dataframe().sort_index()
    assert table["deep"].tolist()[:2] == [True, False]
    assert table["units"].tolist()[0] == 5 and table["rate"].tolist()[:2] == [
        0.001,
        0.02,
    ]
    if tuner == "random":  # Hyperband has no third trial of two epochs
        assert len(table) == 3 and table["rate"].tolist()[2] not in (0.001, 0.02)
    with pytest.raises(ValueError, match="another search"):
        search(Small(), (X, Y), **arguments | {"first": first[:1]})


class TestInvalidInput:
    def test_rejects_first_values_that_are_inactive(self, tmp_path):
        with pytest.raises(ValueError, match="that are used: .'deep', 'rate'.*'units'"):
            search(Small(), (X, Y), **settings(tmp_path / "a"), first=[{"units": 3}])
        assert not (tmp_path / "a").exists()

    def test_rejects_an_objective_without_a_metric(self, tmp_path):
        arguments = settings(tmp_path) | {"objective": ("val_mae", "min")}
        arguments["max_trials"] = 1
        with pytest.raises(ValueError, match="one of loss, val_loss. Received: .*mae"):
            search(Small(), (X, Y), **arguments)
        results = search(Measured(), (X, Y), **arguments)
        assert [row["status"] for row in results.table()] == ["completed"]
        with pytest.raises(ValueError, match="another search .*space: there Measured"):
            search(Small(), (X, Y), **arguments)

    def test_raises_the_error_of_a_builder(self, tmp_path):
        with pytest.raises(
            SearchFailed,
            match="(?s)Received: raising_builder, which .* KeyError: 'no such'.*Trace",
        ):
            search(raising_builder, directory=tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_names_a_function_that_is_under_the_guard(self, tmp_path, monkeypatch):
        missing = "Can't get attribute 'inner' on <module '__mp_main__' from 'a.py'>"
        failed = Failed(f"AttributeError: {missing}")
        monkeypatch.setattr(exploration, "ask_explorer", lambda *args: failed)
        with pytest.raises(SearchFailed, match="(?s)`inner`, which .* Move `inner` to"):
            search(raising_builder, directory=tmp_path / "new")

    def test_rejects_a_directory_of_another_search(self, reference):
        before = (reference.directory / "journal.json").read_bytes()
        with pytest.raises(ValueError, match="tuner: there RandomSearch.*here Grid"):
            search(Small(), (X, Y), **settings(reference.directory), tuner="grid")
        with pytest.raises(ValueError, match="epochs of fit: there 4, here 5"):
            search(Small(), (X, Y), **settings(reference.directory) | {"epochs": 5})
        with pytest.raises(ValueError, match="another search .data: changed"):
            search(Small(), (X, Y + 1), **settings(reference.directory))
        with pytest.raises(
            ValueError, match="space: there Small, here Folds.*overwrite"
        ):
            search(Folds(), (X, Y), **settings(reference.directory))
        with pytest.raises(ValueError, match="callbacks of fit: there None, here list"):
            stop = [keras.callbacks.EarlyStopping("val_loss")]
            search(Small(), (X, Y), **settings(reference.directory), callbacks=stop)
        assert (reference.directory / "journal.json").read_bytes() == before

    def test_raises_if_every_trial_fails(self, tmp_path):
        with pytest.raises(SearchFailed, match=r"(?s)All .* \(1 trial\).*Traceback"):
            few = {"max_trials": 1, "retries": 0, "verbose": False}
            search(Small(), (X, Y[:3]), directory=tmp_path, **few)

    def test_rejects_data_that_cannot_be_pickled(self, tmp_path):
        with pytest.raises(ValueError, match="must be picklable.*Received: .*lock"):
            search(Small(), threading.Lock(), directory=tmp_path)

    @pytest.mark.parametrize(
        "bad, message",
        [
            ({"workers": 0}, "`workers` must be an integer of 1 or more.*workers=0"),
            ({"max_trials": 2.5}, "`max_trials` must .*Received: max_trials=2.5"),
            ({"retries": -1}, "`retries` must be an integer of 0 or more"),
            ({"seed": -1}, "`seed` must be an integer of 0 or more"),
            ({"stopping": "median"}, "`stopping` must be None or .*'median'"),
            (
                {"stopping": MedianStopping},
                "`stopping` must be .* parentheses",
            ),
            ({"timeout": -1}, "`timeout` must be None or a number of seconds"),
            ({"trial_timeout": "9"}, "`trial_timeout` must be None or a number"),
            ({"directory": 3}, "`directory` must be the path of a folder.*directory=3"),
            ({"first": {"rate": 0.1}}, "`first` must be a list of dicts"),
            ({"first": [{}], "tuner": "grid"}, "`first` must be empty for the grid"),
            ({"space": keras.layers.Dense(2)}, "a function that builds a model.*Dense"),
            ({"space": 7}, "`space` must be a `keras_tuner.HyperModel`.*space=7"),
        ],
    )
    def test_rejects_invalid_arguments(self, tmp_path, bad, message):
        with pytest.raises(ValueError, match=message):
            search(**{"space": Small(), "directory": tmp_path, **bad})

    def test_checks_a_space_and_first_before_any_process(self, tmp_path, monkeypatch):
        monkeypatch.setattr(TrialServer, "_open", None)
        fixed = Space(dict, Choice(8, name="width"), Int(3, 3, name="layers"))
        for space, first, message in (
            (fixed, [], "dimensions all have one value: width, layers. Add `Int`"),
            (Space(dict), [], "Received: dict, without dimensions"),
            (
                Space(dict, width=Choice(8, 16)),
                [{}, {"units": 8}],
                r"`first\[1\]`: .* dimensions: .'width'.. Received: .'units'",
            ),
        ):
            with pytest.raises(ValueError, match=message):
                search(space, directory=tmp_path / "new", first=first)
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("tuner", ["random", "grid"])
def test_an_exhausted_space_is_announced(tmp_path, capsys, tuner):
    space = Scored(dict, Int(1, 3, name="n"))
    arguments = {"objective": ("n", "min"), "tuner": tuner, "seed": 3}
    search(space, directory=tmp_path, max_trials=4, **arguments)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == ("ends after 3 of 4 trials: the space has only 3 different points")


class Scored(Space):
    """A space without training, whose score is a hyperparameter."""

    def make(self, values):
        return Instant().build(keras_tuner.HyperParameters())

    def fit(self, hp, model, *args, **kwargs):
        return {"n": hp.get("n")}


def raising_builder(hp):
    hp.Int("units", 1, 9)
    raise KeyError("no such")
