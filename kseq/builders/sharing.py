"""Serialization of models that share layers.

Keras records shared layers only while it writes a file, and not within functional
models. So the config of several models itself says which layers are the same: by
position, since names may be equal.
"""

from collections.abc import Sequence
from typing import Any

import keras

from kseq.typing import Config


def check_shared(models: Sequence[keras.Model]) -> None:
    """Raise if models share weights without sharing the layer in `model.layers`.

    The contents of a layer are created again when a model is loaded, and would no
    longer be shared.
    """
    seen: set[int] = set()
    for model, shared in zip(models, shared_layers(models), strict=True):
        if isinstance(shared, int):
            continue
        whole = {id(w) for place, *_ in shared for w in model.layers[place].variables}
        for weight in model.variables:
            if id(weight) in seen - whole:
                raise ValueError(
                    "Models of an ensemble can share layers that `model.layers` lists, "
                    f"but not a part of a layer. Received: {model.name}, which shares "
                    f"{weight.path} with a model before it. Share the layer of "
                    "`model.layers` that holds it, or use separate layers."
                )
        seen.update(id(weight) for weight in model.variables)


def shared_layers(models: Sequence[keras.Model]) -> list[int | list[list[int]]]:
    """Return what each model shares with earlier models.

    Returns:
        A list with an entry for each model: the index of the same model, or a list of
        three indices for each shared layer: of the layer in this model, of the other
        model, and of the layer in that model.
    """
    first_models: dict[int, int] = {}
    first_layers: dict[int, tuple[int, int]] = {}
    shared: list[int | list[list[int]]] = []
    for place, model in enumerate(models):
        first = first_models.setdefault(id(model), place)
        if first != place:
            shared.append(first)
            continue
        pairs = []
        for i, layer in enumerate(model.layers):
            other, j = first_layers.setdefault(id(layer), (place, i))
            if other != place and layer.variables:
                pairs.append([i, other, j])
        shared.append(pairs)
    return shared


def serialize_models(models: Sequence[keras.Model]) -> Config:
    """Return the config of models that may share layers."""
    shared = shared_layers(models)
    configs = [
        None if isinstance(same, int) else keras.saving.serialize_keras_object(model)
        for model, same in zip(models, shared, strict=True)
    ]
    configs = [with_own_ids(config, place) for place, config in enumerate(configs)]
    return {"models": configs, "shared": shared}


def deserialize_models(
    config: Config, custom_objects: dict[str, Any] | None = None
) -> list[keras.Model]:
    """Return the models of a config made by `serialize_models`."""
    models: list[keras.Model] = []
    for place, each in enumerate(config["models"]):
        shared = config["shared"][place] if "shared" in config else []
        if isinstance(shared, int):
            models.append(models[shared])
            continue
        model = keras.saving.deserialize_keras_object(
            each, custom_objects=custom_objects
        )
        models.append(with_layers_of(models, model, shared) if shared else model)
    return models


def with_layers_of(
    models: Sequence[keras.Model], model: keras.Model, shared: Sequence[Sequence[int]]
) -> keras.Model:
    """Return the model, created again with layers of earlier models."""
    others = {id(model.layers[i]): models[other].layers[j] for i, other, j in shared}

    def shared_or_new(layer):
        if id(layer) in others:
            return others[id(layer)]
        return type(layer).from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=shared_or_new)


def with_own_ids(config: Any, place: int) -> Any:
    """Return a config whose shared object ids differ from those of other models."""
    if isinstance(config, (list, tuple)):
        return [with_own_ids(value, place) for value in config]
    if not isinstance(config, dict):
        return config
    config = {name: with_own_ids(value, place) for name, value in config.items()}
    if "shared_object_id" in config:
        config["shared_object_id"] = f"{place}:{config['shared_object_id']}"
    return config
