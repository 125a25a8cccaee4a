"""Training of the models that the builders return, with the methods of Keras."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras


class TrainableModel:
    """Mixin for models that builds the optimizer before the first training step.

    TensorFlow traces a function a second time if it has created variables, such as the
    moments of Adam, which doubles the time of the first step. JAX builds the optimizer
    beforehand anyway, and PyTorch traces nothing.
    """

    built: bool
    optimizer: Any
    trainable_variables: list[keras.Variable]

    if (
        TYPE_CHECKING
    ):  # of Keras' own methods, checkers infer that `verbose` is a string

        def fit(self, *args: Any, **kwargs: Any) -> Any: ...

        def evaluate(self, *args: Any, **kwargs: Any) -> Any: ...

        def predict(self, *args: Any, **kwargs: Any) -> Any: ...

    def make_train_function(self, force: bool = False) -> Callable[..., Any]:
        if self.built and self.optimizer and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)  # type: ignore[misc]
