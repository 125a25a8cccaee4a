"""Training as a part of a search space."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import keras_tuner

from kseq.layers.validation import number, positive_integer
from kseq.tuning.dimensions import Dimension
from kseq.tuning.space import Space


def _options(method: Callable[..., Any], without: Sequence[str]) -> list[str]:
    names = list(inspect.signature(method).parameters)[1:]
    return [name for name in names if name not in without]


FOR_COMPILE = _options(keras.Model.compile, ())
FOR_FIT = _options(keras.Model.fit, ("x", "y", "validation_data", "kwargs"))


class Training(Space):
    """A space of models and their trainings, searched together.

    `build` compiles the model. `fit` is Keras' own, with batches made for each trial.
    Pass this to a tuner, and the data to `search`:

        tuner = keras_tuner.RandomSearch(training, "val_accuracy", max_trials=20)
        tuner.search(inputs, labels, validation_data=(inputs, labels))

    Each argument may be a dimension or a Space. Names begin with the argument, as in
    `Space`: `model/encoder`, `optimizer/learning_rate`.

    A tuner that chooses the epochs itself, such as `Hyperband`, and `epochs` passed to
    `search` override a number here, and are an error together with a dimension.

    Args:
        model: A Space, or a Choice of Spaces, of an uncompiled `keras.Model`.
        batches: A Space of a function that makes a data set from the data passed to
            `search`, such as `Space(kseq.training.batches, batch_size=Choice(16, 32))`
            or one of `kseq.training.teacher_forcing`. It also makes the validation
            data, with `shuffle=False` if the function accepts it. None to pass the data
            to `fit` unchanged.
        **options: Arguments of Keras' `compile` and `fit`: `optimizer`, `loss`,
            `metrics`, `epochs`, `callbacks`, ... A layer, optimizer, metric or callback
            must be a Space, because each trial needs a new one. A model that ends with
            a CRF or CTC, which has its own loss, is compiled without `loss`.

    Raises:
        ValueError: An option is an argument of neither `compile` nor `fit`.

    Example:

    >>> import keras, kseq
    >>> from kseq.tuning import Choice, Float, Int, Space, Training, training_steps
    >>> batch_size, epochs = Choice(16, 32, name="batch_size"), Int(2, 4)
    >>> training = Training(
    ...     Space(kseq.many_to_one, 20, num_outputs=2, width=Choice(8, 16)),
    ...     optimizer=Space(
    ...         keras.optimizers.Adam,
    ...         learning_rate=Space(
    ...             keras.optimizers.schedules.CosineDecay,
    ...             Float(1e-3, 1e-2, scale="log"),
    ...             Space(training_steps, 5000, batch_size, epochs))),
    ...     loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    ...     batches=Space(kseq.training.batches, batch_size=batch_size),
    ...     epochs=epochs)
    >>> training.defaults()
    {'model/width': 8, 'batch_size': 16,
     'optimizer/learning_rate/initial_learning_rate': 0.001, 'epochs': 2}
    >>> model = training.build({"optimizer/learning_rate/initial_learning_rate": 0.002})
    >>> round(float(model.optimizer.learning_rate), 4)
    0.002
    """

    def __init__(
        self, model: Space | Dimension, batches: Space | None = None, **options: Any
    ) -> None:
        if unknown := [x for x in options if x not in (*FOR_COMPILE, *FOR_FIT)]:
            raise ValueError(
                "Options of a `Training` must be arguments of Keras' `compile`, "
                f"{FOR_COMPILE}, or `fit`, {FOR_FIT}. Received: {unknown}."
            )
        if batches is not None and not isinstance(batches, Space):
            raise ValueError(
                "`batches` must be a Space of a function that makes a data set. "
                f"Received: batches={batches!r}. Use Space(kseq.training.batches, "
                "...); pass an existing data set to `search`."
            )
        if not isinstance(model, Space | Dimension):
            raise ValueError(
                "`model` must be a Space or a Choice of Spaces, because each trial "
                f"trains a new model. Received: model={model!r}."
            )
        super().__init__(Training, model, batches, **options)
        self.model, self.batches = model, batches
        self.compile_options = {k: v for k, v in options.items() if k in FOR_COMPILE}
        self.fit_options = {k: v for k, v in options.items() if k in FOR_FIT}
        self.budget = getattr(model, "budget", self.budget)

    def make(self, values: dict[str, Any]) -> keras.Model:
        """Return the compiled model."""
        build = self.builder(values)
        model = build(self.model)
        options = build(self.compile_options)
        if getattr(model, "loss_head", None) is not None:
            options.pop("loss", None)  # the loss for other heads
        model.compile(**options)
        if model.built:  # lets `load_weights` restore the optimizer too
            model.optimizer.build(model.trainable_variables)
        return model

    def fit(
        self,
        hp: Any,
        model: Any,
        *data: Any,
        validation_data: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Run Keras' `fit` with batches, epochs and other searched options.

        Args:
            hp: As for `build`.
            model: The model from `build`.
            *data: The data, as `batches` takes it.
            validation_data: The validation data, as a tuple, or a data set.
            **kwargs: Further arguments of Keras' `fit`.

        Returns:
            Keras' `History`.

        Raises:
            keras_tuner.errors.FatalValueError: A searched option is also passed; or as
                for `Space.fit`.
        """
        searched = isinstance(hp, keras_tuner.HyperParameters)
        build = self.builder(hp.values if searched else self.checked_values(hp))
        options = dict(self.fit_options)
        for name in kwargs.keys() & options.keys() - {"callbacks"}:
            if isinstance(options[name], Dimension):
                raise keras_tuner.errors.FatalValueError(
                    f"`{name}` must not be passed to `search` if it is searched. "
                    f"Received: {name}={kwargs[name]!r}. Use a number in the space; "
                    "`Hyperband` chooses the epochs itself."
                )
            del options[name]
        options = build(options)
        callbacks = [*(options.pop("callbacks", None) or ())]
        callbacks += kwargs.pop("callbacks", None) or ()
        if self.batches is not None:
            function = self.batches.function
            unshuffled = {"shuffle": False} if _takes(function, "shuffle") else {}
            data = (build.call(self.batches, *data),)
            if isinstance(validation_data, tuple | list):
                validation_data = build.call(
                    self.batches, *validation_data, **unshuffled
                )
        options |= {"validation_data": validation_data, "callbacks": callbacks}
        return super().fit(hp, model, *data, **{**options, **kwargs})


def training_steps(
    num_rows: int, batch_size: int, epochs: int, share: float = 1.0
) -> int:
    """Compute the number of batches of a training, for a learning rate schedule.

    As a Space, it follows dimensions that are also used elsewhere:
    `Space(training_steps, 5000, batch_size, epochs)`.

    Args:
        num_rows: Number of training rows.
        batch_size: Rows in a batch. A smaller last batch counts.
        epochs: Number of epochs.
        share: Fraction of the steps to return, such as .1 for a warm-up.

    Returns:
        A positive integer.

    Raises:
        ValueError: A number is not a positive integer, or `share` is not a number.

    Example:

    >>> from kseq.tuning import training_steps
    >>> training_steps(100, 32, epochs=5), training_steps(100, 32, 5, share=0.1)
    (20, 2)
    """
    batches = math.ceil(
        positive_integer("num_rows", num_rows)
        / positive_integer("batch_size", batch_size)
    )
    steps = batches * positive_integer("epochs", epochs)
    return max(round(steps * number("share", share)), 1)


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
