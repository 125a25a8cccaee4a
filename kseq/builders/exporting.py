"""The whole of `generate`, from the source to token ids, as a file without kseq.

Axes in shape comments: B batch, S source steps, P steps of a prefix.
"""

import contextlib
import importlib.util
import warnings

import keras
from keras import ops

from kseq.decoding.randomness import seeds_of_rows
from kseq.layers.backends import choices_as_choices, portable
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
            seed, num_rows = inputs.pop("seed")[0], ops.shape(inputs["source"])[0]
            inputs["row_seeds"] = seeds_of_rows(seed, num_rows)
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


def input_shapes(model, search, source_shape, prefix_shape):
    """The shape and dtype of each input of an export by name; None for any size."""
    shapes = {}
    if "source" in model.input:
        symbol = model.input["source"]
        shape = symbol.shape if source_shape is None else source_shape
        shape = checked_shape("source_shape", shape, symbol.shape)
        shapes["source"] = shape, symbol.dtype
    if prefix_shape is not None or "source" not in model.input:
        shape = (None, None) if prefix_shape is None else prefix_shape
        shape = checked_shape("prefix_shape", shape, (None, None))
        shapes["prefix"] = shape, "int32"
    if search.is_random and search.seed is None:
        shapes["seed"] = (1,), "int32"
    return shapes


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


def export(generation, path, format, shapes):
    """Writes a search over a model to a file, or for a SavedModel to a folder.

    Args:
        generation: What `generation_model` returns.
        path: Where to.
        format: One of `FORMATS`.
        shapes: What `input_shapes` returns.
    """
    if format == "litert" and any(None in shape for shape, _ in shapes.values()):
        received = {name: shape for name, (shape, _) in shapes.items()}
        raise ValueError(
            'format="litert" needs every size, such as `source_shape=(1, 30)`, to '
            f"which sources are then padded. Received: {received}."
        )
    signature = {
        name: keras.InputSpec(shape=shape, dtype=dtype, name=name)
        for name, (shape, dtype) in shapes.items()
    }
    exact = choices_as_choices() if format == "onnx" else contextlib.nullcontext()
    with exact, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converters' own, of their own future
        generation.export(path, format, verbose=False, input_signature=[signature])
