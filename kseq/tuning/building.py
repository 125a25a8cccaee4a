"""What builds the models of a search, as a `HyperModel`."""

import keras
import keras_tuner


class BuildingFunction(keras_tuner.HyperModel):
    """A function that builds, as a `HyperModel`."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def build(self, hp):
        return self.function(hp)


def as_hypermodel(space):
    """Return what was given as a `HyperModel`, or raise a `ValueError`."""
    if isinstance(space, keras_tuner.HyperModel):
        return space
    if callable(space) and not isinstance(space, keras.layers.Layer):
        return BuildingFunction(space)
    raise ValueError(
        "`space` must be a `keras_tuner.HyperModel`, such as a `kseq.tuning.Space`, or "
        f"a function that builds a model. Received: space={space!r}."
    )
