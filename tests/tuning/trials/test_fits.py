"""Fits of a trial: checkpoints, resumption after a kill, weights and curves."""

import json

import keras
import keras_tuner
import numpy as np
import pytest
from keras.callbacks import EarlyStopping, ReduceLROnPlateau

from kseq.tuning.trials import checkpoint_callback
from kseq.tuning.trials.errors import FailedTrial, FatalError
from kseq.tuning.trials.fits import Fits
from kseq.tuning.trials.layout import TrialDirectory
from kseq.tuning.trials.shuffling import ShuffledBatches

RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(23, 5)).astype("float32")
Y = X @ RANDOM.normal(size=(5, 1)).astype("float32")
LOSS = keras_tuner.Objective("val_loss", "min")


class Killed(BaseException):
    pass


def model():
    keras.utils.set_random_seed(11)
    layers = [keras.layers.Input((5,)), keras.layers.Dense(7, activation="tanh")]
    layers += [keras.layers.Dropout(0.3), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    optimizer = keras.optimizers.Adam(0.3)
    model.compile(optimizer, "mse", metrics=["mae"], run_eagerly=True)
    return model


def train(directory, monkeypatch, kill_after=None, callbacks=(), x=X, y=Y, **settings):
    """Train with a checkpoint after each epoch, up to a kill if one is given."""
    monkeypatch.setattr(checkpoint_callback, "SHARE_OF_TIME", float("inf"))
    directory.mkdir(exist_ok=True)
    reported = []

    def report(epoch, logs):
        reported.append(epoch)
        if kill_after is not None and epoch > kill_after:
            raise Killed
        return True

    trained = model()
    settings = {"validation_data": (X, Y), "epochs": 6, **settings}
    with Fits(directory, LOSS, 5, report):
        history = trained.fit(x, y, callbacks=[c() for c in callbacks], **settings)
    return trained.get_weights(), history.history, reported


def early_stopping():
    return EarlyStopping("val_loss", patience=2, restore_best_weights=True)


def reduce_rate():
    return ReduceLROnPlateau("val_loss", factor=0.3, patience=1, min_delta=0.5)


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize(
    "kill_after, callbacks, data",
    [
        (1, (reduce_rate,), {"batch_size": 7}),
        (2, (), {}),
        (0, (early_stopping,), {"epochs": 40}),
        (3, (reduce_rate, early_stopping), {"epochs": 40, "batch_size": 5}),
    ],
)
def test_killed_fit_ends_like_an_uninterrupted_one(
    tmp_path, monkeypatch, kill_after, callbacks, data
):
    uninterrupted = train(tmp_path / "a", monkeypatch, None, callbacks, **data)
    with pytest.raises(Killed):
        train(tmp_path / "b", monkeypatch, kill_after, callbacks, **data)
    resumed = train(tmp_path / "b", monkeypatch, None, callbacks, **data)
    for actual, expected in zip(resumed[0], uninterrupted[0], strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert resumed[1] == uninterrupted[1]
    assert resumed[2] == uninterrupted[2][kill_after + 1 :]


def test_resumed_fit_advances_a_data_set_to_its_epoch(tmp_path, monkeypatch):
    def data():
        return ShuffledBatches([X, Y, None], 7, seed=2)

    uninterrupted = train(tmp_path / "a", monkeypatch, None, (), data(), None)
    with pytest.raises(Killed):
        train(tmp_path / "b", monkeypatch, 2, (), data(), None)
    resumed = train(tmp_path / "b", monkeypatch, None, (), data(), None)
    assert resumed[1] == uninterrupted[1]


def test_finished_fit_does_not_train_again(tmp_path, monkeypatch):
    once = train(tmp_path, monkeypatch, callbacks=[early_stopping], epochs=40)
    again = train(tmp_path, monkeypatch, callbacks=[early_stopping], epochs=40)
    assert len(once[2]) < 40 and again[2] == [] and again[1] == once[1]


def test_damaged_checkpoint_restarts_the_fit(tmp_path, monkeypatch):
    uninterrupted = train(tmp_path / "a", monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "b", monkeypatch, 3)
    path = TrialDirectory(tmp_path / "b").checkpoint(0)
    path.write_bytes(path.read_bytes()[:900])
    resumed = train(tmp_path / "b", monkeypatch)
    assert resumed[1] == uninterrupted[1] and resumed[2] == [0, 1, 2, 3, 4, 5]


def test_each_epoch_has_every_row_once_in_another_order():
    batches = ShuffledBatches([X, Y, None], 7, seed=2)
    orders = []
    for _ in range(2):
        rows = np.concatenate([batches[i][0] for i in range(len(batches))])
        assert sorted(rows[:, 0]) == sorted(X[:, 0])
        orders.append(rows)
        batches.on_epoch_end()
    assert not np.array_equal(*orders)


def test_saved_weights_are_those_of_the_best_epoch(tmp_path, monkeypatch):
    _, history, _ = train(tmp_path, monkeypatch, epochs=9)
    fresh = model()
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        fresh.load_weights(tmp_path / "best-0.weights.h5")
    [loss, _] = fresh.evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(min(history["val_loss"]), rel=1e-5)


def test_validation_split_takes_the_last_rows_like_keras(tmp_path, monkeypatch):
    split = {"validation_split": 0.3, "validation_data": None, "shuffle": True}
    _, by_split, _ = train(tmp_path / "a", monkeypatch, **split)
    kept = int(23 * 0.7)
    last = {"x": X[:kept], "y": Y[:kept], "validation_data": (X[kept:], Y[kept:])}
    _, by_hand, _ = train(tmp_path / "b", monkeypatch, **last)
    assert by_split == by_hand


def test_a_loss_that_is_not_finite_fails_the_trial(tmp_path, monkeypatch):
    with pytest.raises(FailedTrial, match="was nan in epoch 1"):
        train(tmp_path, monkeypatch, y=Y * np.nan)


def test_objective_without_a_metric_is_a_fatal_error(tmp_path):
    trained = model()
    objective = keras_tuner.Objective("val_bleu", "max")
    with Fits(tmp_path, objective, 5):
        with pytest.raises(FatalError, match="one of loss, mae. Received.*'val_bleu'"):
            trained.fit(X, Y)


def test_checkpoint_contains_no_pickle(tmp_path, monkeypatch):
    train(tmp_path, monkeypatch, callbacks=[early_stopping, reduce_rate])
    with np.load(TrialDirectory(tmp_path).checkpoint(0), allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
        assert json.loads(str(file["meta"]))["next_epoch"] == 6


def two_phases(trained, data):
    """Train the head, then all layers with a learning rate that is too high."""
    first, *_, last = trained.layers
    first.trainable = False
    trained.compile(keras.optimizers.Adam(0.1), "mse", run_eagerly=True)
    one = trained.fit(X, Y, epochs=3, **data)
    first.trainable = True
    trained.compile(keras.optimizers.SGD(0.7, 0.9), "mse", run_eagerly=True)
    return trained.get_weights(), one.history, trained.fit(X, Y, epochs=2, **data)


def folds(trained, data):
    """Train three models, each on some of the rows."""
    weights, histories = [], []
    for fold in range(3):
        one = keras.models.clone_model(trained)
        one.compile(keras.optimizers.Adam(0.1), "mse", run_eagerly=True)
        histories.append(one.fit(X[fold::3], Y[fold::3], epochs=2, **data).history)
        weights += one.get_weights()
    return weights, histories, one.fit(X, Y, epochs=1, **data)


def run_phases(directory, monkeypatch, train_phases, kill_after=None):
    """Train in several calls of `fit`, up to a kill if one is given."""
    monkeypatch.setattr(checkpoint_callback, "SHARE_OF_TIME", float("inf"))
    directory.mkdir(exist_ok=True)
    reported, trained = [], model()

    def report(epoch, logs):
        reported.append(epoch)
        if len(reported) == kill_after:
            raise Killed
        return True

    with Fits(directory, LOSS, 5, report, several=True) as fits:
        weights, histories, last = train_phases(
            trained, {"validation_data": (X, Y), "batch_size": 8}
        )
    numbers = np.random.random(), trained.get_weights()
    rows = fits.logs()
    return [weights, histories, last.history, numbers, rows], reported, fits


@pytest.mark.thorough(all_but=2)
@pytest.mark.parametrize(
    "train_phases, kill_after",
    [(two_phases, 4), (folds, 5), (folds, 6), (two_phases, 2), (folds, 3), (folds, 7)],
)
def test_killed_trial_of_several_fits_ends_like_an_uninterrupted_one(
    tmp_path, monkeypatch, train_phases, kill_after
):
    uninterrupted, reported, _ = run_phases(tmp_path / "a", monkeypatch, train_phases)
    with pytest.raises(Killed):
        run_phases(tmp_path / "b", monkeypatch, train_phases, kill_after)
    resumed, again, fits = run_phases(tmp_path / "b", monkeypatch, train_phases)
    for actual, expected in zip(
        keras.tree.flatten(resumed), keras.tree.flatten(uninterrupted), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)
    assert again == reported[kill_after - 1 :]  # from the epoch of the kill
    assert "fit" not in vars(keras.Model)


def test_nested_fit_is_not_tracked(tmp_path):
    class Probe(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            model().fit(X, Y, verbose=0)

    with Fits(tmp_path, LOSS, 5) as fits:
        model().fit(X, Y, validation_data=(X, Y), epochs=2, callbacks=[Probe()])
    assert len(fits.calls) == 1 and len(fits.logs()) == 2


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("freq, scored", [(2, [1, 3]), ([1, 4], [0, 3]), (3, [2])])
def test_curve_can_lack_epochs(tmp_path, monkeypatch, freq, scored):
    sparse = {"validation_freq": freq, "epochs": 5}
    _, history, _ = train(tmp_path / "a", monkeypatch, **sparse)
    assert len(history["loss"]) == 5 and len(history["val_loss"]) == len(scored)
    _, whole, _ = train(tmp_path / "b", monkeypatch, epochs=5)
    assert history["val_loss"] == [whole["val_loss"][epoch] for epoch in scored]


def test_callback_can_report_the_objective_late_but_not_never(tmp_path):
    def add(epoch, logs):
        if epoch == 2:
            logs["val_bleu"] = 7.0

    late, bleu = keras.callbacks.LambdaCallback(on_epoch_end=add), ("val_bleu", "max")
    with Fits(tmp_path, keras_tuner.Objective(*bleu), 5) as fits:
        model().fit(X, Y, epochs=3, callbacks=[late])
        assert fits.calls[0].best == [7.0, 2]
        with pytest.raises(FatalError, match="one of loss, mae. Received.*'val_bleu'"):
            model().fit(X, Y, epochs=2, callbacks=[late])
        with pytest.raises(FatalError, match="Received.*'val_bleu'"):
            model().fit(X, Y, epochs=9, validation_freq=2, validation_data=(X, Y))
        assert len(fits.calls[-1].logs) == 2
