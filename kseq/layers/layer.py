"""The base of layers that say what they return, whatever the call asks for."""

import keras
from keras import tree

HALF = ("float16", "bfloat16")


class Layer(keras.layers.Layer):
    """A Keras layer with a `compute_output_shape`, that of a call without options.

    Keras would take it for all calls, of another dtype or with `return_state=True` too;
    so what a call returns is found by following it. On PyTorch Keras follows it with
    weights that are not cast, and finds float32 where a layer computes in half
    precision; all floats that a layer of kseq returns have its `compute_dtype`.
    """

    def compute_output_spec(self, *args, **kwargs):
        found = keras.Operation.compute_output_spec(self, *args, **kwargs)
        if self.compute_dtype not in HALF:
            return found
        return tree.map_structure(self._in_compute_dtype, found)

    def _in_compute_dtype(self, symbol):
        if symbol is None or symbol.dtype != "float32":
            return symbol
        return keras.KerasTensor(symbol.shape, self.compute_dtype)
