"""A callback for Keras' `fit`: a part of a model learns only from some epoch on."""

import keras

from kseq.layers.validation import positive_integer


class Unfreeze(keras.callbacks.Callback):
    """Lets frozen layers learn after some epochs.

    What was learned elsewhere, as word vectors are, is not spoiled by the first steps
    of a model that knows nothing yet. Freeze the layers before `compile`; when the
    epochs are over, they become trainable, and the optimizer begins anew with all
    weights, at the step where it was, so a learning rate schedule goes on. What it had
    gathered of gradients, and averages of weights, begins anew too.

    Args:
        layers: A layer, or a list of them, with `trainable = False`.
        after: After how many epochs they become trainable, counted from the first of
            the training, also of one that goes on with an `initial_epoch`.

    Raises:
        ValueError: `after` is not a positive integer, a layer is none, or one was
            trainable when `fit` began.

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

    def __init__(self, layers, after):
        super().__init__()
        self.layers = layers if isinstance(layers, list | tuple) else [layers]
        self.after = positive_integer("after", after)
        for layer in self.layers:
            if not isinstance(layer, keras.layers.Layer):
                raise ValueError(
                    "`layers` must be a layer or a list of them. Received: "
                    f"layers={layers!r}."
                )

    def on_epoch_begin(self, epoch, logs=None):
        frozen = [layer for layer in self.layers if not layer.trainable]
        if epoch < self.after and len(frozen) < len(self.layers):
            raise ValueError(
                "Layers must be frozen before `compile`. Received: "
                f"{[x.name for x in self.layers if x.trainable]}, which are trainable "
                f"in epoch {epoch + 1} of {self.after} without them. Set "
                "`layer.trainable = False`, and compile again."
            )
        if epoch >= self.after and frozen:
            for layer in frozen:
                layer.trainable = True
            self._begin_anew()

    def _begin_anew(self):
        """Gives the model an optimizer for all of its weights, and a step with it."""
        old = self.model.optimizer
        optimizer = type(old).from_config(old.get_config())
        optimizer.build(self.model.trainable_variables)
        optimizer.iterations.assign(old.iterations)
        self.model.optimizer = optimizer
        self.model.make_train_function(force=True)
