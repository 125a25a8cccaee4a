"""Export of all of `generate`, from sources to token ids, to files without kseq.

Axes in shape comments: B batch, S source steps, P steps of a prefix.
"""

import contextlib
import importlib.util
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from kseq.builders.generate_loop import num_rows
from kseq.decoding import Search
from kseq.decoding.randomness import seeds_of_rows
from kseq.layers.backends import onnx_where, portable
from kseq.layers.named_parts import check_names
from kseq.layers.saving import (
    SAVED_MODEL_FILE,
    SUFFIXES,
    replaced_file,
    replaced_folder,
)
from kseq.layers.validation import one_of
from kseq.typing import PathLike, Shape, Tensor, Tree

if TYPE_CHECKING:
    from kseq.builders.generation import GenerativeModel

FORMATS = ("tf_saved_model", "onnx", "litert", "ctranslate2")


class Exported(keras.Model):
    """Keras model of a search with a single argument: the inputs by name.

    Call arguments:
        inputs: "source"; "prefix" `(B, P)`, which is required without a source; and
            "seed" `(1,)`, for a random search without a seed.

    Returns:
        The fields of a `kseq.decoding.Generation` by name.
    """

    def __init__(self, writing: keras.Model) -> None:
        super().__init__(name="generation", autocast=False)
        self.writing = writing
        self.built = True

    def call(self, inputs: dict[str, Tree]) -> dict[str, Tensor]:
        inputs = dict(inputs)
        if "source" not in inputs:  # a row for each prefix
            inputs["source"] = inputs["prefix"][:, :0]
        if "seed" in inputs:
            seed, rows = inputs.pop("seed")[0], num_rows(inputs["source"])
            inputs["row_seeds"] = seeds_of_rows(seed, rows)
        with portable():
            return self.writing(inputs)


def check_export(path: PathLike, format: str, search: Search) -> None:
    """Raise if a search cannot be exported to a format."""
    one_of("format", format, FORMATS)
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            'Only TensorFlow can export a search, except for format="ctranslate2". '
            f"Received: the backend {backend}. Save the model, and load and export it "
            "in a process with KERAS_BACKEND=tensorflow."
        )
    if format != "tf_saved_model" and search.is_random:
        raise ValueError(
            'A random search requires format="tf_saved_model". Received: '
            f'format="{format}" with search={search}.'
        )
    check_suffix(path, format)
    if format == "onnx" and importlib.util.find_spec("tf2onnx") is None:
        raise ImportError(
            'format="onnx" needs tf2onnx. Install it with `pip install kseq[export]`.'
        )


def check_suffix(path: PathLike, format: str) -> None:
    """Raise if a path does not end as the files of its format do."""
    suffix = SUFFIXES.get(format, "")
    if not str(path).endswith(suffix):
        raise ValueError(
            f'`path` must end with "{suffix}" in format="{format}". Received: '
            f"path={str(path)!r}."
        )
    for other, suffix in SUFFIXES.items():
        if other != format and str(path).endswith(suffix):
            raise ValueError(
                f'`path` must be a folder in format="{format}". Received: '
                f'path={str(path)!r}, which ends like a file. Use format="{other}".'
            )


def refuse_arguments(format: str, **arguments: Any) -> None:
    """Raise if an argument is passed that another format takes."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f'`{name}` is not an argument of format="{format}". Received: '
                f"{name}={value!r}. Leave it out."
            )


def input_specs(
    model: "GenerativeModel",
    search: Search,
    source_shape: Tree,
    prefix_shape: Sequence[int | None] | None,
) -> dict[str, Tree]:
    """Return the `keras.InputSpec` of each input of an export, None for any size."""
    specs = {}
    if "source" in model.input:
        specs["source"] = source_specs("source", model.input["source"], source_shape)
    if prefix_shape is not None or "source" not in model.input:
        shape = (None, None) if prefix_shape is None else prefix_shape
        shape = checked_shape("prefix_shape", shape, (None, None))
        specs["prefix"] = keras.InputSpec(shape=shape, dtype="int32", name="prefix")
    if search.is_random and search.seed is None:
        specs["seed"] = keras.InputSpec(shape=(1,), dtype="int32", name="seed")
    return specs


def source_specs(name: str, symbol: Tree, shape: Tree) -> Tree:
    """Return the `keras.InputSpec` of a source, or several by name."""
    if isinstance(symbol, dict):
        shapes = dict.fromkeys(symbol) if shape is None else shape
        check_names("source_shape", shapes, symbol)
        return {
            key: source_specs(f"{name}_{key}", each, shapes[key])
            for key, each in symbol.items()
        }
    shape = symbol.shape if shape is None else shape
    shape = checked_shape("source_shape", shape, symbol.shape)
    return keras.InputSpec(shape=shape, dtype=symbol.dtype, name=name)


def checked_shape(name: str, shape: Any, expected: Shape) -> Shape:
    """Return a shape as a tuple, if it matches the expected one."""
    is_listed = isinstance(shape, tuple | list)
    has_axes = is_listed and len(shape) == len(expected)
    if not has_axes or any(
        own not in (None, size) if size is not None else not is_size(own)
        for own, size in zip(shape, expected, strict=True)
    ):
        raise ValueError(
            f"`{name}` must be a shape like {expected}, with None for any size. "
            f"Received: {name}={shape!r}."
        )
    return tuple(shape)


def is_size(size: Any) -> bool:
    return size is None or (isinstance(size, int) and not isinstance(size, bool))


def export(
    generation: keras.Model, path: PathLike, format: str, specs: dict[str, Tree]
) -> None:
    """Write a search over a model to a file, or for a SavedModel to a folder.

    Args:
        generation: The result of `generation_model`.
        path: Path of the file or folder.
        format: One of `FORMATS`.
        specs: The result of `input_specs`.
    """
    shapes = keras.tree.map_structure(lambda spec: spec.shape, specs)
    if format == "litert" and None in keras.tree.flatten(shapes):
        raise ValueError(
            'format="litert" needs every size, such as `source_shape=(1, 30)`; pad '
            f"sources to it. Received: {shapes}."
        )
    exact = onnx_where() if format == "onnx" else contextlib.nullcontext()
    if format == "tf_saved_model":
        target = replaced_folder(path, SAVED_MODEL_FILE)
    else:
        target = replaced_file(str(path))
    with target as temporary, exact, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the converters
        generation.export(temporary, format, verbose=False, input_signature=[specs])
