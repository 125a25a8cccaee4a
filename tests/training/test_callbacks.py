import contextlib
import os
import signal

import keras
import numpy as np
import pytest

from kseq.training import SaveBest, StopOnInterrupt


class ScriptedMetric(keras.callbacks.Callback):
    """A callback that reports scripted values and sets the weights to the epoch."""

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
def test_file_and_model_have_the_weights_of_the_best_epoch(
    tmp_path, name, mode, values, best
):
    model, path = one_weight(), tmp_path / "new" / "model.keras"
    save_best = SaveBest(path, name, mode)
    fit(model, [ScriptedMetric(values, name), save_best], len(values))
    assert epoch_of(model) == best == save_best.best_epoch
    assert save_best.best == values[best - 1]
    assert epoch_of(keras.saving.load_model(path)) == best
    assert os.listdir(path.parent) == ["model.keras"]


@pytest.mark.parametrize("end", ["worse", "crashes"])
def test_new_training_renames_the_file_of_an_earlier_one(tmp_path, end, capsys):
    path = tmp_path / "model.keras"
    fit(one_weight(), [ScriptedMetric([3.0, 1.0]), SaveBest(path)], 2)
    for number in (1, 2):
        values = [9.0, 8.0, 7.0] if end == "worse" else [9.0]  # then an IndexError
        with contextlib.suppress(IndexError):
            model = one_weight()
            callbacks = [ScriptedMetric(values), SaveBest(path)]
            model.fit(np.ones((3, 2)), np.ones((3, 1)), epochs=3, callbacks=callbacks)
        renamed = keras.saving.load_model(tmp_path / "model-1.keras")
        assert epoch_of(renamed) == 2
        assert epoch_of(keras.saving.load_model(path)) == len(values)
        assert (
            f"earlier training was renamed to model-{number}.keras"
            in capsys.readouterr().out
        )
    assert len(os.listdir(tmp_path)) == 3


def test_resumed_training_renames_only_a_file_without_a_known_value(tmp_path):
    path = tmp_path / "model.keras"
    fit(one_weight(), [ScriptedMetric([3.0]), SaveBest(path)], 1)
    resume_training(path, [2.0, 1.0])
    assert os.listdir(tmp_path) == ["model.keras"]
    one_weight().save(path)
    resume_training(path, [2.0, 1.0])
    assert sorted(os.listdir(tmp_path)) == ["model-1.keras", "model.keras"]


def test_second_fit_resets_the_best_value(tmp_path):
    model, save_best = one_weight(), SaveBest(tmp_path / "model.keras")
    fit(model, [ScriptedMetric([1.0]), save_best], 1)
    fit(model, [ScriptedMetric([5.0, 4.0]), save_best], 2)
    assert save_best.best == 4.0 and save_best.best_epoch == 2


def resume_training(path, values, monitor="val_loss", mode=None, saved=None):
    """Train from epoch 3 with a new model and callback, as a new process does."""
    model = one_weight()
    save_best = SaveBest(path, monitor, mode, saved=saved and saved(model))
    report = ScriptedMetric([None, None, None, *values], monitor)
    data = np.ones((3, 2)), np.ones((3, 1))
    settings = {"initial_epoch": 3, "epochs": 3 + len(values), "verbose": 0}
    model.fit(*data, callbacks=[report, save_best], **settings)
    return model, save_best


@pytest.mark.parametrize(
    ("values", "best"), [([5.0, 2.0], 2), ([2.0, 0.5], 5), ([1.0, 3.0], 2)]
)
def test_resumed_training_remembers_the_best_value_of_the_file(tmp_path, values, best):
    path = tmp_path / "model.keras"
    fit(one_weight(), [ScriptedMetric([3.0, 1.0, 2.0]), SaveBest(path)], 3)
    model, save_best = resume_training(path, values)
    assert epoch_of(keras.saving.load_model(path)) == best == save_best.best_epoch
    assert epoch_of(model) == best and save_best.best == min(1.0, *values)


def test_resumed_training_restores_a_model_inside_the_saved_object(tmp_path):
    path = tmp_path / "model.keras"

    def containing(model):
        return keras.Sequential([keras.Input((2,)), model])

    first = one_weight()
    save_best = SaveBest(path, saved=containing(first))
    fit(first, [ScriptedMetric([3.0, 1.0, 2.0]), save_best], 3)
    model, _ = resume_training(path, [7.0], saved=containing)
    assert epoch_of(model) == epoch_of(keras.saving.load_model(path)) == 2


def test_replaces_a_file_without_a_known_value_of_the_metric(tmp_path):
    path = tmp_path / "model.keras"
    one_weight().save(path)
    assert resume_training(path, [7.0])[1].best == 7.0
    fit(one_weight(), [ScriptedMetric([0.5], "loss"), SaveBest(path, "loss")], 1)
    assert resume_training(path, [7.0])[1].best == 7.0
    path.write_text("no archive")
    assert resume_training(path, [7.0])[1].best == 7.0
    assert epoch_of(keras.saving.load_model(path)) == 4


def test_saves_the_given_object_instead_of_the_model(tmp_path):
    model, saved = one_weight(), []

    class Pipeline:
        def save(self, path):
            saved.append(epoch_of(model))
            path.write_text("whole")

    path = tmp_path / "pipeline.keras"
    fit(model, [ScriptedMetric([3.0, 2.0]), SaveBest(path, saved=Pipeline())], 2)
    assert saved == [1.0, 2.0] and path.read_text() == "whole"


def test_failed_save_keeps_the_old_file_and_leaves_no_other(tmp_path):
    class FullDisk:
        def save(self, path):
            path.write_text("hal")
            raise OSError("No space left on device")

    path = tmp_path / "model.keras"
    path.write_text("whole")
    with pytest.raises(OSError, match="No space left"):
        fit(one_weight(), [ScriptedMetric([1.0]), SaveBest(path, saved=FullDisk())], 1)
    assert path.read_text() == "whole" and os.listdir(tmp_path) == ["model.keras"]


def test_nothing_is_saved_if_the_metric_is_always_nan(tmp_path):
    model = one_weight()
    save_best = SaveBest(tmp_path / "model.keras", "errors", "min")
    fit(model, [ScriptedMetric([float("nan")] * 2, "errors"), save_best], 2)
    assert save_best.best is None and not os.listdir(tmp_path) and epoch_of(model) == 2


@pytest.mark.parametrize("loss", ["nan", "inf"])
def test_nonfinite_loss_ends_training_with_the_best_weights(tmp_path, loss):
    model, path = one_weight(), tmp_path / "model.keras"
    save_best = SaveBest(path, "val_accuracy")
    accuracies = ScriptedMetric([0.5, 0.9, 0.9], "val_accuracy")
    losses = ScriptedMetric([1.0, float(loss), 0.5], "loss")
    assert len(fit(model, [accuracies, losses, save_best], 3).epoch) == 2
    assert epoch_of(model) == epoch_of(keras.saving.load_model(path)) == 1


@pytest.mark.parametrize("loss", ["nan", "inf"])
def test_raises_if_the_loss_is_never_finite(tmp_path, loss):
    save_best = SaveBest(tmp_path / "model.keras", "val_accuracy")
    accuracies = ScriptedMetric([0.5], "val_accuracy")
    with pytest.raises(ValueError, match=f"after epoch 1: {{'loss': {loss}}}. Lower"):
        fit(
            one_weight(),
            [accuracies, ScriptedMetric([float(loss)], "loss"), save_best],
            1,
        )
    assert not os.listdir(tmp_path)


def test_rejects_a_metric_that_is_not_reported(tmp_path):
    save_best = SaveBest(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"\['loss'\]. Received: monitor='val_loss'"):
        fit(one_weight(), [save_best], 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model.h5",), "must end in .keras"),
        (("model.keras", "val_charm"), "mode=None, monitor='val_charm'"),
        (("model.keras", "val_loss", "least"), "mode='least'"),
    ],
)
def test_rejects_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        SaveBest(*arguments)


class PressCtrlC(keras.callbacks.Callback):
    def __init__(self, times=1):
        super().__init__()
        self.times = times

    def on_train_batch_end(self, batch, logs=None):
        for _ in range(self.times):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def python_handles_sigint():
    """Install Python's handler: a shell ignores SIGINT in its background jobs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_epoch_and_the_training(tmp_path):
    stop, save_best = StopOnInterrupt(), SaveBest(tmp_path / "model.keras", "loss")
    before = signal.getsignal(signal.SIGINT)
    history = fit(one_weight(), [stop, save_best, PressCtrlC()], 7)
    assert len(history.epoch) == 1 and stop.interrupted and save_best.best_epoch == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_second_ctrl_c_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt):
        fit(one_weight(), [StopOnInterrupt(), PressCtrlC(2)], 7)


def test_training_without_ctrl_c_is_unchanged():
    stop, before = StopOnInterrupt(), signal.getsignal(signal.SIGINT)
    assert len(fit(one_weight(), [stop], 3).epoch) == 3
    assert not stop.interrupted and signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_interrupts_after_a_failed_training():
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
