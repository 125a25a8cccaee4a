"""Models that read token ids: what is none is refused, before Keras makes it one."""

import keras
from keras import ops, tree

from kseq.layers import backends
from kseq.layers.named_parts import check_names


class TokenInputs:
    """A base of models some of whose inputs may be token ids.

    Keras casts floats to integers without a word, and adds or takes away an axis of
    size one.
    """

    def __call__(self, inputs, *args, **kwargs):
        inputs = ids_of_replicas(self, inputs)
        check_token_ids(self, inputs)
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs, training=None, mask=None, **kwargs):
        check_token_ids(self, inputs)  # with JAX, `fit` and `predict` begin here
        return super().call(inputs, training=training, mask=mask, **kwargs)


def check_token_ids(model, inputs):
    """Raises if what the model reads as ids is floats, or has other axes."""
    try:
        tree.assert_same_structure(model.input, inputs)
    except (TypeError, ValueError):
        if len(model.inputs) > 1 or tree.is_nested(inputs):
            check_source_names(model, inputs)
            return  # Keras says what else is missing
    for symbol, given in zip(model.inputs, tree.flatten(inputs), strict=True):
        if not is_integer(symbol) or not hasattr(given, "dtype"):
            continue
        if is_integer(given) and len(given.shape) == len(symbol.shape):
            continue
        raise ValueError(
            f"`{symbol.name}` of {model.name} must be token ids, integers of shape "
            f"{symbol.shape}. Received: {keras.backend.standardize_dtype(given.dtype)} "
            f"of shape {tuple(given.shape)}. Ids that are floats become integers by "
            f'`.astype("int32")`; a series of numbers needs a model with '
            f"`{symbol.name}=kseq.layers.FeatureEmbedding(num_features, width)`."
        )


def check_source_names(model, inputs):
    """Raises if a source of several inputs lacks some, or has unknown ones."""
    is_by_name = isinstance(model.input, dict) and isinstance(inputs, dict)
    symbols = model.input.get("source") if is_by_name else None
    if isinstance(symbols, dict) and "source" in inputs:
        check_names("source", inputs["source"], symbols)


def ids_of_replicas(model, inputs):
    """Returns the inputs, ids in place of the means of ids.

    Under a strategy of TensorFlow Keras builds metrics and losses from the mean of the
    batches of the replicas, in double precision.
    """
    if not backends.is_building_replicas():
        return inputs
    try:
        return tree.map_structure(
            lambda x, given: ops.cast(given, x.dtype) if is_integer(x) else given,
            model.input,
            inputs,
        )
    except (TypeError, ValueError):
        return inputs  # Keras says what is missing


def is_integer(x):
    return "int" in keras.backend.standardize_dtype(x.dtype)
