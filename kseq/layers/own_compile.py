"""Compilation of loaded models: by their own `compile`, and for this backend."""

from typing import TYPE_CHECKING

import keras

from kseq.layers import backends
from kseq.typing import Config

if TYPE_CHECKING:  # a mixin of models
    from keras import Model
else:
    Model = object


class OwnCompile(Model):
    """Mixin for models with their own `compile`, which is called when one is loaded."""

    def compile_from_config(self, config: Config) -> None:
        # Keras requires this of a class with its own `compile`.
        config = for_this_backend(config)
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)


def for_this_backend(config: Config) -> Config:
    """Return the config of `compile` from a file, which may be of another backend.

    Keras stores `jit_compile` as the backend resolved it. JAX compiles every model;
    PyTorch, which runs loops in Python, fails to compile those of kseq.
    """
    if config.get("jit_compile") and not backends.has_loops():
        return {**config, "jit_compile": "auto"}
    return config
