"""Averages: one model with the mean of the weights of several of its kind."""

import os
import pathlib
import tempfile
import zipfile

import keras
import numpy as np

# Of a config, what says nothing about the architecture, and where names stand in it,
# which Keras counts up from model to model.
IGNORED = {"build_config", "compile_config", "frozen_parts", "seed", "trainable"}
IGNORED |= {"shared_object_id"}
NAMED = {"name", "keras_history", "input_layers", "output_layers"}


def average(models):
    """A model with the mean of the weights of several of one architecture.

    The last few epochs of a training, or its best few, lie around one minimum; their
    mean often is better than each, and costs one model, where `kseq.ensemble` costs all
    of them. Models that began differently are at different minima: their mean is none
    of these, and they go into an ensemble.

    Args:
        models: A list of models, or of files in which such were saved (`.keras`), or of
            both: of `kseq.many_to_one` and any other builder, pipelines of `kseq.text`,
            or other Keras models. Files are read one at a time. What is no float, as a
            count of steps, must be the same in all.

    Returns:
        A new, uncompiled model of the class of the first, with the means of all
        weights, computed in double precision; also of those that are not trained, as
        the moving averages of batch normalization. `models` stay as they were.

    Raises:
        ValueError: There is no list of models; one has not been built, cannot be read,
            or differs from the first in its class, architecture or vocabulary; or
            weights that are integers differ, as those of a quantized model do.

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


def new_model(model):
    """A model of its own: what is in a file, or was in one for a moment."""
    if isinstance(model, (str, os.PathLike)):
        return checked_model(model)
    checked_model(model)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        return keras.saving.load_model(path, compile=False)


def checked_model(model):
    """The model, read from its file if it is one."""
    if isinstance(model, (str, os.PathLike)):
        try:
            model = keras.saving.load_model(model, compile=False)
        except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(
                "`models` must hold models, or `.keras` files of such. Received: "
                f"{str(model)!r}, which cannot be read: {error}"
            ) from error
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            "`models` must hold models that are built, or `.keras` files of such. "
            f"Received: {model!r}. Call a model on a batch to build it."
        )
    return model


def architecture(model):
    """The facts, by their places, that models must share for a mean of weights."""
    facts = {("class",): type(model).__name__}
    facts.update(facts_of(model.get_config(), names={}))
    vocabularies = [x for x in model._flatten_layers() if hasattr(x, "tokens")]
    for number, vocabulary in enumerate(vocabularies):
        facts["vocabulary", number] = list(vocabulary.tokens)
    for number, weight in enumerate(model.weights):
        facts["weights", number] = tuple(weight.shape)
    return facts


def facts_of(config, names, place=()):
    """The values of a config by their places; a name is the number of its first use."""
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


def check_alike(place, expected, received):
    """Raises unless a model has the architecture of the first, and says where not."""
    for fact in [*expected, *received]:
        if expected.get(fact) != received.get(fact):
            about = "/".join(map(str, fact))
            raise ValueError(
                "All models must have the architecture and the words of the first. "
                f"Received: models[{place}], which has {received.get(fact)} for "
                f"{about}, where the first has {expected.get(fact)}. Models of "
                "several kinds decide together by `kseq.ensemble`."
            )


def values_of(model):
    """The weights as arrays: floats in double precision."""
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        is_float = "float" in keras.backend.standardize_dtype(weight.dtype)
        yield value.astype("float64") if is_float else value


def added(place, path, total, value):
    """The sum of floats, or what is no float if it is the same in both."""
    if np.issubdtype(total.dtype, np.floating):
        return total + value
    if (total != value).any():
        raise ValueError(
            "Weights that are integers have no mean, and must be the same in all "
            f"models. Received: models[{place}] with other values of {path}. Average "
            "the models before they are quantized."
        )
    return total
