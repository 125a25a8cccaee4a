"""Layers made of layers: saving the state of their sublayers."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from kseq.layers.layer import Layer
from kseq.typing import Config


class Composite(Layer):
    """A layer that creates sublayers, and saves which are frozen or quantized.

    Keras saves the options of the layers that a model is given, but not those of
    sublayers that a layer creates. So the config of this layer lists the sublayers that
    were frozen on their own, and its build config lists the quantized ones. It must
    name its sublayers itself: names that Keras numbers would not match on loading.

    Args:
        frozen_parts: Paths, within the layer, of the sublayers that are not trained. A
            config has it if sublayers had `trainable` set to False.
        **kwargs: The arguments of `keras.layers.Layer`.
    """

    def __init__(self, *, frozen_parts: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frozen_parts = tuple(frozen_parts)  # used until the layer is built

    def get_config(self) -> Config:
        config = super().get_config()
        frozen: Sequence[str] = self.frozen_parts
        if self.built and self.trainable:
            parts = [(name, part) for name, part in own_parts(self) if part.weights]
            frozen = [name for name, part in parts if not part.trainable]
        return {**config, "frozen_parts": list(frozen)} if frozen else config

    def get_build_config(self) -> Config | None:
        config = super().get_build_config()
        modes = {
            name: quantization(part)
            for name, part in own_parts(self)
            if is_quantized(part)
        }
        return {**config, "quantized": modes} if modes else config

    def build_from_config(self, config: Config | None) -> None:
        modes = (config or {}).get("quantized", {})
        super().build_from_config(config)
        for name, part in own_parts(self):
            if name in modes and not is_quantized(part):  # a given one may be already
                mode = keras.saving.deserialize_keras_object(modes[name])
                part.quantize(config=mode)


def freeze_parts(layer: keras.layers.Layer) -> None:
    """Freeze all sublayers of a frozen layer, or those listed in `frozen_parts`.

    Call it at the end of `build`. Keras does not pass `trainable=False` of a
    constructor, or of a config, to sublayers that are created later.
    """
    if not layer.trainable:
        layer.trainable = True  # TensorFlow ignores a value that is already set
        layer.trainable = False
    frozen = getattr(layer, "frozen_parts", ())
    for name, part in own_parts(layer) if frozen else ():
        if name in frozen:
            part.trainable = False


def own_parts(layer: keras.layers.Layer) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yield the sublayers that a layer built, at any depth, with their path in it."""
    start = f"{layer.path}/"
    for part in layer._flatten_layers(include_self=False):
        if (part.path or "").startswith(start):
            yield part.path.removeprefix(start), part


def quantization(layer: keras.layers.Layer) -> Any:
    """Return the serialized argument with which `quantize` was called."""
    config = getattr(layer, "quantization_config", None) or layer.quantization_mode
    return keras.saving.serialize_keras_object(config)


def is_quantized(layer: keras.layers.Layer) -> bool:
    """Return whether a layer is quantized: it then replaced the weight it built."""
    return layer.quantization_mode is not None
