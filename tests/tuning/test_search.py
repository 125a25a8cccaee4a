"""Searches that are killed, that fail, that run side by side."""

import html
import os
import re
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest

from kseq.tuning.results import Results
from kseq.tuning.search import search
from kseq.tuning.trials.errors import SearchFailed
from kseq.tuning.trials.stopping import MedianStopping
from kseq.tuning.trials.table import LiveTable
from tests.tuning.searches import (
    Dying,
    Failing,
    Folds,
    Instant,
    Measured,
    OnlyInFit,
    OwnLoop,
    Phases,
    Small,
    Waiting,
    X,
    Y,
    settings,
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A search that nothing disturbed, with one worker."""
    directory = tmp_path_factory.mktemp("straight")
    return search(Small(), (X, Y), **settings(directory / "search"))


def facts(results):
    """What a kill must not change."""
    keys = ("trial", "status", "score", "epoch", "epochs", "values")
    rows = [{key: row[key] for key in keys} for row in results.table()]
    curves = [results.curves(row["trial"]) for row in rows]
    return rows, curves


def test_a_search_finds_what_it_tried(straight):
    rows, curves = facts(straight)
    assert [row["status"] for row in rows] == ["completed"] * 3
    assert len({row["score"] for row in rows}) == 3
    assert all(len(curve["val_loss"]) == 4 for curve in curves)
    best = min(rows, key=lambda row: row["score"])
    assert straight.best["trial"] == best["trial"]
    model = straight.best_model()
    loss = model.evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(best["score"], rel=1e-5)
    page = straight.report(straight.directory / "report.html").read_text()
    names = {"space": Small()}
    exec(html.unescape(re.search("<pre>(.*?)</pre>", page, re.S)[1]), names)
    assert names["model"].evaluate(X, Y, verbose=0) == loss


def test_a_search_leaves_the_files_that_every_version_knows(straight):
    root = straight.directory
    left = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}
    of_search = {"journal.json", "search.json", "lock"}
    of_trial = ["trial.json", "output.txt"]
    of_trial += ["best.weights.h5", "build_config.json", "model.json"]
    trials = [f"trials/{row['trial']}" for row in straight.table()]
    left.discard("report.html")  # which another test may have asked for
    assert left == of_search | {f"{t}/{name}" for t in trials for name in of_trial}


def test_the_best_models_come_in_order(straight):
    scores = sorted(row["score"] for row in straight.table())
    models = straight.best_models(2)
    losses = [model.evaluate(X, Y, verbose=0) for model in models]
    assert losses == pytest.approx(scores[:2], rel=1e-5)
    assert len(straight.best_models(9)) == 3
    with pytest.raises(ValueError, match="`number` must be .*Received"):
        straight.best_models(0)


def test_a_trial_killed_in_the_middle_goes_on_where_it_was(tmp_path, straight):
    space = Dying(str(tmp_path / "killed"))
    results = search(space, (X, Y), **settings(tmp_path / "search"))
    assert (tmp_path / "killed").exists()
    assert facts(results) == facts(straight)
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


def test_the_best_model_of_folds_is_that_of_the_best_fold(tmp_path):
    results = search(Folds(), (X, Y), **settings(tmp_path) | {"max_trials": 2})
    row = results.best
    curve = results.curves(row["trial"])["val_loss"]
    assert row["score"] == pytest.approx((min(curve[:4]) + min(curve[4:])) / 2)
    loss = results.best_model().evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(min(curve), rel=1e-5)
    with pytest.raises(ValueError, match="`number` must be"):
        results.best_hyperparameters(0)


def test_a_loop_of_ones_own_has_weights_and_no_training_has_none(tmp_path):
    arguments = settings(tmp_path / "a") | {"max_trials": 1}
    results = search(OwnLoop(), (X, Y), **arguments)
    loss = results.best_model().evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(results.best["score"], rel=1e-5)
    arguments["directory"] = tmp_path / "b"
    results = search(Instant(), **arguments)
    with pytest.raises(ValueError, match="trained a model.*Received: trial 0"):
        results.best_model()


def test_hyperparameters_may_be_in_fit_alone(tmp_path):
    arguments = settings(tmp_path) | {"epochs": 1, "workers": 2}
    for trials in (2, 5):  # the second call goes on
        results = search(OnlyInFit(), (X, Y), **arguments | {"max_trials": trials})
    rows = results.table()
    assert len({str(row["values"]) for row in rows}) == len(rows) == 5
    assert all(set(row["values"]) == {"batch_size", "long"} for row in rows)
    assert {row["epochs"] for row in rows} == {1, 3}
    with pytest.raises(ValueError, match="hyperparameter to search over"):
        search(NoneAtAll(), (X, Y), **settings(tmp_path / "none"))


class NoneAtAll(OnlyInFit):
    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, **kwargs)


def test_a_curve_that_lacks_epochs_is_shown_and_compared(tmp_path):
    sparse = {"validation_freq": 2, "stopping": MedianStopping(1, 1)}
    results = search(Small(), (X, Y), **settings(tmp_path), **sparse)
    for row in results.table():
        curve = results.curves(row["trial"])["val_loss"]
        assert [value is None for value in curve] == [True, False] * (len(curve) // 2)
        assert row["score"] == min(curve[1::2])
    assert "Learning curves" in results.report(tmp_path / "report.html").read_text()


class Rated(Small):
    """Compiles a metric that shall rise."""

    def build(self, hp):
        model = super().build(hp)
        metrics = [keras.metrics.R2Score(name="rank")]
        model.compile(model.optimizer, "mse", metrics=metrics, run_eagerly=True)
        return model


@pytest.mark.parametrize("tuner", ["random", "bayesian", "hyperband"])
def test_several_objectives_are_added_up(tmp_path, tuner):
    objective, directory = ["val_loss", ("val_rank", "max")], tmp_path / "search"
    arguments = settings(directory) | {"max_trials": 2, "epochs": 2, "tuner": tuner}
    results = search(Rated(), (X, Y), objective=objective, **arguments)
    for row in results.table():
        curves = results.curves(row["trial"])
        losses, ranks = curves["val_loss"], curves["val_rank"]
        sums = [a - b for a, b in zip(losses, ranks, strict=True)]
        assert row["score"] == pytest.approx(min(sums))
    scores = [row["score"] for row in results.table()]
    assert len(scores) == 2 and results.best["score"] == min(scores)
    loss, rank = results.best_model().evaluate(X, Y, verbose=0)
    assert loss - rank == pytest.approx(results.best["score"], rel=1e-4)
    again = search(Rated(), (X, Y), objective=objective, **arguments)
    loaded = Results.load(directory)
    for other in (again, loaded):
        assert other.table() == results.table()
        assert str(other.objective) == str(results.objective)
    assert "Learning curves" in loaded.report(tmp_path / "report.html").read_text()


def test_of_several_objectives_one_that_is_not_measured_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"Received: objective=\['val_loss', 'val_mae'"
    ):
        search(Small(), (X, Y), objective=["val_loss", "val_mae"], **settings(tmp_path))


def test_several_executions_have_a_mean_and_the_best_model(tmp_path):
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


def test_a_search_is_opened_without_its_data_and_space(straight):
    before = {p: p.stat().st_mtime_ns for p in straight.directory.rglob("*")}
    results = Results.load(straight.directory)
    assert facts(results) == facts(straight) and str(results) == str(straight)
    assert results.best_hyperparameters(2)[0] == straight.best_values()
    loss = results.best_model().evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(straight.best["score"], rel=1e-5)
    again = Results.load(str(straight.directory), Small()).best_model()
    assert again.evaluate(X, Y, verbose=0) == pytest.approx(loss)
    assert {p: p.stat().st_mtime_ns for p in straight.directory.rglob("*")} == before
    with pytest.raises(ValueError, match="must contain a search.*search.json"):
        Results.load(straight.directory / "trials")


def test_a_search_may_be_overwritten_and_files_of_others_not(tmp_path):
    arguments = settings(tmp_path / "a") | {"max_trials": 1}
    search(Instant(), **arguments)
    with pytest.raises(SearchFailed):
        search(broken, **arguments, overwrite=True)
    assert len(Results.load(tmp_path / "a").table()) == 1
    changes = {"seed": 5, "overwrite": True, "max_trials": 2}
    results = search(Instant(), **arguments | changes)
    assert len(results.table()) == 2 and results.identity["seed"] == 5
    (tmp_path / "thesis.tex").write_text("long work")
    with pytest.raises(ValueError, match="must be empty, new, or from this search"):
        search(Instant(), **arguments | {"directory": tmp_path}, overwrite=True)


def wait_until(fact, seconds=240):
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "what was waited for did not happen"
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


def begin_and_find_trial(tmp_path):
    """Starts the search as a program of its own, up to the middle of a trial."""
    (tmp_path / "pid").unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.tuning.searches", tmp_path / "search", tmp_path],
        cwd=os.path.join(os.path.dirname(__file__), "..", ".."),
        start_new_session=True,
    )
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    return process, int((tmp_path / "pid").read_text())


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("kill", [os.kill, os.killpg])  # the parent alone, and all
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_search_that_is_killed_goes_on_where_it_was(tmp_path, straight, kill):
    process, trial = begin_and_find_trial(tmp_path)
    family = [trial, *children(process.pid)]
    assert len(family) >= 2 and all(map(is_alive, family))
    kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(map(is_alive, family)))
    assert list(tmp_path.glob("search/attempts/*/*/checkpoint-0.npz"))
    (tmp_path / "go").touch()
    results = search(Waiting(tmp_path), (X, Y), **settings(tmp_path / "search"))
    assert facts(results) == facts(straight)


def parent_of(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_search_goes_on_when_the_server_of_its_trials_is_killed(tmp_path, straight):
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
    assert facts(results) == facts(straight)
    assert [row["attempts"] for row in results.table()] == [1, 1, 1]


def test_ctrl_c_stops_and_the_same_call_goes_on(tmp_path, straight, monkeypatch):
    def press_ctrl_c(self, event):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LiveTable, "show_end", press_ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            search(Small(), (X, Y), **settings(tmp_path))
    results = search(Small(), (X, Y), **settings(tmp_path))
    assert facts(results) == facts(straight)


def test_a_finished_search_returns_at_once_and_goes_on_to_more_trials(straight):
    arguments = settings(straight.directory)
    began = straight.directory.joinpath("trials").stat().st_mtime
    again = search(Small(), (X, Y), **arguments)
    assert facts(again) == facts(straight)
    assert straight.directory.joinpath("trials").stat().st_mtime == began


def test_what_fails_is_one_trial_and_says_why(tmp_path):
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


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_the_parent_does_not_grow(tmp_path, monkeypatch):
    pages = []
    monkeypatch.setattr(LiveTable, "show_end", lambda *args: pages.append(resident()))
    search(Instant(), max_trials=16, seed=5, directory=tmp_path, verbose=False)
    assert len(pages) == 16
    assert pages[-1] <= 1.1 * pages[2]


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("tuner", ["hyperband", "bayesian"])
def test_the_tuners_of_keras_tuner_run(tmp_path, tuner):
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
def test_what_is_known_to_be_good_is_tried_first(tmp_path, tuner):
    first = [{"deep": True, "units": 5}, {"rate": 0.02}]
    arguments = settings(tmp_path) | {"tuner": tuner, "first": first, "epochs": 2}
    for trials in (1, 3):  # the second call goes on
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


class TestBadInput:
    def test_first_values_that_do_not_count(self, tmp_path):
        with pytest.raises(ValueError, match="that are used: .'deep', 'rate'.*'units'"):
            search(Small(), (X, Y), **settings(tmp_path / "a"), first=[{"units": 3}])
        assert not (tmp_path / "a").exists()

    def test_an_objective_that_no_metric_has(self, tmp_path):
        arguments = settings(tmp_path) | {"objective": ("val_mae", "min")}
        arguments["max_trials"] = 1
        with pytest.raises(ValueError, match="one of loss, val_loss. Received: .*mae"):
            search(Small(), (X, Y), **arguments)
        results = search(Measured(), (X, Y), **arguments)
        assert [row["status"] for row in results.table()] == ["completed"]
        with pytest.raises(ValueError, match="another search .*space: there Measured"):
            search(Small(), (X, Y), **arguments)

    def test_a_builder_that_raises(self, tmp_path):
        with pytest.raises(SearchFailed, match="(?s)KeyError: 'no such'.*Traceback"):
            search(broken, directory=tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_a_directory_of_another_search(self, straight):
        before = (straight.directory / "journal.json").read_bytes()
        with pytest.raises(ValueError, match="tuner: there RandomSearch.*here Grid"):
            search(Small(), (X, Y), **settings(straight.directory), tuner="grid")
        with pytest.raises(ValueError, match="epochs of fit: there 4, here 5"):
            search(Small(), (X, Y), **settings(straight.directory) | {"epochs": 5})
        with pytest.raises(ValueError, match="another search .data: there .*, here"):
            search(Small(), (X, Y + 1), **settings(straight.directory))
        with pytest.raises(ValueError, match="space: there Small .*overwrite=True"):
            search(Folds(), (X, Y), **settings(straight.directory))
        with pytest.raises(ValueError, match="callbacks of fit: there None, here list"):
            stop = [keras.callbacks.EarlyStopping("val_loss")]
            search(Small(), (X, Y), **settings(straight.directory), callbacks=stop)
        assert (straight.directory / "journal.json").read_bytes() == before

    def test_a_search_in_which_every_trial_fails(self, tmp_path):
        with pytest.raises(SearchFailed, match="(?s)All 1 trials.*Traceback"):
            few = {"max_trials": 1, "retries": 0, "verbose": False}
            search(Small(), (X, Y[:3]), directory=tmp_path, **few)

    def test_a_space_that_does_not_pickle(self, tmp_path):
        with pytest.raises(ValueError, match="must be picklable.*Received: .*lock"):
            search(Small(), threading.Lock(), directory=tmp_path)

    @pytest.mark.parametrize(
        "bad, complaint",
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
    def test_arguments_that_make_no_sense(self, tmp_path, bad, complaint):
        with pytest.raises(ValueError, match=complaint):
            search(**{"space": Small(), "directory": tmp_path, **bad})


def broken(hp):
    hp.Int("units", 1, 9)
    raise KeyError("no such")
