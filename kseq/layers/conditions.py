"""Embeddings of conditions that are not sequences: a class or a feature vector.

Axes in shape comments: B batch, F features, D width.
"""

from typing import Any

import keras
from keras import ops

from kseq.layers.composition import freeze_parts
from kseq.layers.initializers import initializer_of
from kseq.layers.sequence_embedding import SequenceEmbedding
from kseq.layers.validation import known_ids, positive_integer
from kseq.typing import Config, Initializer, Shape, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class ClassEmbedding(SequenceEmbedding):
    """A learned vector for each class, as a memory of one step.

    Args:
        num_classes: Number of classes, numbered from 0.
        width: Size D of the vectors.
        embeddings_initializer: Initializer of the table.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        labels: Integers `(B,)`.

    Returns:
        Vectors `(B, 1, D)`.

    Raises:
        ValueError: A size is not a positive integer, or the labels are not classes
            `(B,)`.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import ClassEmbedding
    >>> tuple(ClassEmbedding(num_classes=10, width=5)(np.array([7, 2])).shape)
    (2, 1, 5)

    References:
        - [Mirza and Osindero, 2014](https://arxiv.org/abs/1411.1784), 3.2
    """

    def __init__(
        self,
        num_classes: int,
        width: int,
        embeddings_initializer: Initializer = "uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = positive_integer("num_classes", num_classes)
        self.width = positive_integer("width", width)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.embedding = keras.layers.Embedding(
            self.num_classes,
            self.width,
            embeddings_initializer=initializer_of(
                "embeddings", self.embeddings_initializer
            ),
            dtype=self.dtype_policy,
            name="embedding",
        )

    @property
    def vocabulary_size(self) -> int:
        return self.num_classes

    def symbolic_input(self, name: str) -> Tensor:
        return keras.Input((), dtype="int32", name=name)

    def build(self, labels_shape: Shape) -> None:
        self.embedding.build(labels_shape)
        freeze_parts(self)

    def compute_output_shape(self, labels_shape: Shape) -> Shape:
        return (*labels_shape, 1, self.width)

    def call(self, labels: Tensor) -> Tensor:
        if len(labels.shape) != 1:
            raise ValueError(
                "`labels` must be one class for each example, shape (B,). Received: "
                f"labels of shape {tuple(labels.shape)}. Use a `TokenEmbedding` for "
                "sequences."
            )
        vectors = self.embedding(known_ids("labels", labels, self.num_classes))  # B D
        return ops.expand_dims(vectors, 1)  # B 1 D

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "width": self.width,
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
        }


@keras.saving.register_keras_serializable(package="kseq")
class VectorEmbedding(SequenceEmbedding):
    """A vector `W x + b`, as a memory of one step, for example of image features.

    Args:
        num_features: Number of features F.
        width: Size D of the vectors.
        kernel_initializer: Initializer of `W`.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        features: Floats `(B, F)`.

    Returns:
        Vectors `(B, 1, D)`.

    Raises:
        ValueError: A size is not a positive integer, or the features are not `(B, F)`.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import VectorEmbedding
    >>> tuple(VectorEmbedding(num_features=3, width=5)(np.ones((2, 3))).shape)
    (2, 1, 5)

    References:
        - [Vinyals et al., 2015](https://arxiv.org/abs/1411.4555), 3.1
    """

    def __init__(
        self,
        num_features: int,
        width: int,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_features = positive_integer("num_features", num_features)
        self.width = positive_integer("width", width)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.projection = keras.layers.Dense(
            self.width,
            kernel_initializer=initializer_of("kernel", self.kernel_initializer),
            dtype=self.dtype_policy,
            name="projection",
        )

    def symbolic_input(self, name: str) -> Tensor:
        return keras.Input((self.num_features,), name=name)

    def build(self, features_shape: Shape) -> None:
        self.projection.build((None, self.num_features))
        freeze_parts(self)

    def compute_output_shape(self, features_shape: Shape) -> Shape:
        return (features_shape[0], 1, self.width)

    def call(self, features: Tensor) -> Tensor:
        if len(features.shape) != 2 or features.shape[-1] != self.num_features:
            raise ValueError(
                "`features` must be one vector for each example, shape (B, "
                "num_features). Received: features of shape "
                f"{tuple(features.shape)} with num_features={self.num_features}. Use a "
                "`FeatureEmbedding` for series."
            )
        return ops.expand_dims(self.projection(features), 1)  # B 1 D

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_features": self.num_features,
            "width": self.width,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
