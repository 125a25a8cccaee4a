"""Trees of calls that are not made yet, which are search spaces.

The nodes of a tree are calls, dimensions, and lists, tuples and dicts that contain
them. Anything else is a value.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from kseq.tuning.choice import Choice
from kseq.tuning.dimensions import Dimension

MADE_ALREADY = (keras.layers.Layer, keras.optimizers.Optimizer, keras.metrics.Metric)


class Call:
    """A function and its arguments, the base class of `Space`.

    Attributes:
        arguments: All arguments by name, in the order of the function.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if not callable(function):
            raise ValueError(
                "A `Space` must begin with something callable, such as "
                f"`kseq.many_to_one`. Received: {function!r}."
            )
        self.function, self.args, self.kwargs = function, args, kwargs
        self.arguments = _named_arguments(function, args, kwargs)
        for name, value in self.arguments.items():
            _check_not_made(self.label, name, value)

    @property
    def label(self) -> str:
        """The label as an option of a `Choice`: the name of the function."""
        function = getattr(self.function, "func", self.function)  # of a partial
        return getattr(function, "__name__", type(function).__name__)

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"{kind}({'' if kind == self.label else f'{self.label}, '}...)"


class Builder:
    """A builder of the nodes of a tree from values, which makes each object once."""

    def __init__(
        self, values: Mapping[str, Any], names: Mapping[Dimension, str]
    ) -> None:
        self.values, self.names = values, names
        self.made: dict[int, Any] = {}

    def __call__(self, node: Any) -> Any:
        if isinstance(node, Choice):
            return self(node.option(self.values[self.names[node]]))
        if isinstance(node, Dimension):
            return self.values[self.names[node]]
        if isinstance(node, Call):
            if id(node) not in self.made:
                self.made[id(node)] = self.call(node)
            return self.made[id(node)]
        if type(node) in (list, tuple):
            return type(node)(self(item) for item in node)
        if type(node) is dict:
            return {key: self(value) for key, value in node.items()}
        return node

    def call(self, space: Call, *first: Any, **options: Any) -> Any:
        """Make the call of a Space, with further arguments in front."""
        args = [self(value) for value in space.args]
        kwargs = {name: self(value) for name, value in space.kwargs.items()}
        try:
            return space.function(*first, *args, **{**kwargs, **options})
        except Exception as error:
            if not getattr(error, "__notes__", None):
                error.add_note(
                    f"Raised by {space.label} with the values {self.values}."
                )
            raise


def children(node: Any) -> list[tuple[str, Any]]:
    """List `(key, child)` for everything in a node that may contain dimensions."""
    if isinstance(node, Call):
        return list(node.arguments.items())
    if isinstance(node, Choice):
        return [(str(x), y) for x, y in zip(node.labels, node.options, strict=True)]
    if type(node) is dict:
        return [(str(key), value) for key, value in node.items()]
    if type(node) in (list, tuple):
        return [(str(index), value) for index, value in enumerate(node)]
    return []


def _named_arguments(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Return all arguments by name.

    Those of a variadic parameter are a tuple, or go by their keys.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    try:
        named = signature.bind_partial(*args, **kwargs).arguments
    except TypeError as error:
        name = getattr(function, "__name__", function)
        raise ValueError(
            f"The arguments of a `Space` must fit its function: {name}"
            f"{signature}. Received: {error}."
        ) from None
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD and name in named:
            named.update(named.pop(name))
    return dict(named)


def _check_not_made(label: str, name: str, value: Any) -> None:
    if isinstance(value, MADE_ALREADY):
        kind = type(value).__name__
        raise ValueError(
            f"Arguments of a `Space` must not be layers, optimizers or metrics that "
            f"exist already, because all trials would share them. Received: {label} "
            f"with {name}={value!r}. Use Space({kind}, ...)."
        )
    for key, child in [] if isinstance(value, Call) else children(value):
        _check_not_made(label, f"{name}/{key}", child)


def lines(key: str, node: Any, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if isinstance(node, Dimension):
        name = f" (as {node.name})" if node.name else ""
        yield f"{indent}{key}{name}: {node}"
        if isinstance(node, Choice):
            for label, option in children(node):
                if children(option) or isinstance(option, Dimension):
                    yield from lines(label, option, depth + 1)
    elif children(node):
        is_other = isinstance(node, Call) and depth and key != node.label
        yield f"{indent}{key} = {node.label}" if is_other else f"{indent}{key}"
        for name, child in children(node):
            yield from lines(name, child, depth + 1)
    else:
        yield f"{indent}{key} = {_short(node)}"


def _short(value: Any, longest: int = 40) -> str:
    if isinstance(value, Call):
        return f"{value.label}()"
    if hasattr(value, "shape"):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."
