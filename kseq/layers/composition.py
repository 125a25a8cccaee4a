"""Layers made of layers: what they owe to their parts."""

import keras

from kseq.layers.layer import Layer


class Composite(Layer):
    """A layer that makes its parts by itself, and says what has been done to them.

    Keras saves the options of the layers that a model is given, and nothing of those
    that another layer makes. So this one names those that were frozen by themselves in
    its config, and those that are quantized beside the shapes that it was built with.
    Its parts have names that it gives them, and none that Keras counts up.

    Args:
        frozen_parts: The parts that are not trained, by their paths within the layer;
            what a config says of a layer whose parts had `trainable` set to False.
        **kwargs: The arguments of `keras.layers.Layer`.
    """

    def __init__(self, *, frozen_parts=(), **kwargs):
        super().__init__(**kwargs)
        self.frozen_parts = tuple(frozen_parts)  # until it is built

    def get_config(self):
        config, frozen = super().get_config(), self.frozen_parts
        if self.built and self.trainable:
            parts = [(name, part) for name, part in own_parts(self) if part.weights]
            frozen = [name for name, part in parts if not part.trainable]
        return {**config, "frozen_parts": list(frozen)} if frozen else config

    def get_build_config(self):
        config = super().get_build_config()
        modes = {
            name: quantization(part)
            for name, part in own_parts(self)
            if is_quantized(part)
        }
        return {**config, "quantized": modes} if modes else config

    def build_from_config(self, config):
        modes = (config or {}).get("quantized", {})
        super().build_from_config(config)
        for name, part in own_parts(self):
            if name in modes and not is_quantized(part):  # as one is that was given
                mode = keras.saving.deserialize_keras_object(modes[name])
                part.quantize(config=mode)


def freeze_parts(layer):
    """Freeze the parts of a frozen layer, or some; call it at the end of `build`.

    Keras hands `trainable=False` of a constructor, or of a config, to no part that is
    made later.
    """
    if not layer.trainable:
        layer.trainable = True  # TensorFlow ignores a value that is there already
        layer.trainable = False
    frozen = getattr(layer, "frozen_parts", ())
    for name, part in own_parts(layer) if frozen else ():
        if name in frozen:
            part.trainable = False


def own_parts(layer):
    """The sublayers that a layer has built, at any depth, by their path within it."""
    start = f"{layer.path}/"
    for part in layer._flatten_layers(include_self=False):
        if (part.path or "").startswith(start):
            yield part.path.removeprefix(start), part


def quantization(layer):
    """Return what `quantize` was called with, in the form of a config."""
    config = getattr(layer, "quantization_config", None) or layer.quantization_mode
    return keras.saving.serialize_keras_object(config)


def is_quantized(layer):
    """Tell whether a layer holds another weight than the one it was built with."""
    return layer.quantization_mode is not None
