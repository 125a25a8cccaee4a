"""The layer that reads numbers for a decoder, and knows how its model writes.

Axes in shape comments: B batch, T target steps, F features, C covariates, D width.
"""

import keras
from keras import ops

from kseq.layers.composition import Composite, freeze_parts

PARTS = ("source", "encoder", "decoder", "head")


@keras.saving.register_keras_serializable(package="kseq")
class TargetNumbers(Composite):
    """The vectors that a decoder reads: of the step before, and of what is known.

    A step is `W x + U m + b`, where `m` is 1 for each feature that is NaN, not known,
    and x is 0 there. Before the first step nothing is known. The vectors of covariates,
    which belong to the step that is to be written, are added.

    In the graph of a model that writes numbers it holds what no other layer knows:
    which of the layers are its parts. So a graph that is called anew, as
    `keras.models.clone_model` does, is still a model that writes.

    Args:
        target: The `FeatureEmbedding` of the target.
        covariates: The `FeatureEmbedding` of covariates, of the same width, or None.
        places: Where the parts stand among the operations of the graph, by name.
        num_operations: Number of operations of the graph.
        **kwargs: The arguments of `keras.layers.Layer`.
    """

    def __init__(
        self, target, covariates=None, places=None, num_operations=0, **kwargs
    ):
        # Half precision might lose a large number, so the embeddings cast themselves.
        super().__init__(autocast=False, **kwargs)
        self.target, self.covariates = target, covariates
        self.missing = keras.layers.Dense(
            target.width, use_bias=False, dtype=self.dtype_policy, name="missing"
        )
        self.places, self.num_operations = places, num_operations

    def note_places(self, parts, operations):
        """Notes where the parts stand in the graph."""
        places = [None if part is None else operations.index(part) for part in parts]
        self.places = dict(zip(PARTS, places, strict=True))
        self.num_operations = len(operations)

    def build(self, numbers_shape, covariates_shape=None):
        if not self.target.built:
            self.target.build(numbers_shape)
        if covariates_shape is not None and not self.covariates.built:
            self.covariates.build(covariates_shape)
        self.missing.build(numbers_shape)
        freeze_parts(self)

    def call(self, numbers, covariates=None, positions=None, training=False):
        is_missing = ops.isnan(numbers)  # B T F
        numbers = ops.where(is_missing, ops.zeros_like(numbers), numbers)
        vectors = read(self.target, numbers, positions, training)  # B T D
        is_missing = ops.cast(is_missing, self.compute_dtype)
        vectors = vectors + self.missing(is_missing)
        if covariates is not None:
            if positions is not None:
                positions = positions[:, :1]  # B 1
            vectors = vectors + read(self.covariates, covariates, positions, training)
        return vectors

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "target": serialize(self.target),
            "covariates": self.covariates and serialize(self.covariates),
            "places": self.places and dict(self.places),
            "num_operations": self.num_operations,
        }

    @classmethod
    def from_config(cls, config):
        parts = {
            name: config[name] and keras.saving.deserialize_keras_object(config[name])
            for name in ("target", "covariates")
        }
        return cls(**{**config, **parts})


def read(embedding, features, positions, training):
    """The vectors of steps; an embedding with positions is told where they are."""
    has_places = positions is not None and embedding.takes_positions
    options = {"positions": positions} if has_places else {}
    return embedding(features, training=training, **options)
