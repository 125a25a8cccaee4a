"""Models whose training step TensorFlow traces once."""

from collections.abc import Callable
from typing import Any

import keras


class TracedOnce:
    """Mixin for models that builds the optimizer before the first training step.

    TensorFlow traces a function a second time if it has created variables, such as the
    moments of Adam, which doubles the time of the first step. JAX builds the optimizer
    beforehand anyway, and PyTorch traces nothing.
    """

    built: bool
    optimizer: Any
    trainable_variables: list[keras.Variable]

    def make_train_function(self, force: bool = False) -> Callable[..., Any]:
        if self.built and self.optimizer and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)  # type: ignore[misc]
