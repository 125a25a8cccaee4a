"""Averaging: one model with the mean of the weights of several."""

import os
import pathlib
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kseq.typing import PathLike

# Keys of a config that are not part of the architecture, and keys that hold names,
# which Keras numbers from model to model.
IGNORED = {"build_config", "compile_config", "frozen_parts", "seed", "trainable"}
IGNORED |= {"shared_object_id"}
NAMED = {"name", "keras_history", "input_layers", "output_layers"}


def average(models: Sequence[keras.Model | PathLike]) -> keras.Model:
    """Return a model with the mean of the weights of several models.

    The last or best few epochs of a training lie around one minimum. Their mean is
    often better than each of them, and it costs one model, where `kseq.ensemble` costs
    all of them. Models with different initial weights lie at different minima, and
    their mean at none. Use an ensemble for these.

    Args:
        models: A list of models or `.keras` files, or both, of one architecture: models
            of any builder, pipelines of `kseq.text` or other Keras models. Files are
            read one at a time. Weights that are not floats, such as a step count, must
            be the same in all models.

    Returns:
        A new, uncompiled model of the class of the first, with the mean of all weights,
        computed in double precision. This includes weights that are not trained, such
        as the moving averages of batch normalization. `models` are not changed.

    Raises:
        ValueError: `models` is not a list or is empty; one is not built, cannot be
            read, or differs from the first in class, architecture or vocabulary; or
            integer weights differ, as those of quantized models do.

    Example:

    The mean of the last three epochs:

    >>> import pathlib, tempfile
    >>> import keras, numpy as np
    >>> import kseq
    >>> model = kseq.many_to_one(source=11, num_outputs=2, width=8)
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> keep = keras.callbacks.ModelCheckpoint(str(folder / "{epoch:03d}.keras"))
    >>> data = np.array([[4, 5, 6], [7, 0, 0]]), np.array([0, 1])
    >>> history = model.fit(*data, epochs=5, callbacks=[keep], verbose=0)
    >>> averaged = kseq.average(sorted(folder.glob("*.keras"))[-3:])
    >>> averaged.predict(data[0], verbose=0).shape
    (2, 2)

    References:
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), 6.1
        - [Izmailov et al., 2018](https://arxiv.org/abs/1803.05407), 3
    """
    if not isinstance(models, (list, tuple)) or not models:
        raise ValueError(
            "`models` must be a list of one or more models, or files. Received: "
            f"models={models!r}."
        )
    averaged = new_model(models[0])
    expected = architecture(averaged)
    sums = [np.asarray(weight) for weight in values_of(averaged)]
    for place, other in enumerate(models[1:], start=1):
        other = checked_model(other)
        check_alike(place, expected, architecture(other))
        sums = [
            added(place, weight.path, total, value)
            for weight, total, value in zip(
                averaged.weights, sums, values_of(other), strict=True
            )
        ]
    for weight, total in zip(averaged.weights, sums, strict=True):
        is_float = np.issubdtype(total.dtype, np.floating)
        weight.assign(total / len(models) if is_float else total)
    return averaged


def new_model(model: keras.Model | PathLike) -> keras.Model:
    """Return a copy of a model, or the model of a file."""
    if isinstance(model, (str, os.PathLike)):
        return checked_model(model)
    checked_model(model)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        return keras.saving.load_model(path, compile=False)


def checked_model(model: Any) -> keras.Model:
    """Return the model, read from its file if it is one."""
    if isinstance(model, (str, os.PathLike)):
        try:
            model = keras.saving.load_model(model, compile=False)
        except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(
                "`models` must hold models or `.keras` files. Received: "
                f"{str(model)!r}, which cannot be read: {error}"
            ) from error
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            "`models` must hold built models or `.keras` files. "
            f"Received: {model!r}. Call a model on a batch to build it."
        )
    return model


def architecture(model: keras.Model) -> dict[tuple[Any, ...], Any]:
    """Return the facts by place that must be equal for a mean of weights."""
    facts: dict[tuple[Any, ...], Any] = {("class",): type(model).__name__}
    facts.update(facts_of(model.get_config(), names={}))
    vocabularies = [x for x in model._flatten_layers() if hasattr(x, "tokens")]
    for number, vocabulary in enumerate(vocabularies):
        facts["vocabulary", number] = list(vocabulary.tokens)
    for number, weight in enumerate(model.weights):
        facts["weights", number] = tuple(weight.shape)
    return facts


def facts_of(
    config: Any, names: dict[str, int], place: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the values of a config by place; a name becomes its order of appearance."""
    if isinstance(config, dict):
        for key, value in config.items():
            if key not in IGNORED:
                yield from facts_of(value, names, (*place, key))
    elif isinstance(config, (list, tuple)):
        for number, value in enumerate(config):
            yield from facts_of(value, names, (*place, number))
    elif isinstance(config, str) and NAMED.intersection(place):
        yield place, names.setdefault(config, len(names))
    else:
        yield place, repr(config)


def check_alike(
    place: int,
    expected: Mapping[tuple[Any, ...], Any],
    received: Mapping[tuple[Any, ...], Any],
) -> None:
    """Raise unless a model has the architecture of the first, with the difference."""
    for fact in [*expected, *received]:
        if expected.get(fact) != received.get(fact):
            about = "/".join(map(str, fact))
            raise ValueError(
                "All models must have the architecture and vocabulary of the first. "
                f"Received: models[{place}], which has {received.get(fact)} for "
                f"{about}, where the first has {expected.get(fact)}. Combine different "
                "models with `kseq.ensemble`."
            )


def values_of(model: keras.Model) -> Iterator[np.ndarray]:
    """Yield the weights as arrays, floats in double precision."""
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        is_float = "float" in keras.backend.standardize_dtype(weight.dtype)
        yield value.astype("float64") if is_float else value


def added(place: int, path: str, total: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return the sum of floats, or other values if they are the same in both."""
    if np.issubdtype(total.dtype, np.floating):
        return total + value
    if (total != value).any():
        raise ValueError(
            "Integer weights cannot be averaged, and must be the same in all models. "
            f"Received: models[{place}] with other values of {path}. Average the "
            "models before they are quantized."
        )
    return total
