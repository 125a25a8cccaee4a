"""Calls that are still to be made: the tree that a search space is.

The nodes of the tree are calls, dimensions, and lists, tuples and dicts that hold them;
anything else is a value.
"""

import inspect

import keras

from kseq.tuning.dimensions import Choice, Dimension

MADE_ALREADY = (keras.layers.Layer, keras.optimizers.Optimizer, keras.metrics.Metric)


class Call:
    """A function and what to call it with, the base of `Space`.

    Attributes:
        arguments: All arguments by name, in the order of the function.
    """

    def __init__(self, function, args, kwargs):
        if not callable(function):
            raise ValueError(
                "A `Space` must begin with something to call, such as "
                f"`kseq.many_to_one`. Received: {function!r}."
            )
        self.function, self.args, self.kwargs = function, args, kwargs
        self.arguments = _named_arguments(function, args, kwargs)
        for name, value in self.arguments.items():
            _check_not_made(self.label, name, value)

    @property
    def label(self):
        """What an option of a `Choice` is called: the name of the function."""
        function = getattr(self.function, "func", self.function)  # of a partial
        return getattr(function, "__name__", type(function).__name__)


class Builder:
    """Makes nodes of a tree for given values, each object once."""

    def __init__(self, values, names):
        self.values, self.names, self.made = values, names, {}

    def __call__(self, node):
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

    def call(self, space, *first, **options):
        """Calls what a Space stands for, with further arguments in front."""
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


def children(node):
    """`(key, child)` of everything that may hold dimensions."""
    if isinstance(node, Call):
        return list(node.arguments.items())
    if isinstance(node, Choice):
        return [(str(x), y) for x, y in zip(node.labels, node.options, strict=True)]
    if type(node) is dict:
        return [(str(key), value) for key, value in node.items()]
    if type(node) in (list, tuple):
        return [(str(index), value) for index, value in enumerate(node)]
    return []


def _named_arguments(function, args, kwargs):
    """All arguments by name; those of a variadic parameter are a tuple or by key."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some of the built-in functions have none
        return {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    try:
        named = signature.bind_partial(*args, **kwargs).arguments
    except TypeError as error:
        name = getattr(function, "__name__", function)
        raise ValueError(
            f"The arguments of a `Space` must be those of its function: {name}"
            f"{signature}. Received: {error}."
        ) from None
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD and name in named:
            named.update(named.pop(name))
    return dict(named)


def _check_not_made(label, name, value):
    if isinstance(value, MADE_ALREADY):
        kind = type(value).__name__
        raise ValueError(
            f"Arguments of a `Space` must not be layers, optimizers or metrics that "
            f"are made already: all trials would train the same. Received: {label} "
            f"with {name}={value!r}. Write Space({kind}, ...)."
        )
    for key, child in [] if isinstance(value, Call) else children(value):
        _check_not_made(label, f"{name}/{key}", child)


def lines(key, node, depth):
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


def _short(value, longest=40):
    if isinstance(value, Call):
        return f"{value.label}()"
    if hasattr(value, "shape"):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    text = getattr(value, "__name__", None) or repr(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."
