"""Search spaces: calls in which values are replaced by dimensions.

    space = Space(function, *args, **kwargs)      args may be dimensions and Spaces
    space.describe()  space.count()  space.defaults()  space.sample(seed)
    space.build(values or keras_tuner.HyperParameters) -> what the function returns
    space.fit(hp, model, *args, **kwargs)         Keras' fit, after two checks
    space.limited(max_parameters, max_memory)     the same space with a budget
    pickle.dumps(space)                           works if the functions have names

A `Space` is a `keras_tuner.HyperModel`, so every tuner accepts it.
"""

import collections.abc
import copy
import numbers
import random
from collections.abc import Callable, Mapping
from typing import Any, Self

import keras_tuner
from keras_tuner.engine.hyperparameters import deserialize

from kseq.tuning import conditions
from kseq.tuning.budget import Budget, WatchObjective
from kseq.tuning.call_tree import Builder, Call, lines
from kseq.tuning.conditions import Condition
from kseq.tuning.dimensions import Dimension
from kseq.tuning.naming import entries


class Space(Call, keras_tuner.HyperModel):
    """All calls of a function that its dimensions allow.

    Anything callable can be searched: a builder, a layer, an optimizer, a learning rate
    schedule, a search of `kseq.decoding`, a custom function. Spaces nest like calls,
    also in lists, tuples and dicts. The name of a dimension is its place, such as
    `encoder/RecurrentEncoder/units`: the names of the arguments and, under a `Choice`,
    the label of the option. It is used only if that option is chosen. The same object
    in several places is shared: a dimension has one value, under its shortest name; a
    Space is called once, so a layer is shared.

    Args:
        function: The function to call. To use the space in other processes, it must
            have a name in a module, like classes and functions at the top of a file.
        *args: Positional arguments: values, dimensions, Spaces.
        **kwargs: Keyword arguments: the same.

    Raises:
        ValueError: `function` cannot be called, or not with these arguments; one of
            them is a layer, optimizer or metric that exists already; two dimensions
            have the same name.

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

    def __init__(
        self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> None:
        Call.__init__(self, function, args, kwargs)
        keras_tuner.HyperModel.__init__(self)
        self.budget = Budget()

    def hyperparameters(self) -> dict[str, Dimension]:
        """Return all dimensions by name, each after those that it depends on."""
        return {name: dimension for name, dimension, _ in entries(self)}

    def count(self) -> float:
        """Count the different points; infinite if a `Float` has no step.

        Points that differ only in unused dimensions count once.
        """
        values = {
            dimension: (getattr(dimension, "labels", dimension.size), when)
            for _, dimension, when in entries(self)
        }
        return conditions.count_points(values)

    def defaults(self) -> dict[str, Any]:
        """Return the value of each dimension where none is given: a dict by name.

        The first trial of the grid, and that of `first=[{}]` of a search, has them.
        """
        return self._values(lambda dimension, _: dimension.default)

    def sample(self, seed: int) -> dict[str, Any]:
        """Sample values at random: a dict by name, without inactive ones.

        Args:
            seed: Integer that determines the sample.

        Raises:
            ValueError: `seed` is not an integer.
        """
        if not isinstance(seed, numbers.Integral):
            raise ValueError(f"`seed` must be an integer. Received: seed={seed!r}.")
        draw = random.Random(int(seed))

        def value(dimension, name):
            return _keras_tuner_form(name, dimension, {}).prob_to_value(draw.random())

        return self._values(value)

    def build(self, hp: Any) -> Any:
        """Call the function, after calling and choosing everything in its arguments.

        Args:
            hp: A dict of values by name, where missing values are defaults; or a
                `keras_tuner.HyperParameters`.

        Returns:
            What the function returns.

        Raises:
            ValueError: A value has no dimension, is invalid, or belongs to a dimension
                that is not used here.
        """
        if isinstance(hp, keras_tuner.HyperParameters):
            self.declare_hyperparameters(hp)
            values = hp.values
        else:
            values = self.checked_values(hp)
        return self.make(values)

    def make(self, values: dict[str, Any]) -> Any:
        """Build from a value for each dimension that is used."""
        return self.builder(values)(self)

    def builder(self, values: dict[str, Any]) -> Builder:
        """Return a function that builds nodes of this space, each object once."""
        return Builder(values, {d: name for name, d, _ in entries(self)})

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Add every dimension, with its conditions, before any model is built."""
        found = entries(self)
        if all(dimension.size == 1 for _, dimension, _ in found):
            fixed = ", ".join(name for name, _, _ in found)
            what = f"whose dimensions all have one value: {fixed}"
            raise ValueError(
                "A space to search must have a dimension with several values. "
                f"Received: {self.label}, {what if found else 'without dimensions'}. "
                "Add `Int`, `Float`, `Choice` or `Boolean`."
            )
        names = {dimension: name for name, dimension, _ in found}
        forms = []
        for name, dimension, alternatives in found:
            when = conditions.enclosing(alternatives)
            when = {names[choice]: labels for choice, labels in when.items()}
            forms.append(_keras_tuner_form(name, dimension, when))
        hp.merge(forms, overwrite=False)

    def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Run Keras' `fit`, unless the model exceeds the budget.

        Raises:
            keras_tuner.errors.FailedTrialError: The model exceeds the budget.
            keras_tuner.errors.FatalValueError: After the first epoch, `fit` has not
                reported the objective of the search.
        """
        self.budget.check(model)
        callbacks = list(kwargs.pop("callbacks", None) or [])
        validation_freq = kwargs.get("validation_freq", 1)
        callbacks.append(WatchObjective(callbacks, validation_freq))
        return model.fit(*args, callbacks=callbacks, **kwargs)

    def limited(
        self, max_parameters: float | None = None, max_memory: float | None = None
    ) -> Self:
        """Return the same space, in which larger models fail before training.

        Args:
            max_parameters: Maximum number of weights of a model, including those that
                are not trained.
            max_memory: Maximum number of bytes of the weights, their gradients and the
                optimizer's variables. Memory for a batch is not included.

        Raises:
            ValueError: A limit is not a positive number.
        """
        limited = copy.copy(self)
        limited.budget = Budget(max_parameters, max_memory)
        return limited

    def describe(self) -> None:
        """Print the tree of calls, values and dimensions."""
        print(self)

    def __str__(self) -> str:
        return "\n".join(lines(self.label, self, 0))

    def relevant(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a trial that are used.

        A tuner leaves out all others, except for a dimension under several choices:
        KerasTuner cannot express that one of them suffices, so it may give such a
        dimension a value that is not used.
        """
        complete = self._values(lambda dimension, name: values.get(name))
        return {name: value for name, value in values.items() if name in complete}

    def checked_values(self, values: Any) -> dict[str, Any]:
        """Return the values, completed with defaults, if all of them are used."""
        if not isinstance(values, collections.abc.Mapping):
            raise ValueError(
                "Values must be a dict by name, or a `keras_tuner.HyperParameters`. "
                f"Received: {values!r}."
            )
        values = {k: v for k, v in values.items() if not k.startswith("tuner/")}
        known = self.hyperparameters()
        if unknown := [name for name in values if name not in known]:
            raise ValueError(
                f"Values must belong to these dimensions: {list(known)}. Received: "
                f"{unknown}."
            )
        for name, value in values.items():
            known[name].check(name, value)
        complete = self._values(
            lambda dimension, name: values.get(name, dimension.default)
        )
        if inactive := [name for name in values if name not in complete]:
            raise ValueError(
                "Values must belong to dimensions that the chosen options use: "
                f"{list(complete)}. Received: {inactive}."
            )
        return complete

    def _values(self, value: Callable[[Dimension, str], Any]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        chosen: dict[Dimension, Any] = {}
        for name, dimension, when in entries(self):
            if conditions.is_active(when, chosen):
                values[name] = chosen[dimension] = value(dimension, name)
        return values

    def __getstate__(self) -> dict[str, Any]:
        # KerasTuner adds bound methods to every object.
        return {k: v for k, v in vars(self).items() if k not in ("build", "_build")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        keras_tuner.HyperModel.__init__(self)
        self.__dict__.update(state)


def _keras_tuner_form(name: str, dimension: Dimension, when: Condition) -> Any:
    parents = [
        {"class_name": "Parent", "config": {"name": choice, "values": sorted(labels)}}
        for choice, labels in when.items()
    ]
    kind = type(dimension).__name__
    config = {"name": name, **dimension.config, "conditions": parents}
    return deserialize({"class_name": kind, "config": config})
