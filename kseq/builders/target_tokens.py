"""The layer by which the graph of a model that writes knows how the model writes."""

import numbers

import keras

PARTS = ("source", "target", "encoder", "decoder", "head")


@keras.saving.register_keras_serializable(package="kseq")
class TargetTokens(keras.layers.Layer):
    """The token ids of a target, passed on as they are.

    In the graph of a model that writes it holds what no other layer knows: how the
    model writes, and which of its layers are its parts. So a graph that is called anew,
    as `keras.models.clone_model` does, is still a model that writes.

    Args:
        start_token_id: As for `kseq.encoder_decoder`.
        end_token_id: As for `kseq.encoder_decoder`.
        tie_embeddings: As for `kseq.encoder_decoder`.
        places: Where the parts stand among the operations of the graph, by name.
        num_operations: Number of operations of the graph.
    """

    def __init__(
        self,
        start_token_id,
        end_token_id,
        tie_embeddings=None,
        places=None,
        num_operations=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.start_token_id, self.end_token_id = start_token_id, end_token_id
        self.tie_embeddings = tie_embeddings
        self.places, self.num_operations = places, num_operations

    def note_places(self, parts, operations):
        """Notes where the parts stand in the graph."""
        places = [None if part is None else operations.index(part) for part in parts]
        self.places = dict(zip(PARTS, places, strict=True))
        self.num_operations = len(operations)

    def call(self, token_ids):
        return token_ids

    def get_config(self):
        return {
            **super().get_config(),
            "start_token_id": self.start_token_id,
            "end_token_id": self.end_token_id,
            "tie_embeddings": self.tie_embeddings,
            "places": self.places and dict(self.places),
            "num_operations": self.num_operations,
        }


def check_graph(model, is_whole):
    """Raises unless the graph of a model is that of the parts which it calls."""
    if not is_whole:
        raise ValueError(
            "A clone must have the graph of its model, the parts of which are called "
            "one by one besides. Received: the operations "
            f"{[operation.name for operation in model.operations]}. Leave out "
            "`call_function`, and let `clone_function` return a layer for each layer."
        )


def check_tokens(model, options):
    """Raises unless these are different tokens that the model can write."""
    size, ids = model.target_size, [getattr(model, option) for option in options]
    for option, token_id in zip(options, ids, strict=True):
        is_integer = isinstance(token_id, numbers.Integral)
        is_token = is_integer and 0 <= token_id < size
        if token_id == model.pad_token_id or not is_token:
            raise ValueError(
                f"`{option}` must be a token of the target vocabulary, which has "
                f"{size}, and not its padding, {model.pad_token_id}. Received: "
                f"{option}={token_id!r}. A vocabulary counts its special tokens "
                "too. A series of numbers has none; it is written by a model with "
                "`target=kseq.layers.FeatureEmbedding(num_features, 64)`."
            )
    if ids[0] == ids[1]:
        raise ValueError(
            "`start_token_id` and `end_token_id` must be different tokens. "
            f"Received: start_token_id={ids[0]}, end_token_id={ids[1]}."
        )
