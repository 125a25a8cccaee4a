"""Models that share layers, as a config and back.

Keras notes what is shared only while it writes a file, and not within a functional
model. So the config of several models says itself which layers are the same: by their
places, since names need not differ.
"""

import keras


def check_shared(models):
    """Raises if different models share weights, but not the layers that hold them.

    What is within a layer is made anew when a model is read from a file, and would no
    longer be shared.
    """
    seen = set()
    for model, shared in zip(models, shared_layers(models), strict=True):
        if isinstance(shared, int):
            continue
        whole = {id(w) for place, *_ in shared for w in model.layers[place].variables}
        for weight in model.variables:
            if id(weight) in seen - whole:
                raise ValueError(
                    "Models of an ensemble can share layers that `model.layers` lists, "
                    f"but no part of one. Received: {model.name}, which shares "
                    f"{weight.path} with a model before it. Give them one layer that "
                    "holds it, or a layer each."
                )
        seen.update(id(weight) for weight in model.variables)


def shared_layers(models):
    """Says for each model what it has in common with models before it.

    Returns:
        A list with, for each model, the place of the same model; or a list of three
        places for each layer: in this model, of the other model, and in that one.
    """
    first_models, first_layers, shared = {}, {}, []
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


def serialize_models(models):
    """The config of models that may share layers."""
    shared = shared_layers(models)
    configs = [
        None if isinstance(same, int) else keras.saving.serialize_keras_object(model)
        for model, same in zip(models, shared, strict=True)
    ]
    configs = [apart(config, place) for place, config in enumerate(configs)]
    return {"models": configs, "shared": shared}


def deserialize_models(config, custom_objects=None):
    """The models of a config that `serialize_models` has made."""
    models = []
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


def with_layers_of(models, model, shared):
    """The model, made again with layers of models before it."""
    others = {id(model.layers[i]): models[other].layers[j] for i, other, j in shared}

    def taken_or_made_anew(layer):
        if id(layer) in others:
            return others[id(layer)]
        return type(layer).from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=taken_or_made_anew)


def apart(config, place):
    """A config whose marks of what is shared, by Keras, are those of no other model."""
    if isinstance(config, (list, tuple)):
        return [apart(value, place) for value in config]
    if not isinstance(config, dict):
        return config
    config = {name: apart(value, place) for name, value in config.items()}
    if "shared_object_id" in config:
        config["shared_object_id"] = f"{place}:{config['shared_object_id']}"
    return config
