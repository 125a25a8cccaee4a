"""Base class of layers, which infers the output shapes and dtypes of any call."""

from typing import Any

import keras
from keras import tree

from kseq.typing import Tree

HALF = ("float16", "bfloat16")


class Layer(keras.layers.Layer):
    """Keras layer whose `compute_output_shape` describes a call without options.

    Keras would use that shape for all calls, also for one of another dtype or with
    `return_state=True`. So this class infers the outputs by tracing `call`. On PyTorch,
    Keras traces with weights that are not cast and finds float32 where a layer computes
    in half precision. All floats that a layer of kseq returns have its `compute_dtype`,
    so the dtype is corrected.
    """

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Tree:
        found = keras.Operation.compute_output_spec(self, *args, **kwargs)
        if self.compute_dtype not in HALF:
            return found
        return tree.map_structure(self._in_compute_dtype, found)

    def _in_compute_dtype(
        self, symbol: keras.KerasTensor | None
    ) -> keras.KerasTensor | None:
        if symbol is None or symbol.dtype != "float32":
            return symbol
        return keras.KerasTensor(symbol.shape, self.compute_dtype)
