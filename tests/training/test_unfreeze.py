"""Layers that train only after the first epochs."""

import keras
import numpy as np
import pytest

from kseq.training import Unfreeze
from tests.helpers import random_array

X, Y = random_array(12, 3), random_array(12, 1, seed=1)


class Recorder(keras.callbacks.Callback):
    """A callback that records a layer's kernel, the step and the learning rate."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.kernels, self.steps, self.rates = [], [], []

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        self.kernels.append(np.copy(self.layer.get_weights()[0]))
        self.steps.append(int(optimizer.iterations))
        self.rates.append(float(optimizer.learning_rate))


def make_model(optimizer=None):
    keras.utils.set_random_seed(5)
    first = keras.layers.Dense(2, name="first")
    first.trainable = False
    model = keras.Sequential([keras.Input((3,)), first, keras.layers.Dense(1)])
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
    model.compile(
        optimizer or keras.optimizers.AdamW(schedule, weight_decay=0.1), "mse"
    )
    return model, first


def fit(model, callbacks, epochs=4, **options):
    model.fit(
        X, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=callbacks, **options
    )


def test_layer_trains_only_after_the_given_epoch():
    model, first = make_model()
    before, recorder = first.get_weights()[0], Recorder(first)
    fit(model, [Unfreeze(first, after=2), recorder])
    changed = [not np.array_equal(before, kernel) for kernel in recorder.kernels]
    assert changed == [False, False, True, True]
    assert recorder.steps == [3, 6, 9, 12]
    expected = [0.1 * (1 + np.cos(np.pi * step / 100)) / 2 for step in recorder.steps]
    np.testing.assert_allclose(recorder.rates, expected, rtol=1e-5)


def test_unfreezing_equals_compiling_again():
    model, first = make_model(keras.optimizers.SGD(0.1))
    fit(model, [Unfreeze(first, after=2)], shuffle=False)
    other, layer = make_model(keras.optimizers.SGD(0.1))
    fit(other, [], epochs=2, shuffle=False)
    layer.trainable = True
    other.compile(keras.optimizers.SGD(0.1), "mse")
    fit(other, [], epochs=2, shuffle=False)
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)


def test_training_resumed_after_that_epoch_unfreezes_at_once():
    model, first = make_model()
    before, recorder = first.get_weights()[0], Recorder(first)
    fit(model, [Unfreeze([first], after=2), recorder], initial_epoch=3)
    assert first.trainable and not np.array_equal(before, recorder.kernels[0])


def test_rejects_layers_that_are_not_frozen_and_invalid_arguments():
    model, first = make_model()
    first.trainable = True
    with pytest.raises(
        ValueError, match=r"frozen before.*\['first'\].*epoch 1, before epoch 2"
    ):
        fit(model, [Unfreeze(first, after=2)])
    with pytest.raises(ValueError, match="`after` must be a positive integer"):
        Unfreeze(first, after=0)
    with pytest.raises(ValueError, match="`layers` must be a layer"):
        Unfreeze("first", after=1)
