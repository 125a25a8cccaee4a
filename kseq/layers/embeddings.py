"""Embedding layers: of token ids, and of the features of a series.

Axes in shape comments: B batch, S steps, F features, D width.
"""

import math
from typing import Any, Literal, Self

import keras
from keras import ops

from kseq.layers.composition import freeze_parts
from kseq.layers.dropout import sequence_dropout
from kseq.layers.initializers import initializer_of
from kseq.layers.masking import apply_mask, padding_mask
from kseq.layers.positions import (
    deserialize_positions,
    make_positions,
    most_positions,
    serialize_positions,
)
from kseq.layers.sequence_embedding import SequenceEmbedding
from kseq.layers.validation import integer, known_ids, positive_integer, rate
from kseq.typing import Config, Initializer, Shape, SupportsArray, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class TokenEmbedding(SequenceEmbedding):
    """A learned vector for each token.

    Its Keras mask excludes the padding token, so every following layer knows which
    steps are real.

    Args:
        vocabulary_size: Number of token ids, padding and the other special tokens
            included.
        width: Size D of the vectors.
        dropout: Fraction of each sequence's features to drop in training, the same ones
            at every step.
        pad_token_id: The id that pads short sequences.
        embeddings_initializer: Initializer of the table.
        positions: Position embedding, for a model that has no notion of order:
            `"sinusoidal"`, `"learned"`, a layer such as `SinusoidalPositions`, or None.
        max_length: Number of positions of `"learned"`.
        scale: Whether to multiply the vectors by the square root of the width before
            positions are added.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        token_ids: Integers `(B, S)`.
        positions: Integers `(B, S)`, the position of each token. Defaults to counting
            the real tokens. Ignored if the layer has no `positions`.

    Returns:
        Vectors `(B, S, D)`, with the Keras mask `token_ids != pad_token_id`.

    Raises:
        ValueError: A size is not a positive integer, `dropout` is not in [0, 1),
            `pad_token_id` is not in the vocabulary, `positions` is unknown, or a token
            id is not in the vocabulary. In a compiled function ids are not checked; on
            JAX the vectors of wrong ones are NaN.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import TokenEmbedding
    >>> vectors = TokenEmbedding(vocabulary_size=11, width=5)(np.array([[4, 2, 0]]))
    >>> tuple(vectors.shape)
    (1, 3, 5)

    References:
        - [Bengio et al., 2003](https://www.jmlr.org/papers/v3/bengio03a.html), 2
        - [Gal and Ghahramani, 2016](https://arxiv.org/abs/1512.05287), 4 (dropout)
        - [Vaswani et al., 2017](https://arxiv.org/abs/1706.03762), 3.4, 3.5
    """

    def __init__(
        self,
        vocabulary_size: int,
        width: int,
        dropout: float = 0.0,
        pad_token_id: int = 0,
        embeddings_initializer: Initializer = "uniform",
        positions: Literal["sinusoidal", "learned"] | keras.layers.Layer | None = None,
        max_length: int | None = None,
        scale: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = positive_integer("vocabulary_size", vocabulary_size)
        self.width = positive_integer("width", width)
        self.dropout = rate("dropout", dropout)
        self.pad_token_id = integer("pad_token_id", pad_token_id)
        if not 0 <= self.pad_token_id < self.vocabulary_size:
            raise ValueError(
                "`pad_token_id` must be a token of the vocabulary. Received: "
                f"pad_token_id={pad_token_id} with vocabulary_size={vocabulary_size}."
            )
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.embedding = keras.layers.Embedding(
            self.vocabulary_size,
            self.width,
            embeddings_initializer=initializer_of(
                "embeddings", self.embeddings_initializer
            ),
            dtype=self.dtype_policy,
            name="embedding",
        )
        self.positions, self.max_length = positions, max_length
        self.positions_layer = make_positions(positions, max_length, self.dtype_policy)
        self.scale = bool(scale)
        self.dropout_layer = sequence_dropout(self.dropout, self.dtype_policy)
        self.supports_masking = True

    @classmethod
    def from_vectors(cls, vectors: Tensor | SupportsArray, **options: Any) -> Self:
        """Create an embedding from pretrained vectors.

        `embedding.trainable = False` keeps them fixed, and `kseq.training.Unfreeze`
        trains them from some epoch on.

        Args:
            vectors: Floats `(V, D)`, one row for each token id, such as the `table` of
                `kseq.text.read_vectors`.
            **options: The other arguments of the class.

        Returns:
            A `TokenEmbedding(V, D)`.

        Raises:
            ValueError: The vectors do not have two axes.

        Example:

        >>> import numpy as np
        >>> from kseq.layers import TokenEmbedding
        >>> vectors = np.array([[0.0, 0.0], [0.5, 2.0], [1.0, 0.25]])
        >>> embedding = TokenEmbedding.from_vectors(vectors, dropout=0.2)
        >>> np.asarray(embedding(np.array([[1, 2]]))).tolist()
        [[[0.5, 2.0], [1.0, 0.25]]]
        """
        shape = tuple(getattr(vectors, "shape", ()))
        if len(shape) != 2:
            raise ValueError(
                "`vectors` must be an array of shape (V, D), a row for each token id. "
                f"Received: {type(vectors).__name__} of shape {shape}."
            )
        embedding = cls(*shape, **options)
        embedding.build((None, None))
        embedding.embedding.embeddings.assign(vectors)
        return embedding

    @property
    def padding(self) -> int:
        return self.pad_token_id

    @property
    def num_positions(self) -> int | None:
        return most_positions(self.positions_layer)

    @property
    def takes_positions(self) -> bool:  # type: ignore[override]
        return self.positions is not None

    def symbolic_input(self, name: str) -> Tensor:
        return keras.Input((None,), dtype="int32", name=name)

    def build(self, token_ids_shape: Shape) -> None:
        self.embedding.build(token_ids_shape)
        build_positions(self.positions_layer, self.width)
        freeze_parts(self)

    def compute_output_shape(self, token_ids_shape: Shape) -> Shape:
        return (*token_ids_shape, self.width)

    def compute_mask(
        self, token_ids: Tensor, previous_mask: Tensor | None = None
    ) -> Tensor:
        return padding_mask(token_ids, self.pad_token_id)

    def call(
        self, token_ids: Tensor, positions: Tensor | None = None, training: bool = False
    ) -> Tensor:
        token_ids = known_ids("token_ids", token_ids, self.vocabulary_size)
        vectors = self.embedding(token_ids)  # B S D
        if self.scale:
            vectors = vectors * self.width**0.5
        if self.positions_layer is not None:
            mask = self.compute_mask(token_ids)
            vectors = self.positions_layer(vectors, positions=positions, mask=mask)
        return self.dropout_layer(vectors, training=training)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "width": self.width,
            "dropout": self.dropout,
            "pad_token_id": self.pad_token_id,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
            "positions": serialize_positions(self.positions),
            "max_length": self.max_length,
            "scale": self.scale,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**deserialize_positions(config))


@keras.saving.register_keras_serializable(package="kseq")
class FeatureEmbedding(SequenceEmbedding):
    """A vector for each step of a continuous series: `W x + b`.

    Args:
        num_features: Number of features F of a step.
        width: Size D of the vectors.
        dropout: Fraction of each sequence's features to drop in training, the same ones
            at every step.
        mask_value: Value of padding, which may be NaN: a step whose features all have
            it is masked. None for no padding.
        kernel_initializer: Initializer of `W`.
        positions: Position embedding, for a model that has no notion of order:
            `"sinusoidal"`, `"learned"`, a layer such as `SinusoidalPositions`, or None.
        max_length: Number of positions of `"learned"`.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        features: Floats `(B, S, F)`.
        positions: Integers `(B, S)`, the position of each step. Defaults to counting
            the real steps. Ignored if the layer has no `positions`.

    Returns:
        Vectors `(B, S, D)`, with the Keras mask of the real steps if there is a
        `mask_value`.

    Raises:
        ValueError: A size is not a positive integer, `dropout` is not in [0, 1), or
            `positions` is unknown.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import FeatureEmbedding
    >>> tuple(FeatureEmbedding(num_features=3, width=5)(np.ones((2, 7, 3))).shape)
    (2, 7, 5)

    References:
        - [Zerveas et al., 2021](https://arxiv.org/abs/2010.02803), 3.1
    """

    def __init__(
        self,
        num_features: int,
        width: int,
        dropout: float = 0.0,
        mask_value: float | None = None,
        kernel_initializer: Initializer = "glorot_uniform",
        positions: Literal["sinusoidal", "learned"] | keras.layers.Layer | None = None,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> None:
        # Half precision may not represent the mask value, so `call` casts after it.
        super().__init__(autocast=False, **kwargs)
        self.num_features = positive_integer("num_features", num_features)
        self.width = positive_integer("width", width)
        self.dropout = rate("dropout", dropout)
        self.mask_value = mask_value
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.projection = keras.layers.Dense(
            self.width,
            kernel_initializer=initializer_of("kernel", self.kernel_initializer),
            dtype=self.dtype_policy,
            name="projection",
        )
        self.positions, self.max_length = positions, max_length
        self.positions_layer = make_positions(positions, max_length, self.dtype_policy)
        self.dropout_layer = sequence_dropout(self.dropout, self.dtype_policy)
        self.supports_masking = True

    @property
    def padding(self) -> float | None:
        return self.mask_value

    @property
    def num_positions(self) -> int | None:
        return most_positions(self.positions_layer)

    @property
    def takes_positions(self) -> bool:  # type: ignore[override]
        return self.positions is not None

    def symbolic_input(self, name: str) -> Tensor:
        return keras.Input((None, self.num_features), name=name)

    def build(self, features_shape: Shape) -> None:
        if features_shape[-1] != self.num_features:
            raise ValueError(
                "Each step must have `num_features` features. Received: shape "
                f"{tuple(features_shape)} with num_features={self.num_features}."
            )
        self.projection.build(features_shape)
        build_positions(self.positions_layer, self.width)
        freeze_parts(self)

    def compute_output_shape(self, features_shape: Shape) -> Shape:
        return (*features_shape[:-1], self.width)

    def compute_mask(
        self, features: Tensor, previous_mask: Tensor | None = None
    ) -> Tensor | None:
        if self.mask_value is None:
            return previous_mask
        if math.isnan(self.mask_value):
            return ops.any(ops.logical_not(ops.isnan(features)), axis=-1)  # B S
        return ops.any(ops.not_equal(features, self.mask_value), axis=-1)

    def call(
        self,
        features: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        training: bool = False,
    ) -> Tensor:
        mask = self.compute_mask(features, mask)
        features = apply_mask(features, mask)
        vectors = self.projection(ops.cast(features, self.compute_dtype))  # B S D
        if self.positions_layer is not None:
            vectors = self.positions_layer(vectors, positions=positions, mask=mask)
        return self.dropout_layer(vectors, training=training)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_features": self.num_features,
            "width": self.width,
            "dropout": self.dropout,
            "mask_value": self.mask_value,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "positions": serialize_positions(self.positions),
            "max_length": self.max_length,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**deserialize_positions(config))


def build_positions(positions_layer: keras.layers.Layer | None, width: int) -> None:
    """Build a layer of positions unless it is None or already built."""
    if positions_layer is not None and not positions_layer.built:
        positions_layer.build((None, None, width))
