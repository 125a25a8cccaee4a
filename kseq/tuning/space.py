"""A search space is a call in which values are replaced by dimensions.

    space = Space(function, *args, **kwargs)      args may hold dimensions and Spaces
    space.describe()  space.count()  space.defaults()  space.sample(seed)
    space.build(values or keras_tuner.HyperParameters) -> what the function returns
    space.fit(hp, model, *args, **kwargs)         Keras' fit, and two checks before
    space.limited(max_parameters, max_memory)     the same space with a budget
    pickle.dumps(space)                           works where the functions have names

A `Space` is a `keras_tuner.HyperModel`, so every tuner takes it as it is.
"""

import collections.abc
import copy
import numbers
import random

import keras_tuner
from keras_tuner.engine.hyperparameters import deserialize

from kseq.tuning import conditions
from kseq.tuning.budget import Budget, WatchObjective
from kseq.tuning.call_tree import Builder, Call, lines
from kseq.tuning.naming import entries


class Space(Call, keras_tuner.HyperModel):
    """All the calls of a function that its dimensions allow.

    Anything that can be called may be searched: a builder, a layer, an optimizer, a
    learning-rate schedule, a search of `kseq.decoding`, a function of your own.
    Spaces nest as the calls nest, and in lists, tuples and dicts. A dimension is
    called after its place, `encoder/RecurrentEncoder/units`: the names of the arguments
    and, under a `Choice`, the label of the option; it counts only where that option is
    chosen. One object in several places is one thing: a dimension has one value, under
    its shortest name; a Space is called once for all of them, so a layer is shared.

    Args:
        function: What to call. For use in other processes, one that has a name in a
            module, as classes and functions at the top of a file have.
        *args: What to call it with: values, dimensions, Spaces.
        **kwargs: The same by name.

    Raises:
        ValueError: `function` cannot be called, or not with these arguments; one is a
            layer, optimizer or metric that is made already; two dimensions have the
            same name.

    Example:

    >>> import kseq
    >>> from kseq.layers import RecurrentEncoder, TransformerEncoder
    >>> from kseq.tuning import Choice, Int, Space
    >>> space = Space(
    ...     kseq.many_to_one, 20, num_outputs=2, width=32,
    ...     encoder=Choice(
    ...         Space(RecurrentEncoder, Choice("lstm", "gru"), Int(8, 16, step=8)),
    ...         Space(TransformerEncoder, num_layers=Int(1, 3), num_heads=4)),
    ...     pooling=Choice("mean", "max"))
    >>> space.describe()
    many_to_one
      source = 20
      num_outputs = 2
      encoder: RecurrentEncoder, TransformerEncoder
        RecurrentEncoder
          cell: lstm, gru
          units: 8 to 16, step 8
        TransformerEncoder
          num_layers: 1 to 3
          num_heads = 4
      pooling: mean, max
      width = 32
    >>> space.count()  # (2 * 2 + 3) * 2
    14
    >>> space.sample(seed=3)
    {'encoder': 'RecurrentEncoder', 'encoder/RecurrentEncoder/cell': 'gru',
     'encoder/RecurrentEncoder/units': 8, 'pooling': 'max'}
    >>> space.build(space.defaults()).output_shape
    (None, 2)
    """

    def __init__(self, function, /, *args, **kwargs):
        Call.__init__(self, function, args, kwargs)
        keras_tuner.HyperModel.__init__(self)
        self.budget = Budget()

    def hyperparameters(self):
        """Every dimension by its name, those on which others depend before them."""
        return {name: dimension for name, dimension, _ in entries(self)}

    def count(self):
        """How many different points there are; infinite with a `Float` without step.

        Values of dimensions that do not count at a point make no further ones.
        """
        values = {
            dimension: (getattr(dimension, "labels", dimension.size), when)
            for _, dimension, when in entries(self)
        }
        return conditions.count_points(values)

    def defaults(self):
        """The values that are tried first: a dict by name, without inactive ones."""
        return self._values(lambda dimension, _: dimension.default)

    def sample(self, seed):
        """Values drawn at random: a dict by name, without inactive ones.

        Args:
            seed: Integer that decides the draw.

        Raises:
            ValueError: The seed is no integer.
        """
        if not isinstance(seed, numbers.Integral):
            raise ValueError(f"`seed` must be an integer. Received: seed={seed!r}.")
        draw = random.Random(int(seed))

        def value(dimension, name):
            return _keras_tuner_form(name, dimension, {}).prob_to_value(draw.random())

        return self._values(value)

    def build(self, hp):
        """Calls the function, with everything in it called and chosen.

        Args:
            hp: A dict of values by name, in which what is missing has its default; or
                a `keras_tuner.HyperParameters`.

        Returns:
            What the function returns.

        Raises:
            ValueError: A value has no dimension, is not one of its values, or is of a
                dimension that does not count here.
        """
        if isinstance(hp, keras_tuner.HyperParameters):
            self.declare_hyperparameters(hp)
            values = hp.values
        else:
            values = self.checked_values(hp)
        return self.make(values)

    def make(self, values):
        """As `build`, with a value for each dimension that counts."""
        return self.builder(values)(self)

    def builder(self, values):
        """A function that makes what stands in this space, each thing once."""
        return Builder(values, {d: name for name, d, _ in entries(self)})

    def declare_hyperparameters(self, hp):
        """Enters every dimension, with its conditions, before any model is built."""
        found = entries(self)
        if all(dimension.size == 1 for _, dimension, _ in found):
            raise ValueError(
                "A space to search must have a dimension with several values. "
                f"Received: {self.label} with {len(found)} dimensions. Put in "
                "`Int`, `Float`, `Choice` or `Boolean`."
            )
        names = {dimension: name for name, dimension, _ in found}
        forms = []
        for name, dimension, alternatives in found:
            when = conditions.enclosing(alternatives)
            when = {names[choice]: labels for choice, labels in when.items()}
            forms.append(_keras_tuner_form(name, dimension, when))
        hp.merge(forms, overwrite=False)

    def fit(self, hp, model, *args, **kwargs):
        """Keras' `fit`, unless the model is over the budget.

        Raises:
            keras_tuner.errors.FailedTrialError: The model is over the budget.
            keras_tuner.errors.FatalValueError: After the first epoch, the objective of
                the search is none of the values that `fit` reports.
        """
        self.budget.check(model)
        callbacks = list(kwargs.pop("callbacks", None) or [])
        validation_freq = kwargs.get("validation_freq", 1)
        callbacks.append(WatchObjective(callbacks, validation_freq))
        return model.fit(*args, callbacks=callbacks, **kwargs)

    def limited(self, max_parameters=None, max_memory=None):
        """The same space, in which larger models fail before they train.

        Args:
            max_parameters: Most weights of a model, those that do not train included.
            max_memory: Most bytes for the weights, their gradients and what the
                optimizer keeps. What a batch needs comes on top.

        Raises:
            ValueError: A limit is no positive number.
        """
        limited = copy.copy(self)
        limited.budget = Budget(max_parameters, max_memory)
        return limited

    def describe(self):
        """Prints the tree of calls, values and dimensions."""
        print(self)

    def __str__(self):
        return "\n".join(lines(self.label, self, 0))

    def relevant(self, values):
        """Of the values of a trial those that count.

        A tuner gives them all, but for a dimension that stands under several choices:
        KerasTuner cannot say that one of these is enough, so it then has a value that
        may not count.
        """
        complete = self._values(lambda dimension, name: values.get(name))
        return {name: value for name, value in values.items() if name in complete}

    def checked_values(self, values):
        """The values with defaults for what is missing, if all of them count."""
        if not isinstance(values, collections.abc.Mapping):
            raise ValueError(
                "Values must be a dict by name, or a `keras_tuner.HyperParameters`. "
                f"Received: {values!r}."
            )
        values = {k: v for k, v in values.items() if not k.startswith("tuner/")}
        known = self.hyperparameters()
        if unknown := [name for name in values if name not in known]:
            raise ValueError(
                f"Values must be of these dimensions: {list(known)}. Received: "
                f"{unknown}."
            )
        for name, value in values.items():
            known[name].check(name, value)
        complete = self._values(
            lambda dimension, name: values.get(name, dimension.default)
        )
        if inactive := [name for name in values if name not in complete]:
            raise ValueError(
                "Values must be of dimensions that count for the options chosen: "
                f"{list(complete)}. Received: {inactive}."
            )
        return complete

    def _values(self, value):
        values, chosen = {}, {}
        for name, dimension, when in entries(self):
            if conditions.is_active(when, chosen):
                values[name] = chosen[dimension] = value(dimension, name)
        return values

    def __getstate__(self):
        # KerasTuner puts bound methods into every object.
        return {k: v for k, v in vars(self).items() if k not in ("build", "_build")}

    def __setstate__(self, state):
        keras_tuner.HyperModel.__init__(self)
        vars(self).update(state)


def _keras_tuner_form(name, dimension, when):
    parents = [
        {"class_name": "Parent", "config": {"name": choice, "values": sorted(labels)}}
        for choice, labels in when.items()
    ]
    kind = type(dimension).__name__
    config = {"name": name, **dimension.config, "conditions": parents}
    return deserialize({"class_name": kind, "config": config})
