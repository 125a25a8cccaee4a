"""Training of the models that the builders return, with the methods of Keras."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from kseq.layers.own_compile import for_this_backend
from kseq.typing import Config


class TrainableModel:
    """Mixin for models that builds the optimizer before the first training step.

    TensorFlow traces a function a second time if it has created variables, such as the
    moments of Adam, which doubles the time of the first step. JAX builds the optimizer
    beforehand anyway, and PyTorch traces nothing.

    A model that was compiled and saved on JAX can be loaded and trained on PyTorch.
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

    def compile_from_config(self, config: Config) -> None:
        super().compile_from_config(for_this_backend(config))  # type: ignore[misc]

    def make_train_function(self, force: bool = False) -> Callable[..., Any]:
        if self.built and self.optimizer and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)  # type: ignore[misc]
