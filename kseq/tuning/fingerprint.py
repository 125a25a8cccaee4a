"""Fingerprints of values and code, which identify what a search is about.

Values count by their content. A user's function or class counts by its compiled code,
and by the functions, classes and values that this code names. A function or class of an
installed package counts by its name. Line numbers, files, comments and docstrings are
ignored.
"""

import collections.abc
import contextlib
import copyreg
import dis
import functools
import hashlib
import importlib.util
import re
import sys
import tempfile
import types
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import keras
import keras_tuner
import numpy as np

from kseq.tuning.call_tree import Call
from kseq.tuning.dimensions import Dimension

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
OURS = ("kseq", "keras", "keras_tuner")  # even if not in INSTALLED
INSTALLED = {"site-packages", "dist-packages"}  # folders
METHODS = (types.FunctionType, staticmethod, classmethod, property)
WRAPPED = ("__wrapped__", "__func__", "func", "fget", "fset", "fdel")


def fingerprint(value: Any) -> str:
    """Return a hash of a value's content and of the code of its functions.

    A function that makes data, a `PyDataset` or a `tf.data.Dataset` is not run. Lists
    and tuples are equivalent. The order of a dict or a set is ignored. An object that
    cannot be pickled counts by its class only.

    Args:
        value: An input of a search: data, a space, an argument of `fit`.

    Returns:
        16 hexadecimal digits, the same in every process of one version of Python.
    """
    return _Reader()(value).hex()


def described(value: Any) -> Any:
    """Return a plain value as it is, anything else as its name and its fingerprint."""
    if value is None or isinstance(value, bool | int | float | str):
        return value if value == value else "nan"
    name = getattr(value, "__name__", type(value).__name__)
    return f"{name} {fingerprint(value)}"


def _hash(*parts: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        part = part if isinstance(part, bytes) else str(part).encode()
        digest.update(f"{len(part)}:".encode())
        digest.update(part)
    return digest.digest()


class _Reader:
    """A hash of objects that visits each one once, so that cycles end."""

    def __init__(self) -> None:
        self.known: dict[int, bytes] = {}  # id -> digest
        self.kept: list[Any] = []  # keeps objects alive, so that ids stay unique
        self.depth = 0
        self.shared: dict[int, int] = {}  # id of a Call or a Dimension -> its number

    def __call__(self, value: Any) -> bytes:
        if isinstance(value, PLAIN):
            return _hash(type(value).__name__, repr(value))
        key = id(value)
        if key in self.shared:  # one shared layer differs from two layers
            return _hash("shared", self.shared[key])
        if key in self.known:
            return self.known[key]
        self.kept.append(value)
        self.known[key] = _hash("again", self.depth)
        if isinstance(value, Call | Dimension):
            self.shared[key] = len(self.shared)
        self.depth += 1
        self.known[key] = self.read(value)
        self.depth -= 1
        return self.known[key]

    def read(self, value: Any) -> bytes:
        if isinstance(value, types.ModuleType):
            return _hash("module", value.__name__)
        if isinstance(value, type):
            return self.read_class(value)
        if isinstance(value, types.FunctionType):
            return self.read_function(value)
        if isinstance(value, types.MethodType):
            return _hash("method", self(value.__self__), self(value.__func__))
        if isinstance(value, types.BuiltinFunctionType):
            return self.read_builtin(value)
        if isinstance(value, types.CodeType):
            return self.read_code(value)
        if isinstance(value, functools.partial):
            return _hash(*map(self, (value.func, value.args, value.keywords)))
        if isinstance(value, weakref.WeakKeyDictionary | weakref.WeakValueDictionary):
            return self(type(value))  # its content depends on use
        if isinstance(value, collections.abc.Mapping):
            items = [_hash(self(key), self(item)) for key, item in value.items()]
            return _hash("mapping", *sorted(items))
        if isinstance(value, collections.abc.Set):
            return _hash("set", *sorted(map(self, value)))
        if isinstance(value, list | tuple):
            array = _as_array(value)
            if array is None:
                return _hash("row", *map(self, value))
            value = array
        if hasattr(value, "__array__") and hasattr(value, "shape"):
            return self.read_array(np.asarray(value))
        return self.read_object(value)

    def read_array(self, array: np.ndarray) -> bytes:
        if array.dtype.hasobject:
            return _hash("objects", self(array.tolist()))
        return _hash("array", array.dtype, array.shape, array.tobytes())

    def read_builtin(self, function: Any) -> bytes:
        owner = function.__self__
        if owner is None or isinstance(owner, types.ModuleType | type):
            owner = None
        name = f"{function.__module__}.{function.__qualname__}"
        return _hash("builtin", name, self(owner))

    def read_class(self, cls: type) -> bytes:
        if is_installed(cls.__module__):
            return _hash("class", f"{cls.__module__}.{cls.__qualname__}")
        own = {  # without attributes that Python adds, for example in pickling
            name: value
            for name, value in vars(cls).items()
            if not name.startswith("__") or isinstance(value, METHODS)
        }
        kind = self(type(cls))
        return _hash("class", cls.__name__, kind, self(cls.__bases__), self(own))

    def read_function(self, function: types.FunctionType) -> bytes:
        module = function.__globals__.get("__name__", "__main__")
        closure = [_content(cell) for cell in function.__closure__ or ()]
        if is_installed(module):
            # A decorator may have given it the name of the wrapped function.
            is_inner = "<locals>" in function.__code__.co_qualname
            name = f"{module}.{function.__qualname__}"
            made_with = [self.read_named(x, ()) for x in closure if is_inner]
            return _hash("function", name, *made_with)
        return _hash(
            "function",
            function.__name__,
            self.read_code(function.__code__, function.__doc__),
            self(function.__defaults__),
            self(function.__kwdefaults__),
            self(closure),
            *self.read_names(function.__code__, function.__globals__),
        )

    def read_code(self, code: types.CodeType, docstring: str | None = None) -> bytes:
        """Hash a code object without its name, location and docstring."""
        consts = list(code.co_consts)
        if docstring is not None and consts[:1] == [docstring]:
            consts[0] = None
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
        names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
        table = getattr(code, "co_exceptiontable", b"")
        version = sys.version_info[:2]
        numbers = code.co_flags, version, counts, names
        return _hash("code", code.co_code, table, *numbers, *map(self, consts))

    def read_names(
        self, code: types.CodeType, scope: dict[str, Any]
    ) -> Iterator[bytes]:
        """Yield hashes of the objects that the code refers to by global names."""
        names, attributes, imports = _names(code)
        for name in sorted(names):
            if name in scope and not name.startswith("__"):
                yield _hash(name, self.read_named(scope[name], attributes))
        for name in sorted(imports):
            module = _imported(name, scope.get("__package__"))
            if module is not None:
                yield _hash(name, self.read_named(module, attributes))

    def read_named(self, value: Any, attributes: Iterable[str]) -> bytes:
        """Hash an object that code refers to by name.

        An object of an installed class may have changed in use, so it counts by its
        class. If its class defines equality, such as a path, it counts by its content.
        """
        if isinstance(value, types.ModuleType) and not is_installed(value.__name__):
            inside = vars(value)
            found = {a: inside[a] for a in sorted(attributes) if a in inside}
            return _hash(*(self.read_named(v, attributes) for v in found.values()))
        counts = (
            *(*PLAIN, type, types.FunctionType, types.MethodType, types.ModuleType),
            *(collections.abc.Mapping, collections.abc.Set, list, tuple),
            functools.partial,
        )
        kind = type(value)
        is_array = hasattr(value, "__array__") or hasattr(value, "get_config")
        has_name = callable(value) and hasattr(value, "__name__")
        is_value = kind.__eq__ is not object.__eq__
        if isinstance(value, counts) or is_array or has_name or is_value:
            return self(value)
        return self(kind if is_installed(kind.__module__) else value)

    def read_object(self, value: Any) -> bytes:
        kind = type(value)
        if hasattr(value, "get_config"):
            return self.read_keras_object(value)
        if hasattr(value, "__wrapped__") and is_installed(kind.__module__):
            return self.read_wrapped(value)
        whole = isinstance(value, Call | Dimension | keras_tuner.HyperModel)
        if whole or not is_installed(kind.__module__) or _pickles(value):
            try:
                reduce = copyreg.dispatch_table.get(kind)
                reduced: Any = reduce(value) if reduce else value.__reduce_ex__(4)
            except Exception:  # classes raise anything here
                return self.read_wrapped(value)
            if isinstance(reduced, str):
                return _hash("object", kind.__module__, reduced)
            parts = [self(list(p) if _is_iterator(p) else p) for p in reduced]
            return _hash("object", self(kind), *parts)
        return self.read_wrapped(value)

    def read_wrapped(self, value: Any) -> bytes:
        """Hash the class of an object and the functions that it wraps."""
        inside = [getattr(value, name, None) for name in WRAPPED]
        return _hash("kind", self(type(value)), *map(self, inside))

    def read_keras_object(self, value: Any) -> bytes:
        """Hash the class, the config, the weights, and attributes outside the config.

        For example, the config of `keras.losses.Huber` lacks its `delta`; configs of
        user classes may lack anything.
        """
        try:
            config = value.get_config()
        except Exception:  # a class without its own config
            config = None
        is_layer = isinstance(value, keras.layers.Layer)  # changes in training
        kept = {
            name: item
            for name, item in ({} if is_layer else vars(value)).items()
            if isinstance(item, types.FunctionType | types.MethodType | dict)
            or (isinstance(item, PLAIN) and name[0] != "_")
        }
        kept = {k: v for k, v in kept.items() if k not in ("name", "built")}
        weights = [keras.ops.convert_to_numpy(w) for w in getattr(value, "weights", ())]
        held = _nameless(config), kept, weights, _assets(value)
        return _hash("keras", self(type(value)), *map(self, held))


def _assets(value: Any) -> list[list[tuple[str, bytes]]]:
    """Return what layers save besides weights, such as the words of a vocabulary."""
    layers = value._flatten_layers() if isinstance(value, keras.layers.Layer) else ()
    return [assets for layer in layers if (assets := _assets_of(layer))]


def _assets_of(layer: Any) -> list[tuple[str, bytes]]:
    if not hasattr(layer, "save_assets"):
        return []
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(
            Exception
        ):  # raised, for example, by one without words
            layer.save_assets(folder)
        return [
            (path.name, path.read_bytes()) for path in sorted(Path(folder).iterdir())
        ]


def _nameless(config: Any) -> Any:
    """Return a config without modules and the numbers that Keras appends to names."""
    if isinstance(config, collections.abc.Mapping):
        return {k: _nameless(v) for k, v in config.items() if k != "module"}
    if isinstance(config, list | tuple):
        return [_nameless(item) for item in config]
    return re.sub(r"_\d+$", "", config) if isinstance(config, str) else config


@functools.cache
def is_installed(module: str) -> bool:
    """Return whether a module belongs to Python or to an installed package."""
    top = str(module).partition(".")[0]
    if top in sys.stdlib_module_names or top in OURS:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and not INSTALLED.isdisjoint(Path(file).parts)


def _names(code: types.CodeType) -> tuple[set[str], set[str], set[str]]:
    """Return the global names, the attributes and the imports that code uses."""
    names, attributes, imports = found = set[str](), set[str](), set[str]()
    level = 0
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(step.argval)
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM"):
            attributes.add(step.argval)
        elif step.opname == "LOAD_CONST" and isinstance(step.argval, int):
            level = step.argval  # number of leading dots of the next import
        elif step.opname == "IMPORT_NAME":
            imports.add("." * level + step.argval)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            for mine, inner in zip(found, _names(const), strict=True):
                mine |= inner
    return found


def _imported(name: str, package: Any) -> types.ModuleType | None:
    """Return the user's module that a function imports, or None for any other."""
    if _will_be_installed(name.partition(".")[0] or package):
        return None
    try:
        module = importlib.import_module(name, package)
    except Exception:  # the function will fail too if it runs
        return None
    return None if is_installed(module.__name__) else module


def _will_be_installed(module: Any) -> bool:
    """Return `is_installed` for a module that may not have been imported yet."""
    top = str(module).partition(".")[0]
    if top in sys.modules or top in sys.stdlib_module_names:
        return is_installed(top)
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    return spec is not None and not INSTALLED.isdisjoint(Path(str(spec.origin)).parts)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _pickles(value: Any) -> bool:
    try:
        cloudpickle.dumps(value, protocol=5, buffer_callback=lambda buffer: None)
    except Exception:
        return False
    return True


def _is_iterator(value: Any) -> bool:
    return isinstance(value, collections.abc.Iterator)


def _as_array(row: Any) -> np.ndarray | None:
    """Return a list of numbers as an array, which hashes faster, or None."""
    if row and all(isinstance(item, int | float) for item in row[:3]):
        try:
            array = np.asarray(row)
        except (ValueError, OverflowError):
            return None
        return array if array.dtype.kind in "iufb" else None
    return None
