"""Checks of token id inputs before Keras casts them."""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops, tree

from kseq.layers import backends
from kseq.layers.named_parts import check_names
from kseq.typing import Tree

if TYPE_CHECKING:  # a mixin of models
    from keras import Model
else:
    Model = object


class TokenInputs(Model):
    """Mixin of models with inputs that may be token ids.

    Keras silently casts floats to integers, and adds or removes an axis of size one.
    """

    def __call__(self, inputs: Tree, *args: Any, **kwargs: Any) -> Any:
        inputs = ids_of_replicas(self, in_order(self.input, inputs))
        check_token_ids(self, inputs)
        return super().__call__(inputs, *args, **kwargs)

    def call(
        self,
        inputs: Tree,
        training: bool | None = None,
        mask: Tree = None,
        **kwargs: Any,
    ) -> Any:
        inputs = in_order(self.input, inputs)
        check_token_ids(self, inputs)  # on JAX, `fit` and `predict` start here
        return super().call(inputs, training=training, mask=mask, **kwargs)


def in_order(symbols: Tree, inputs: Tree) -> Tree:
    """Return dictionaries of inputs in the order of the model's inputs.

    On PyTorch, Keras flattens nested dictionaries in their own order.
    """
    if not isinstance(symbols, dict) or not isinstance(inputs, dict):
        return inputs
    if symbols.keys() != inputs.keys():
        return inputs  # it is reported later
    return {name: in_order(symbol, inputs[name]) for name, symbol in symbols.items()}


def check_token_ids(model: keras.Model, inputs: Tree) -> None:
    """Raise if inputs that are read as ids are floats or have other axes."""
    try:
        tree.assert_same_structure(model.input, inputs)
    except (TypeError, ValueError):
        if len(model.inputs) > 1 or tree.is_nested(inputs):
            check_source_names(model, inputs)
            return  # Keras reports other missing inputs
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


def check_source_names(model: keras.Model, inputs: Tree) -> None:
    """Raise if a source of several inputs has missing or unknown ones."""
    is_by_name = isinstance(model.input, dict) and isinstance(inputs, dict)
    symbols = model.input.get("source") if is_by_name else None
    if isinstance(symbols, dict) and "source" in inputs:
        check_names("source", inputs["source"], symbols)


def ids_of_replicas(model: keras.Model, inputs: Tree) -> Tree:
    """Return the inputs with ids cast back to integers.

    Under a TensorFlow strategy Keras builds metrics and losses on the mean of the
    replicas' batches, in double precision.
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
        return inputs  # Keras reports missing inputs


def is_integer(x: Any) -> bool:
    return "int" in keras.backend.standardize_dtype(x.dtype)
