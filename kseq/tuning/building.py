"""Conversion of spaces and building functions to KerasTuner's `HyperModel`."""

from collections.abc import Callable
from typing import Any

import keras
import keras_tuner


class BuildingFunction(keras_tuner.HyperModel):
    """A `HyperModel` made from a function that builds a model."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))

    def build(self, hp: Any) -> Any:
        return self.function(hp)


def as_hypermodel(space: Any) -> Any:
    """Return a space or function as a `HyperModel`, or raise a `ValueError`."""
    if isinstance(space, keras_tuner.HyperModel):
        return space
    if callable(space) and not isinstance(space, keras.layers.Layer):
        return BuildingFunction(space)
    raise ValueError(
        "`space` must be a `keras_tuner.HyperModel`, such as a `kseq.tuning.Space`, or "
        f"a function that builds a model. Received: space={space!r}."
    )
