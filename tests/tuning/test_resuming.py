"""A training killed in any epoch ends as if nothing had happened."""

import json

import keras
import keras_tuner
import numpy as np
import pytest
from keras.callbacks import EarlyStopping, ReduceLROnPlateau

from kseq.tuning.resuming import (
    BEST,
    CHECKPOINT,
    FailedTrial,
    FatalError,
    ResumableFit,
    ShuffledBatches,
)

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
    """Trains, a checkpoint after every epoch, and perhaps dies after one of them."""
    monkeypatch.setattr("kseq.tuning.resuming.SHARE_OF_TIME", float("inf"))
    directory.mkdir(exist_ok=True)
    reported = []

    def report(epoch, logs):
        reported.append(epoch)
        if kill_after is not None and epoch > kill_after:
            raise Killed
        return True

    trained = model()
    ResumableFit(trained, directory, LOSS, 5, report)
    settings = {"validation_data": (X, Y), "epochs": 6, **settings}
    history = trained.fit(x, y, callbacks=[c() for c in callbacks], **settings)
    return trained.get_weights(), history.history, reported


def impatient():
    return EarlyStopping("val_loss", patience=2, restore_best_weights=True)


def plateau():
    return ReduceLROnPlateau("val_loss", factor=0.3, patience=1, min_delta=0.5)


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "kill_after, callbacks, data",
    [
        (1, (plateau,), {"batch_size": 7}),
        (2, (), {}),
        (0, (impatient,), {"epochs": 40}),
        (3, (plateau, impatient), {"epochs": 40, "batch_size": 5}),
    ],
)
def test_a_killed_fit_ends_as_one_that_was_not(
    tmp_path, monkeypatch, kill_after, callbacks, data
):
    straight = train(tmp_path / "a", monkeypatch, None, callbacks, **data)
    with pytest.raises(Killed):
        train(tmp_path / "b", monkeypatch, kill_after, callbacks, **data)
    resumed = train(tmp_path / "b", monkeypatch, None, callbacks, **data)
    for mine, theirs in zip(resumed[0], straight[0], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert resumed[1] == straight[1]
    assert resumed[2] == straight[2][kill_after + 1 :]


def test_a_data_set_of_batches_lives_through_the_epochs_before(tmp_path, monkeypatch):
    def data():
        return ShuffledBatches([X, Y, None], 7, seed=2)

    straight = train(tmp_path / "a", monkeypatch, None, (), data(), None)
    with pytest.raises(Killed):
        train(tmp_path / "b", monkeypatch, 2, (), data(), None)
    resumed = train(tmp_path / "b", monkeypatch, None, (), data(), None)
    assert resumed[1] == straight[1]


def test_a_fit_that_had_ended_trains_no_more(tmp_path, monkeypatch):
    once = train(tmp_path, monkeypatch, callbacks=[impatient], epochs=40)
    again = train(tmp_path, monkeypatch, callbacks=[impatient], epochs=40)
    assert len(once[2]) < 40 and again[2] == [] and again[1] == once[1]


def test_a_damaged_checkpoint_means_to_begin_again(tmp_path, monkeypatch):
    straight = train(tmp_path / "a", monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "b", monkeypatch, 3)
    path = tmp_path / "b" / CHECKPOINT
    path.write_bytes(path.read_bytes()[:900])
    resumed = train(tmp_path / "b", monkeypatch)
    assert resumed[1] == straight[1] and resumed[2] == [0, 1, 2, 3, 4, 5]


def test_each_epoch_has_an_order_of_its_own_and_every_row_once():
    batches = ShuffledBatches([X, Y, None], 7, seed=2)
    orders = []
    for _ in range(2):
        rows = np.concatenate([batches[i][0] for i in range(len(batches))])
        assert sorted(rows[:, 0]) == sorted(X[:, 0])
        orders.append(rows)
        batches.on_epoch_end()
    assert not np.array_equal(*orders)


def test_the_best_weights_are_those_of_the_best_epoch(tmp_path, monkeypatch):
    _, history, _ = train(tmp_path, monkeypatch, epochs=9)
    fresh = model()
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        fresh.load_weights(tmp_path / BEST)
    [loss, _] = fresh.evaluate(X, Y, verbose=0)
    assert loss == pytest.approx(min(history["val_loss"]), rel=1e-5)


def test_a_split_for_validation_takes_the_last_rows_as_keras_does(
    tmp_path, monkeypatch
):
    split = {"validation_split": 0.3, "validation_data": None, "shuffle": True}
    _, by_split, _ = train(tmp_path / "a", monkeypatch, **split)
    kept = int(23 * 0.7)
    last = {"x": X[:kept], "y": Y[:kept], "validation_data": (X[kept:], Y[kept:])}
    _, by_hand, _ = train(tmp_path / "b", monkeypatch, **last)
    assert by_split == by_hand


def test_a_loss_that_is_not_finite_fails_the_trial(tmp_path, monkeypatch):
    with pytest.raises(FailedTrial, match="was nan in epoch 1"):
        train(tmp_path, monkeypatch, y=Y * np.nan)


def test_an_objective_that_no_metric_has_is_fatal(tmp_path):
    trained = model()
    objective = keras_tuner.Objective("val_bleu", "max")
    ResumableFit(trained, tmp_path, objective, 5)
    with pytest.raises(FatalError, match="one of loss, mae. Received.*'val_bleu'"):
        trained.fit(X, Y)


def test_a_checkpoint_holds_no_pickle(tmp_path, monkeypatch):
    train(tmp_path, monkeypatch, callbacks=[impatient, plateau])
    with np.load(tmp_path / CHECKPOINT, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
        assert json.loads(str(file["meta"]))["next_epoch"] == 6
