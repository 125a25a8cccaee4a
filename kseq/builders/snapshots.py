"""Snapshots of values that a compiled function reads, to tell if it can be reused."""

import functools
import hashlib
import types
from collections.abc import Hashable, Sequence
from typing import Any

import keras
import numpy as np

PLAIN = (str, bytes, bool, int, float, complex, type(None), types.ModuleType)
ARRAYS = (np.ndarray, np.generic, keras.Variable)
LIBRARIES = {"builtins", "jax", "keras", "kseq", "numpy", "tensorflow", "torch"}


def snapshot(value: Any) -> Hashable:
    """Return a hashable snapshot of a value and everything it refers to.

    Two snapshots are equal if a function traced with the value, for example a
    constraint, would read the same: attributes of objects, items of containers,
    contents of arrays, and what functions read besides their arguments. Modules and
    libraries count as constant. A value that cannot be inspected equals only itself.
    """
    return _of(value, {})


def _of(value: Any, seen: dict[int, tuple[int, Any]]) -> Hashable:
    if isinstance(value, PLAIN):
        return type(value), value
    if id(value) in seen:  # for values that refer to themselves
        return seen[id(value)][0]
    seen[id(value)] = len(seen), value  # kept alive, so that its id stays unique
    identity, parts = _read(value)
    return type(value), identity, tuple(_of(part, seen) for part in parts)


def _read(value: Any) -> tuple[Hashable, Sequence[Any]]:
    """Return what identifies a value by itself, and the values it refers to."""
    if isinstance(value, dict):
        return None, [*value, *value.values()]
    if isinstance(value, list | tuple):
        return len(value), list(value)
    if isinstance(value, keras.layers.Layer):
        return Same(value), value.weights
    if isinstance(value, ARRAYS) or keras.ops.is_tensor(value):
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(value))
        content = hashlib.blake2b(array.tobytes()).digest()
        return (array.shape, array.dtype.str, content), []
    if isinstance(value, types.MethodType):
        return None, [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return None, [value.func, value.args, value.keywords]
    if is_of_library(value):
        return own(value), [x for x in vars_of(value).values() if holds_rules(x)]
    if isinstance(value, types.FunctionType):
        return value.__code__, read_by(value)
    if isinstance(value, type):
        return Same(value), [dict(vars(value)), value.__bases__]
    attributes = vars_of(value)
    return None if attributes else own(value), [type(value), attributes]


def is_of_library(value: Any) -> bool:
    module = getattr(value, "__module__", None) or type(value).__module__
    return module.partition(".")[0] in LIBRARIES


def vars_of(value: Any) -> dict[str, Any]:
    """Return the attributes of an object; functions and classes are read elsewhere."""
    is_object = not isinstance(value, type | types.FunctionType)
    return getattr(value, "__dict__", {}) if is_object else {}


def holds_rules(value: Any) -> bool:
    """Return whether a field of a search or of a constraint holds functions."""
    return callable(value) or isinstance(value, tuple) and any(map(callable, value))


def own(value: Any) -> Hashable:
    """Return the value itself if it compares by value, or a wrapper by identity."""
    is_by_value = type(value).__eq__ is not object.__eq__
    try:
        hash(value)
    except TypeError:
        is_by_value = False
    return value if is_by_value else Same(value)


def read_by(function: types.FunctionType) -> list[Any]:
    """Return what a function reads besides arguments: defaults, closure, globals."""
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # empty until the outer function continues
            cells.append(None)
    names: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [x for x in code.co_consts if isinstance(x, types.CodeType)]
    outside = function.__globals__
    named = {name: outside[name] for name in sorted(names) if name in outside}
    return [function.__defaults__, function.__kwdefaults__, cells, named]


class Same:
    """Wrapper that equals only wrappers of the same object, and keeps it alive."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)
