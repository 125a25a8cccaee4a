"""Mixin of models that define `compile`, so that loading one compiles it too."""

from typing import TYPE_CHECKING

import keras

from kseq.typing import Config

if TYPE_CHECKING:  # a mixin of models
    from keras import Model
else:
    Model = object


class OwnCompile(Model):
    """Mixin for models with their own `compile`, which is called when one is loaded."""

    def compile_from_config(self, config: Config) -> None:
        # Keras requires this of a class with its own `compile`.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)
