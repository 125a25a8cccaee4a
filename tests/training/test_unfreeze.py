"""Layers that learn from some epoch on."""

import keras
import numpy as np
import pytest

from kseq.training import Unfreeze
from tests.helpers import random_array

X, Y = random_array(12, 3), random_array(12, 1, seed=1)


class Watch(keras.callbacks.Callback):
    """Keeps the weights of a layer after each epoch."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.kernels, self.steps, self.rates = [], [], []

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        self.kernels.append(np.copy(self.layer.get_weights()[0]))
        self.steps.append(int(optimizer.iterations))
        self.rates.append(float(optimizer.learning_rate))


def make(optimizer=None):
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


def test_a_layer_keeps_its_weights_until_then_and_learns_after():
    model, first = make()
    before, watch = first.get_weights()[0], Watch(first)
    fit(model, [Unfreeze(first, after=2), watch])
    changed = [not np.array_equal(before, kernel) for kernel in watch.kernels]
    assert changed == [False, False, True, True]
    assert watch.steps == [3, 6, 9, 12]
    expected = [0.1 * (1 + np.cos(np.pi * step / 100)) / 2 for step in watch.steps]
    np.testing.assert_allclose(watch.rates, expected, rtol=1e-5)


def test_what_follows_is_as_if_it_was_compiled_anew():
    model, first = make(keras.optimizers.SGD(0.1))
    fit(model, [Unfreeze(first, after=2)], shuffle=False)
    other, layer = make(keras.optimizers.SGD(0.1))
    fit(other, [], epochs=2, shuffle=False)
    layer.trainable = True
    other.compile(keras.optimizers.SGD(0.1), "mse")
    fit(other, [], epochs=2, shuffle=False)
    for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)


def test_a_training_that_goes_on_behind_that_epoch_has_it_trainable_at_once():
    model, first = make()
    before, watch = first.get_weights()[0], Watch(first)
    fit(model, [Unfreeze([first], after=2), watch], initial_epoch=3)
    assert first.trainable and not np.array_equal(before, watch.kernels[0])


def test_layers_that_are_not_frozen_or_no_layers_are_refused():
    model, first = make()
    first.trainable = True
    with pytest.raises(
        ValueError, match=r"frozen before.*\['first'\].*epoch 1, before epoch 2"
    ):
        fit(model, [Unfreeze(first, after=2)])
    with pytest.raises(ValueError, match="`after` must be a positive integer"):
        Unfreeze(first, after=0)
    with pytest.raises(ValueError, match="`layers` must be a layer"):
        Unfreeze("first", after=1)
