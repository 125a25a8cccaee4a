"""The whole of `generate`, from the source to token ids, as a file without kseq.

Axes in shape comments: B batch, S source steps, P steps of a prefix.
"""

import contextlib
import importlib.util
import warnings

import keras

from kseq.builders.generate_loop import num_rows
from kseq.decoding.randomness import seeds_of_rows
from kseq.layers.backends import choices_as_choices, portable
from kseq.layers.named_parts import check_names
from kseq.layers.validation import one_of

FORMATS = ("tf_saved_model", "onnx", "litert", "ctranslate2")
SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}


class Exported(keras.Model):
    """A search over a writing model, with one argument: the inputs by name.

    Call arguments:
        inputs: "source"; where there is none, "prefix" `(B, P)`, which may also stand
            beside it; and "seed" `(1,)`, for a search that has none.

    Returns:
        The fields of a `kseq.decoding.Generation` by name.
    """

    def __init__(self, writing):
        super().__init__(name="generation", autocast=False)
        self.writing = writing
        self.built = True

    def call(self, inputs):
        inputs = dict(inputs)
        if "source" not in inputs:  # a row for each prefix
            inputs["source"] = inputs["prefix"][:, :0]
        if "seed" in inputs:
            seed, rows = inputs.pop("seed")[0], num_rows(inputs["source"])
            inputs["row_seeds"] = seeds_of_rows(seed, rows)
        with portable():
            return self.writing(inputs)


def check_export(path, format, search):
    """Raise if a search cannot be exported, with how to mend it."""
    one_of("format", format, FORMATS)
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            'A search is exported by TensorFlow, but for format="ctranslate2". '
            f"Received: the backend {backend}. Save the model, and load and export it "
            "in a process with KERAS_BACKEND=tensorflow."
        )
    if format != "tf_saved_model" and search.is_random:
        raise ValueError(
            'Random draws can be exported in format="tf_saved_model" alone. Received: '
            f'format="{format}" with search={search}.'
        )
    suffix = SUFFIXES.get(format, "")
    if not str(path).endswith(suffix):
        raise ValueError(
            f'`path` must end with "{suffix}" in format="{format}". Received: '
            f"path={str(path)!r}."
        )
    if format == "onnx" and importlib.util.find_spec("tf2onnx") is None:
        raise ImportError(
            'format="onnx" needs tf2onnx. Install it with `pip install kseq[export]`.'
        )


def refuse_arguments(format, **arguments):
    """Raise if an argument is given that only another format takes."""
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(
                f'`{name}` is no argument of format="{format}". Received: '
                f"{name}={value!r}. Leave it out."
            )


def input_specs(model, search, source_shape, prefix_shape):
    """The `keras.InputSpec` of each input of an export by name; None for any size."""
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


def source_specs(name, symbol, shape):
    """The `keras.InputSpec` of a source, of several inputs by name."""
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


def checked_shape(name, shape, expected):
    """Returns a shape as a tuple if it is one of those that are expected."""
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


def is_size(size):
    return size is None or (isinstance(size, int) and not isinstance(size, bool))


def export(generation, path, format, specs):
    """Writes a search over a model to a file, or for a SavedModel to a folder.

    Args:
        generation: What `generation_model` returns.
        path: Where to.
        format: One of `FORMATS`.
        specs: What `input_specs` returns.
    """
    shapes = keras.tree.map_structure(lambda spec: spec.shape, specs)
    if format == "litert" and None in keras.tree.flatten(shapes):
        raise ValueError(
            'format="litert" needs every size, such as `source_shape=(1, 30)`, to '
            f"which sources are then padded. Received: {shapes}."
        )
    exact = choices_as_choices() if format == "onnx" else contextlib.nullcontext()
    with exact, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converters' own, of their own future
        generation.export(path, format, verbose=False, input_signature=[specs])
