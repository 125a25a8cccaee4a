"""Initializers: different random numbers for each weight from one initializer.

`keras.initializers.get` returns an initializer object unchanged, and a Keras
initializer returns the same numbers at each call. Two weights that share one would
start with equal values.
"""

import numbers
import zlib
from typing import Any

import keras


def initializer_of(name: str, initializer: Any) -> Any:
    """Return an initializer for the weight `name` with random numbers of its own.

    Args:
        name: Name of the weight, unique within the layer.
        initializer: The result of `keras.initializers.get`.

    Returns:
        A copy of the initializer. An unseeded initializer gets a new random seed. A
        seeded one gets a seed derived from its own seed and the name, so equal seeds
        still produce equal layers. An initializer without an integer seed is returned
        unchanged: it is not random, or it uses a `keras.random.SeedGenerator`, whose
        numbers differ at each call.
    """
    is_copied = isinstance(initializer, keras.initializers.Initializer)
    config = initializer.get_config() if is_copied else {}
    if not isinstance(config.get("seed", "none"), (numbers.Integral, type(None))):
        return initializer
    return type(initializer).from_config(reseeded(config, name))


def reseeded(config: Any, name: str) -> Any:
    """Return a config in which each seed, at any depth, is derived from it and a name.

    Args:
        config: Config of a layer, a cell or an initializer.
        name: Name of the copy, unique among the copies.
    """
    if isinstance(config, (list, tuple)):
        return type(config)(reseeded(value, name) for value in config)
    if not isinstance(config, dict):
        return config
    copy = {key: reseeded(value, f"{name} {key}") for key, value in config.items()}
    if isinstance(copy.get("seed"), numbers.Integral):
        copy["seed"] = zlib.crc32(f"{copy['seed']} {name}".encode()) >> 1
    return copy
