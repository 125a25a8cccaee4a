"""Snapshots of what a compiled function has read, to tell if it may be used again."""

import functools
import hashlib
import types

import keras
import numpy as np

PLAIN = (str, bytes, bool, int, float, complex, type(None), types.ModuleType)
ARRAYS = (np.ndarray, np.generic, keras.Variable)
LIBRARIES = {"builtins", "jax", "keras", "kseq", "numpy", "tensorflow", "torch"}


def snapshot(value):
    """A value, and all that it refers to, as something hashable.

    Two snapshots are equal if a function that is traced with the value, which may be a
    constraint, would read the same: attributes of objects, items of containers,
    contents of arrays, and what functions find outside of their arguments. Modules and
    libraries count as unchanging, what cannot be looked into as equal to itself alone.
    """
    return _of(value, {})


def _of(value, seen):
    if isinstance(value, PLAIN):
        return type(value), value
    if id(value) in seen:  # it may refer to itself
        return seen[id(value)][0]
    seen[id(value)] = len(seen), value  # kept, so that its id stays its own
    identity, parts = _read(value)
    return type(value), identity, tuple(_of(part, seen) for part in parts)


def _read(value):
    """Return what tells a value from others by itself, and the values it refers to."""
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


def is_of_library(value):
    module = getattr(value, "__module__", None) or type(value).__module__
    return module.partition(".")[0] in LIBRARIES


def vars_of(value):
    """The attributes of an object; those of functions and classes are elsewhere."""
    is_object = not isinstance(value, type | types.FunctionType)
    return getattr(value, "__dict__", {}) if is_object else {}


def holds_rules(value):
    """Tell whether a field of a search or of a constraint holds functions."""
    return callable(value) or isinstance(value, tuple) and any(map(callable, value))


def own(value):
    """A value by which it is known: itself where it can be a key by what it is."""
    is_by_value = type(value).__eq__ is not object.__eq__
    try:
        hash(value)
    except TypeError:
        is_by_value = False
    return value if is_by_value else Same(value)


def read_by(function):
    """Return what a function reads besides arguments: defaults, closure, globals."""
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # empty until the outer function goes on
            cells.append(None)
    names, codes = set(), [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [x for x in code.co_consts if isinstance(x, types.CodeType)]
    outside = function.__globals__
    named = {name: outside[name] for name in sorted(names) if name in outside}
    return [function.__defaults__, function.__kwdefaults__, cells, named]


class Same:
    """An object that is equal to itself alone, and is kept alive."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self):
        return id(self.value)
