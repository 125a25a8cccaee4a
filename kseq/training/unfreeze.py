"""A callback for Keras' `fit` that unfreezes layers after some epochs."""

from collections.abc import Sequence
from typing import Any

import keras

from kseq.layers.validation import positive_integer


class Unfreeze(keras.callbacks.Callback):
    """A callback that unfreezes layers after some epochs.

    Pretrained weights, such as word vectors, are thus protected from the first steps of
    an untrained model. Freeze the layers before `compile`. After the given epochs, the
    layers become trainable, and the optimizer restarts with all weights. It keeps its
    step number, so a learning rate schedule continues; its moments and averages of
    weights start over.

    Args:
        layers: A layer, or a list of layers, with `trainable = False`.
        after: Number of epochs after which they become trainable. Epochs count from the
            first one of the training, also if it continues with an `initial_epoch`.

    Raises:
        ValueError: `after` is not a positive integer; `layers` are not layers; a layer
            was trainable when `fit` began.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.training import Unfreeze
    >>> first = keras.layers.Dense(2)
    >>> model = keras.Sequential([keras.Input((2,)), first, keras.layers.Dense(1)])
    >>> first.trainable = False
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.ones((3, 2)), np.ones((3, 1)), epochs=2, verbose=0,
    ...                     callbacks=[Unfreeze(first, after=1)])
    >>> first.trainable
    True
    """

    def __init__(
        self, layers: keras.layers.Layer | Sequence[keras.layers.Layer], after: int
    ) -> None:
        super().__init__()
        self.layers: Sequence[Any] = (
            layers if isinstance(layers, list | tuple) else [layers]
        )
        self.after = positive_integer("after", after)
        for layer in self.layers:
            if not isinstance(layer, keras.layers.Layer):
                raise ValueError(
                    "`layers` must be a layer or a list of layers. Received: "
                    f"layers={layers!r}."
                )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        frozen = [layer for layer in self.layers if not layer.trainable]
        if epoch < self.after and len(frozen) < len(self.layers):
            raise ValueError(
                "Layers must be frozen before `compile`. Received: "
                f"{[x.name for x in self.layers if x.trainable]}, which are trainable "
                f"in epoch {epoch + 1}, before epoch {self.after} is over. Set "
                "`layer.trainable = False`, and compile again."
            )
        if epoch >= self.after and frozen:
            for layer in frozen:
                layer.trainable = True
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Give the model a new optimizer and train step for all of its weights."""
        old = self.model.optimizer
        optimizer = type(old).from_config(old.get_config())
        optimizer.build(self.model.trainable_variables)
        optimizer.iterations.assign(old.iterations)
        self.model.optimizer = optimizer
        self.model.make_train_function(force=True)
