"""Layer that stores the token ids and components of a generative model in its graph."""

import numbers
from collections.abc import Sequence
from typing import Any

import keras

from kseq.typing import Config, Tensor

PARTS = ("source", "target", "encoder", "decoder", "head")


@keras.saving.register_keras_serializable(package="kseq")
class TargetTokens(keras.layers.Layer):
    """Identity on the token ids of a target, with information about the model.

    In the graph of a generative model this layer stores what no other layer knows: the
    special tokens, and which layers are the components of the model. So a graph that is
    called again, as by `keras.models.clone_model`, is still a generative model.

    Args:
        start_token_id: As for `kseq.encoder_decoder`.
        end_token_id: As for `kseq.encoder_decoder`.
        tie_embeddings: As for `kseq.encoder_decoder`.
        places: Indices of the components among the operations of the graph, by name.
        num_operations: Number of operations of the graph.
    """

    def __init__(
        self,
        start_token_id: int,
        end_token_id: int,
        tie_embeddings: str | None = None,
        places: dict[str, int | None] | None = None,
        num_operations: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.start_token_id, self.end_token_id = start_token_id, end_token_id
        self.tie_embeddings = tie_embeddings
        self.places, self.num_operations = places, num_operations

    def note_places(self, parts: Sequence[Any], operations: Sequence[Any]) -> None:
        """Store the indices of the components in the graph."""
        places = [None if part is None else operations.index(part) for part in parts]
        self.places = dict(zip(PARTS, places, strict=True))
        self.num_operations = len(operations)

    def call(self, token_ids: Tensor) -> Tensor:
        return token_ids

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "start_token_id": self.start_token_id,
            "end_token_id": self.end_token_id,
            "tie_embeddings": self.tie_embeddings,
            "places": self.places and dict(self.places),
            "num_operations": self.num_operations,
        }


def check_graph(model: keras.Model, is_whole: Any) -> None:
    """Raise unless the graph of a model is complete."""
    if not is_whole:
        raise ValueError(
            "A clone must have the same graph as its model, since the components are "
            "also called separately. Received: the operations "
            f"{[operation.name for operation in model.operations]}. Leave out "
            "`call_function`, and let `clone_function` return a layer for each layer."
        )


def check_tokens(model: keras.Model, options: Sequence[str]) -> None:
    """Raise unless these are different tokens of the target vocabulary."""
    size, ids = model.target_size, [getattr(model, option) for option in options]
    for option, token_id in zip(options, ids, strict=True):
        is_integer = isinstance(token_id, numbers.Integral)
        is_token = is_integer and 0 <= token_id < size
        if token_id == model.pad_token_id or not is_token:
            raise ValueError(
                f"`{option}` must be a token of the target vocabulary of {size} "
                f"tokens, and not its padding, {model.pad_token_id}. Received: "
                f"{option}={token_id!r}. Count special tokens as part of the "
                "vocabulary. A series of numbers has no tokens; build the model with "
                "`target=kseq.layers.FeatureEmbedding(num_features, 64)`."
            )
    if ids[0] == ids[1]:
        raise ValueError(
            "`start_token_id` and `end_token_id` must be different tokens. "
            f"Received: start_token_id={ids[0]}, end_token_id={ids[1]}."
        )
