import contextlib
import os
import signal

import keras
import numpy as np
import pytest

from kseq.training import SaveBest, StopOnInterrupt


class Reports(keras.callbacks.Callback):
    """Reports a scripted value each epoch, and marks the weights of that epoch."""

    def __init__(self, values, name="val_loss"):
        super().__init__()
        self.values = values
        self.name = name

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.values[epoch]
        self.model.set_weights([np.full((2, 1), epoch + 1.0)])


def one_weight():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    return model


def fit(model, callbacks, epochs):
    data = np.ones((3, 2)), np.ones((3, 1))
    return model.fit(*data, epochs=epochs, callbacks=callbacks, verbose=0)


def epoch_of(model):
    return model.get_weights()[0].max()


@pytest.mark.parametrize(
    ("name", "mode", "values", "best"),
    [
        ("val_loss", None, [3.0, 1.0, 2.0], 2),
        ("val_loss", None, [2.0, 2.0, 2.0], 1),
        ("val_accuracy", None, [0.3, 0.1, 0.5], 3),
        ("sparse_accuracy", None, [0.3, 0.5, 0.4], 2),
        ("val_exact_match", None, [0.3, 0.5, 0.4], 2),
        ("val_edit_distance_rate", None, [0.3, 0.5, 0.4], 1),
        ("errors", "min", [float("nan"), 7.0, 8.0], 2),
        ("errors", "min", [float("-inf"), 7.0, 8.0], 2),
        ("bleu", "max", [1.0, 5.0, float("nan")], 2),
    ],
)
def test_the_file_and_the_model_hold_the_best_epoch(tmp_path, name, mode, values, best):
    model, path = one_weight(), tmp_path / "new" / "model.keras"
    keep = SaveBest(path, name, mode)
    fit(model, [Reports(values, name), keep], len(values))
    assert epoch_of(model) == best == keep.best_epoch
    assert keep.best == values[best - 1]
    assert epoch_of(keras.saving.load_model(path)) == best
    assert os.listdir(path.parent) == ["model.keras"]


@pytest.mark.parametrize("end", ["worse", "dies"])
def test_a_new_training_loses_no_file_of_an_earlier_one(tmp_path, end, capsys):
    path = tmp_path / "model.keras"
    fit(one_weight(), [Reports([3.0, 1.0]), SaveBest(path)], 2)
    for number in (1, 2):
        values = [9.0, 8.0, 7.0] if end == "worse" else [9.0]  # and an index error
        with contextlib.suppress(IndexError):
            model = one_weight()
            callbacks = [Reports(values), SaveBest(path)]
            model.fit(np.ones((3, 2)), np.ones((3, 1)), epochs=3, callbacks=callbacks)
        kept = keras.saving.load_model(tmp_path / "model-1.keras")
        assert epoch_of(kept) == 2
        assert epoch_of(keras.saving.load_model(path)) == len(values)
        assert (
            f"earlier training was renamed to model-{number}.keras"
            in capsys.readouterr().out
        )
    assert len(os.listdir(tmp_path)) == 3


def test_a_training_that_goes_on_renames_no_file_but_one_of_unknown_worth(tmp_path):
    path = tmp_path / "model.keras"
    fit(one_weight(), [Reports([3.0]), SaveBest(path)], 1)
    go_on(path, [2.0, 1.0])
    assert os.listdir(tmp_path) == ["model.keras"]
    one_weight().save(path)
    go_on(path, [2.0, 1.0])
    assert sorted(os.listdir(tmp_path)) == ["model-1.keras", "model.keras"]


def test_a_second_training_begins_anew(tmp_path):
    model, keep = one_weight(), SaveBest(tmp_path / "model.keras")
    fit(model, [Reports([1.0]), keep], 1)
    fit(model, [Reports([5.0, 4.0]), keep], 2)
    assert keep.best == 4.0 and keep.best_epoch == 2


def go_on(path, values, monitor="val_loss", mode=None, saved=None):
    """A training of a new process that goes on from epoch 3 of an earlier one."""
    model = one_weight()
    keep = SaveBest(path, monitor, mode, saved=saved and saved(model))
    report = Reports([None, None, None, *values], monitor)
    data = np.ones((3, 2)), np.ones((3, 1))
    settings = {"initial_epoch": 3, "epochs": 3 + len(values), "verbose": 0}
    model.fit(*data, callbacks=[report, keep], **settings)
    return model, keep


@pytest.mark.parametrize(
    ("values", "best"), [([5.0, 2.0], 2), ([2.0, 0.5], 5), ([1.0, 3.0], 2)]
)
def test_a_training_that_goes_on_keeps_what_the_file_is_worth(tmp_path, values, best):
    path = tmp_path / "model.keras"
    fit(one_weight(), [Reports([3.0, 1.0, 2.0]), SaveBest(path)], 3)
    model, keep = go_on(path, values)
    assert epoch_of(keras.saving.load_model(path)) == best == keep.best_epoch
    assert epoch_of(model) == best and keep.best == min(1.0, *values)


def test_a_training_goes_on_with_what_holds_the_model(tmp_path):
    path = tmp_path / "model.keras"

    def whole(model):
        return keras.Sequential([keras.Input((2,)), model])

    first = one_weight()
    keep = SaveBest(path, saved=whole(first))
    fit(first, [Reports([3.0, 1.0, 2.0]), keep], 3)
    model, _ = go_on(path, [7.0], saved=whole)
    assert epoch_of(model) == epoch_of(keras.saving.load_model(path)) == 2


def test_a_file_of_unknown_worth_is_written_anew(tmp_path):
    path = tmp_path / "model.keras"
    one_weight().save(path)
    assert go_on(path, [7.0])[1].best == 7.0
    fit(one_weight(), [Reports([0.5], "loss"), SaveBest(path, "loss")], 1)
    assert go_on(path, [7.0])[1].best == 7.0
    path.write_text("no archive")
    assert go_on(path, [7.0])[1].best == 7.0
    assert epoch_of(keras.saving.load_model(path)) == 4


def test_what_holds_the_model_is_saved_in_its_place(tmp_path):
    model, saved = one_weight(), []

    class Pipeline:
        def save(self, path):
            saved.append(epoch_of(model))
            path.write_text("whole")

    path = tmp_path / "pipeline.keras"
    fit(model, [Reports([3.0, 2.0]), SaveBest(path, saved=Pipeline())], 2)
    assert saved == [1.0, 2.0] and path.read_text() == "whole"


def test_a_failing_save_leaves_the_file_of_before_and_nothing_else(tmp_path):
    class FullDisk:
        def save(self, path):
            path.write_text("hal")
            raise OSError("No space left on device")

    path = tmp_path / "model.keras"
    path.write_text("whole")
    with pytest.raises(OSError, match="No space left"):
        fit(one_weight(), [Reports([1.0]), SaveBest(path, saved=FullDisk())], 1)
    assert path.read_text() == "whole" and os.listdir(tmp_path) == ["model.keras"]


def test_without_an_epoch_better_than_none_nothing_is_saved(tmp_path):
    model = one_weight()
    keep = SaveBest(tmp_path / "model.keras", "errors", "min")
    fit(model, [Reports([float("nan")] * 2, "errors"), keep], 2)
    assert keep.best is None and not os.listdir(tmp_path) and epoch_of(model) == 2


@pytest.mark.parametrize("loss", ["nan", "inf"])
def test_a_loss_that_is_no_number_ends_training_with_the_best_epoch(tmp_path, loss):
    model, path = one_weight(), tmp_path / "model.keras"
    keep = SaveBest(path, "val_accuracy")
    accuracies = Reports([0.5, 0.9, 0.9], "val_accuracy")
    losses = Reports([1.0, float(loss), 0.5], "loss")
    assert len(fit(model, [accuracies, losses, keep], 3).epoch) == 2
    assert epoch_of(model) == epoch_of(keras.saving.load_model(path)) == 1


@pytest.mark.parametrize("loss", ["nan", "inf"])
def test_a_loss_that_never_was_a_number_is_an_error(tmp_path, loss):
    keep = SaveBest(tmp_path / "model.keras", "val_accuracy")
    accuracies = Reports([0.5], "val_accuracy")
    with pytest.raises(ValueError, match=f"after epoch 1: {{'loss': {loss}}}. Lower"):
        fit(one_weight(), [accuracies, Reports([float(loss)], "loss"), keep], 1)
    assert not os.listdir(tmp_path)


def test_a_value_that_is_not_reported_is_an_error(tmp_path):
    keep = SaveBest(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"\['loss'\]. Received: monitor='val_loss'"):
        fit(one_weight(), [keep], 1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("model.h5",), "must end in .keras"),
        (("model.keras", "val_charm"), "mode=None, monitor='val_charm'"),
        (("model.keras", "val_loss", "least"), "mode='least'"),
    ],
)
def test_bad_arguments_are_errors(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        SaveBest(*arguments)


class PressControlC(keras.callbacks.Callback):
    def __init__(self, times=1):
        super().__init__()
        self.times = times

    def on_train_batch_end(self, batch, logs=None):
        for _ in range(self.times):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def python_hears_control_c():
    """Which it does not where a shell runs the tests in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_control_c_closes_the_epoch_and_ends_training(tmp_path):
    stop, keep = StopOnInterrupt(), SaveBest(tmp_path / "model.keras", "loss")
    before = signal.getsignal(signal.SIGINT)
    history = fit(one_weight(), [stop, keep, PressControlC()], 7)
    assert len(history.epoch) == 1 and stop.interrupted and keep.best_epoch == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_control_c_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt):
        fit(one_weight(), [StopOnInterrupt(), PressControlC(2)], 7)


def test_nothing_is_changed_where_nobody_presses_control_c():
    stop, before = StopOnInterrupt(), signal.getsignal(signal.SIGINT)
    assert len(fit(one_weight(), [stop], 3).epoch) == 3
    assert not stop.interrupted and signal.getsignal(signal.SIGINT) is before


def test_control_c_after_a_training_that_failed_interrupts():
    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("broken")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError, match="broken"):
        fit(one_weight(), [StopOnInterrupt(), Fails()], 2)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        signal.getsignal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
