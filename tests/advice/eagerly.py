"""Eager execution of compiled functions, for tests where compiling takes longer."""

import contextlib

import keras

from tests.helpers import without_jit


@contextlib.contextmanager
def eagerly():
    """Run the functions called in this context eagerly."""
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
