"""How to train, as a part of the search space."""

import inspect
import math

import keras
import keras_tuner

from kseq.layers.validation import number, positive_integer
from kseq.tuning.dimensions import Dimension
from kseq.tuning.space import Space


def _options(method, without):
    names = list(inspect.signature(method).parameters)[1:]
    return [name for name in names if name not in without]


FOR_COMPILE = _options(keras.Model.compile, ())
FOR_FIT = _options(keras.Model.fit, ("x", "y", "validation_data", "kwargs"))


class Training(Space):
    """A model and its training, searched together.

    `build` compiles the model, and `fit` is Keras' own, with batches that are made for
    each trial. Give it to a tuner and the data to `search`:

        tuner = keras_tuner.RandomSearch(training, "val_accuracy", max_trials=20)
        tuner.search(inputs, labels, validation_data=(inputs, labels))

    Each argument may be a dimension or a Space; see `Space` for their names, which
    begin with that of the argument: `model/encoder`, `optimizer/learning_rate`.

    A tuner that decides on the epochs itself, as `Hyperband` does, and `epochs` given
    to `search`, count more than a number here, and are an error beside a dimension.

    Args:
        model: A Space, or a Choice of Spaces, that make an uncompiled `keras.Model`.
        batches: A Space of a function that makes a data set of what `search` is given,
            such as `Space(kseq.training.batches, batch_size=Choice(16, 32))` or one of
            `kseq.training.teacher_forcing`. It makes the validation data too, with
            `shuffle=False` if it takes that. None: what `search` is given goes to
            `fit` as it is.
        **options: What Keras' `compile` and `fit` take: `optimizer`, `loss`, `metrics`,
            `epochs`, `callbacks`, ... A layer, optimizer, metric or callback is a
            Space, for it is made anew for each trial. A model that ends with a CRF or
            a CTC, which is its own loss, is compiled without the `loss`.

    Raises:
        ValueError: An option is one of neither `compile` nor `fit`.

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

    def __init__(self, model, batches=None, **options):
        if unknown := [x for x in options if x not in (*FOR_COMPILE, *FOR_FIT)]:
            raise ValueError(
                "Options of a `Training` must be those of Keras' `compile`, "
                f"{FOR_COMPILE}, or `fit`, {FOR_FIT}. Received: {unknown}."
            )
        if batches is not None and not isinstance(batches, Space):
            raise ValueError(
                "`batches` must be a Space of a function that makes a data set. "
                f"Received: batches={batches!r}. Write Space(kseq.training.batches, "
                "...); a data set that is made already goes to `search`."
            )
        if not isinstance(model, Space | Dimension):
            raise ValueError(
                "`model` must be a Space or a Choice of Spaces: each trial trains a "
                f"new one. Received: model={model!r}."
            )
        super().__init__(Training, model, batches, **options)
        self.model, self.batches = model, batches
        self.compile_options = {k: v for k, v in options.items() if k in FOR_COMPILE}
        self.fit_options = {k: v for k, v in options.items() if k in FOR_FIT}
        self.budget = getattr(model, "budget", self.budget)

    def make(self, values):
        """The compiled model."""
        build = self.builder(values)
        model = build(self.model)
        options = build(self.compile_options)
        if getattr(model, "loss_head", None) is not None:
            options.pop("loss", None)  # that of the other heads
        model.compile(**options)
        if model.built:  # else weights that are loaded leave the optimizer's behind
            model.optimizer.build(model.trainable_variables)
        return model

    def fit(self, hp, model, *data, validation_data=None, **kwargs):
        """Keras' `fit`, with batches, epochs and whatever else is searched.

        Args:
            hp: As for `build`.
            model: What `build` made.
            *data: The data: what `batches` makes a data set of.
            validation_data: The same for validation, as a tuple, or a data set.
            **kwargs: Further arguments of Keras' `fit`.

        Returns:
            Keras' `History`.

        Raises:
            keras_tuner.errors.FatalValueError: An option that is searched is given once
                more; or as for `Space.fit`.
        """
        searched = isinstance(hp, keras_tuner.HyperParameters)
        build = self.builder(hp.values if searched else self.checked_values(hp))
        options = dict(self.fit_options)
        for name in kwargs.keys() & options.keys() - {"callbacks"}:
            if isinstance(options[name], Dimension):
                raise keras_tuner.errors.FatalValueError(
                    f"`{name}` must not be given to `search` where it is searched. "
                    f"Received: {name}={kwargs[name]!r}. Give the space a number; "
                    "`Hyperband` chooses the epochs itself."
                )
            del options[name]
        options = build(options)
        callbacks = [*(options.pop("callbacks", None) or ())]
        callbacks += kwargs.pop("callbacks", None) or ()
        if self.batches is not None:
            function = self.batches.function
            unshuffled = {"shuffle": False} if _takes(function, "shuffle") else {}
            data = [build.call(self.batches, *data)]
            if isinstance(validation_data, tuple | list):
                validation_data = build.call(
                    self.batches, *validation_data, **unshuffled
                )
        options |= {"validation_data": validation_data, "callbacks": callbacks}
        return super().fit(hp, model, *data, **{**options, **kwargs})


def training_steps(num_rows, batch_size, epochs, share=1.0):
    """How many batches a training sees, for a schedule of the learning rate.

    As a Space it follows dimensions that stand elsewhere too:
    `Space(training_steps, 5000, batch_size, epochs)`.

    Args:
        num_rows: Number of rows to train on.
        batch_size: Rows in a batch. The batch of those left over counts.
        epochs: How often each row is seen.
        share: The part of them that is meant, such as .1 for warming up.

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


def _takes(function, name):
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
