"""The base of layers that say what they return, whatever the call asks for."""

import keras


class Layer(keras.layers.Layer):
    """A Keras layer with a `compute_output_shape`, that of a call without options.

    Keras would take it for all calls, of another dtype or with `return_state=True` too;
    so what a call returns is found by following it.
    """

    def compute_output_spec(self, *args, **kwargs):
        return keras.Operation.compute_output_spec(self, *args, **kwargs)
