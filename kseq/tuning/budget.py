"""What is checked when a trial trains: its size, and that its objective exists."""

import math
import re

import keras
import keras_tuner

from kseq.layers.validation import positive_number


class Budget:
    """How large a model may be.

    Args:
        max_parameters: Most weights, or None.
        max_memory: Most bytes of weights, gradients and the optimizer's variables, or
            None.
    """

    def __init__(self, max_parameters=None, max_memory=None):
        limits = {"max_parameters": max_parameters, "max_memory": max_memory}
        for name, limit in limits.items():
            if limit is not None:
                positive_number(name, limit)
        self.max_parameters, self.max_memory = max_parameters, max_memory

    def check(self, model):
        """Fails the trial, KerasTuner's way, if the model is over a limit."""
        self._check("max_parameters", model.count_params, "weights")
        self._check("max_memory", lambda: training_memory(model), "bytes")

    def _check(self, name, measure, unit):
        limit = getattr(self, name)
        if limit is None:
            return
        size = measure()
        if size > limit:
            raise keras_tuner.errors.FailedTrialError(
                f"A model must have at most {name}={limit:,} {unit}. "
                f"Received: {size:,}."
            )


def training_memory(model):
    """Bytes of a model in training: weights, gradients, variables of the optimizer."""
    weights = sum(map(_bytes, model.weights))
    gradients = sum(map(_bytes, model.trainable_weights))
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return weights
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    return weights + gradients + sum(map(_bytes, optimizer.variables))


def _bytes(variable):
    bits = re.search(r"\d+", variable.dtype)  # a boolean has a byte, and no number
    return math.prod(variable.shape) * (int(bits[0]) // 8 if bits else 1)


class WatchObjective(keras.callbacks.Callback):
    """Ends the search after one validated epoch if `fit` lacks its objective.

    KerasTuner would train every trial to its end before it failed.
    """

    def __init__(self, callbacks, validation_freq=1):
        super().__init__()
        self.validation_freq = validation_freq
        found = [getattr(callback, "objective", None) for callback in callbacks]
        self.objectives = [
            objective
            for objective in found
            if isinstance(objective, keras_tuner.Objective)
            and objective.name != "default_objective"
        ]

    def on_epoch_end(self, epoch, logs=None):
        is_validated = validates(epoch, self.validation_freq)
        for objective in self.objectives if is_validated else ():
            if not objective.has_value(logs or {}):
                raise keras_tuner.errors.FatalValueError(
                    "The objective of a search must be a value that `fit` reports: "
                    f"{sorted(logs or {})}. Received: {objective}. A value that begins "
                    "with val_ needs `validation_data`; one of decoding needs "
                    "`kseq.training.GenerationScores` among the callbacks."
                )


def validates(epoch, validation_freq):
    """Tell whether Keras' `fit` validates after an epoch, counted from 0."""
    if isinstance(validation_freq, int):
        return (epoch + 1) % validation_freq == 0
    return epoch + 1 in validation_freq
