"""Layers made of layers: what they owe to their parts."""


def freeze_parts(layer):
    """Freeze the parts of a frozen layer; call it at the end of `build`.

    Keras hands `trainable=False` of a constructor, or of a config, to no part that is
    made later.
    """
    if not layer.trainable:
        layer.trainable = True  # TensorFlow ignores a value that is there already
        layer.trainable = False
