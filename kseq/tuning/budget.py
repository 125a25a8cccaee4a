"""Checks of a training trial: the size of its model, and that its objective exists."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import keras
import keras_tuner

from kseq.layers.validation import positive_number


class Budget:
    """Limits on the size of a model.

    Args:
        max_parameters: Maximum number of weights, or None.
        max_memory: Maximum number of bytes of weights, gradients and the optimizer's
            variables, or None.
    """

    def __init__(
        self, max_parameters: float | None = None, max_memory: float | None = None
    ) -> None:
        limits = {"max_parameters": max_parameters, "max_memory": max_memory}
        for name, limit in limits.items():
            if limit is not None:
                positive_number(name, limit)
        self.max_parameters, self.max_memory = max_parameters, max_memory

    def check(self, model: Any) -> None:
        """Fail the trial with KerasTuner's error if the model exceeds a limit."""
        self._check("max_parameters", model.count_params, "weights")
        self._check("max_memory", lambda: training_memory(model), "bytes")

    def _check(self, name: str, measure: Callable[[], int], unit: str) -> None:
        limit = getattr(self, name)
        if limit is None:
            return
        size = measure()
        if size > limit:
            raise keras_tuner.errors.FailedTrialError(
                f"A model must have at most {name}={limit:,} {unit}. "
                f"Received: {size:,}."
            )


def training_memory(model: Any) -> int:
    """Compute the bytes of weights, gradients and the optimizer's variables."""
    weights = sum(map(_bytes, model.weights))
    gradients = sum(map(_bytes, model.trainable_weights))
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return weights
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    return weights + gradients + sum(map(_bytes, optimizer.variables))


def _bytes(variable: Any) -> int:
    bits = re.search(r"\d+", variable.dtype)  # "bool", without a number, is one byte
    return math.prod(variable.shape) * (int(bits[0]) // 8 if bits else 1)


class WatchObjective(keras.callbacks.Callback):
    """A callback that ends a search whose objective `fit` does not report.

    It does so after one validated epoch. KerasTuner would train every trial to its end
    before failing.
    """

    def __init__(
        self, callbacks: Iterable[Any], validation_freq: int | Iterable[int] = 1
    ) -> None:
        super().__init__()
        self.validation_freq = validation_freq
        found = [getattr(callback, "objective", None) for callback in callbacks]
        self.objectives = [
            objective
            for objective in found
            if isinstance(objective, keras_tuner.Objective)
            and objective.name != "default_objective"
        ]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        is_validated = validates(epoch, self.validation_freq)
        for objective in self.objectives if is_validated else ():
            if not objective.has_value(logs or {}):
                raise keras_tuner.errors.FatalValueError(
                    "The objective of a search must be a value that `fit` reports: "
                    f"{sorted(logs or {})}. Received: {objective}. Names that begin "
                    "with val_ need `validation_data`; scores of generated sequences "
                    "need `kseq.training.GenerationScores` among the callbacks."
                )


def validates(epoch: int, validation_freq: Any) -> bool:
    """Return whether Keras' `fit` validates after an epoch, counted from 0."""
    if isinstance(validation_freq, int):
        return (epoch + 1) % validation_freq == 0
    return epoch + 1 in validation_freq
