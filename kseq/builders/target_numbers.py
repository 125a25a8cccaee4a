"""Layer that embeds numbers for a decoder and stores the components of its model.

Axes in shape comments: B batch, T target steps, F features, C covariates, D width.
"""

from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from kseq.layers import FeatureEmbedding
from kseq.layers.composition import Composite, freeze_parts
from kseq.typing import Config, Shape, Tensor

PARTS = ("source", "encoder", "decoder", "head")


@keras.saving.register_keras_serializable(package="kseq")
class TargetNumbers(Composite):
    """Vectors that a decoder reads: the previous step and the covariates.

    A step is `W x + U m + b`. For each feature that is NaN, that is unknown, `m` is 1
    and x is 0. All features are unknown before the first step. The vectors of the
    covariates, which belong to the step to be generated, are added.

    In the graph of a forecasting model this layer stores which layers are its
    components. So a graph that is called again, as by `keras.models.clone_model`, is
    still a forecasting model.

    Args:
        target: The `FeatureEmbedding` of the target.
        covariates: The `FeatureEmbedding` of covariates, of the same width, or None.
        places: Indices of the components among the operations of the graph, by name.
        num_operations: Number of operations of the graph.
        **kwargs: The arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        target: FeatureEmbedding,
        covariates: FeatureEmbedding | None = None,
        places: dict[str, int | None] | None = None,
        num_operations: int = 0,
        **kwargs: Any,
    ) -> None:
        # Half precision might corrupt large numbers, so the embeddings cast themselves.
        super().__init__(autocast=False, **kwargs)
        self.target = target
        self.covariates: Any = covariates
        self.missing = keras.layers.Dense(
            target.width, use_bias=False, dtype=self.dtype_policy, name="missing"
        )
        self.places, self.num_operations = places, num_operations

    def note_places(self, parts: Sequence[Any], operations: Sequence[Any]) -> None:
        """Store the indices of the components in the graph."""
        places = [None if part is None else operations.index(part) for part in parts]
        self.places = dict(zip(PARTS, places, strict=True))
        self.num_operations = len(operations)

    def build(
        self, numbers_shape: Shape, covariates_shape: Shape | None = None
    ) -> None:
        if not self.target.built:
            self.target.build(numbers_shape)
        if covariates_shape is not None and not self.covariates.built:
            self.covariates.build(covariates_shape)
        self.missing.build(numbers_shape)
        freeze_parts(self)

    def call(
        self,
        numbers: Tensor,
        covariates: Tensor | None = None,
        positions: Tensor | None = None,
        training: bool = False,
    ) -> Tensor:
        is_missing = ops.isnan(numbers)  # B T F
        numbers = ops.where(is_missing, ops.zeros_like(numbers), numbers)
        vectors = read(self.target, numbers, positions, training)  # B T D
        is_missing = ops.cast(is_missing, self.compute_dtype)
        vectors = vectors + self.missing(is_missing)
        if covariates is not None:
            if positions is not None:
                positions = positions[:, :1]  # B 1
            known = read(self.covariates, covariates, positions, training)
            vectors = vectors + known
        return vectors

    def get_config(self) -> Config:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "target": serialize(self.target),
            "covariates": self.covariates and serialize(self.covariates),
            "places": self.places and dict(self.places),
            "num_operations": self.num_operations,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        parts = {
            name: config[name] and keras.saving.deserialize_keras_object(config[name])
            for name in ("target", "covariates")
        }
        return cls(**{**config, **parts})


def read(
    embedding: FeatureEmbedding,
    features: Tensor,
    positions: Tensor | None,
    training: bool,
) -> Tensor:
    """Return the vectors of steps, with their positions if the embedding has any."""
    has_places = positions is not None and embedding.takes_positions
    options = {"positions": positions} if has_places else {}
    return embedding(features, training=training, **options)
