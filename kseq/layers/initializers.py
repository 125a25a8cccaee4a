"""Random numbers of its own for each weight, from one initializer or one config.

`keras.initializers.get` returns the object that it is given, and a Keras initializer
gives the same numbers at each call: two weights that share one are born equal.
"""

import numbers
import zlib

import keras


def initializer_of(name, initializer):
    """Return the initializer of the weight `name`, which draws numbers of its own.

    Args:
        name: Name of the weight, another one for each weight of a layer.
        initializer: What `keras.initializers.get` returns.

    Returns:
        A copy: an unseeded initializer draws a new seed, a seeded one has a seed made
        of its own and the name, so that equal seeds still give equal layers. What has
        no integer seed is returned as it is: it draws nothing, or from a
        `keras.random.SeedGenerator`, whose numbers differ at each call.
    """
    is_copied = isinstance(initializer, keras.initializers.Initializer)
    config = initializer.get_config() if is_copied else {}
    if not isinstance(config.get("seed", "none"), (numbers.Integral, type(None))):
        return initializer
    return type(initializer).from_config(reseeded(config, name))


def reseeded(config, name):
    """Return a config whose seeds, at any depth, are made of the old ones and a name.

    Args:
        config: Config of a layer, a cell or an initializer.
        name: Name of the copy, another one for each copy.
    """
    if isinstance(config, (list, tuple)):
        return type(config)(reseeded(value, name) for value in config)
    if not isinstance(config, dict):
        return config
    copy = {key: reseeded(value, f"{name} {key}") for key, value in config.items()}
    if isinstance(copy.get("seed"), numbers.Integral):
        copy["seed"] = zlib.crc32(f"{copy['seed']} {name}".encode()) >> 1
    return copy
