"""A way to run compiled functions step by step, where compiling takes longer."""

import contextlib

import keras

from tests.helpers import without_jit


@contextlib.contextmanager
def eagerly():
    """Runs what is called inside as it is written, without a graph."""
    if keras.backend.backend() != "tensorflow":
        with without_jit():
            yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
