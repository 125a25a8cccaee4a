"""Output layer that shares the weights of an embedding.

Axes in shape comments: B batch, T steps, D features, V vocabulary.
"""

from typing import Any, Self

import keras
from keras import ops

from kseq.layers.backends import matmul
from kseq.layers.composition import Composite, freeze_parts, is_quantized
from kseq.layers.embeddings import TokenEmbedding
from kseq.layers.masking import apply_mask
from kseq.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class TiedHead(Composite):
    """Token logits from a shared embedding table (weight tying): `x E^T + b`.

    Tokens that are similar as inputs get similar logits. And the table, the largest
    matrix of a small model, is stored once instead of twice.

    Args:
        embedding: The `TokenEmbedding` whose table E `(V, D)` to use.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, T, D)`.
        mask: Boolean `(B, T)`, True where a step is real. Other steps are read as
            zeros. Defaults to the Keras mask of `inputs`, which the logits keep.

    Returns:
        Logits `(B, T, V)`.

    Raises:
        ValueError: The width of the inputs is not that of the embedding.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import TiedHead, TokenEmbedding
    >>> embedding = TokenEmbedding(vocabulary_size=11, width=5)
    >>> tuple(TiedHead(embedding)(embedding(np.array([[4, 2, 0]]))).shape)
    (1, 3, 11)

    References:
        - [Press and Wolf, 2017](https://arxiv.org/abs/1608.05859), 2
    """

    embedding: TokenEmbedding

    def __init__(self, embedding: TokenEmbedding, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(embedding, TokenEmbedding):
            raise ValueError(
                "`embedding` must be a `TokenEmbedding`, whose table the head shares. "
                f"Received: embedding={embedding!r}."
            )
        self.__dict__["embedding"] = embedding  # `build` makes it a tracked sublayer
        self.supports_masking = True

    def __call__(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not self.embedding.built and isinstance(inputs, keras.KerasTensor):
            self.__dict__["embedding"] = embedding_before(inputs, self.embedding)
        return super().__call__(inputs, *args, **kwargs)

    def build(self, inputs_shape: Shape) -> None:
        self.embedding = self.embedding
        if inputs_shape[-1] != self.embedding.width:
            raise ValueError(
                "A tied head needs inputs of the width of its embedding. Received: "
                f"width {inputs_shape[-1]} with an embedding of width "
                f"{self.embedding.width}. Use `width={inputs_shape[-1]}` for the "
                "embedding, or "
                f"`keras.layers.Dense({self.embedding.vocabulary_size})` as the head."
            )
        if not self.embedding.built:
            self.embedding.build((None, None))
        self.bias = self.add_weight(
            shape=(self.embedding.vocabulary_size,), initializer="zeros", name="bias"
        )
        freeze_parts(self)

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        return (*inputs_shape[:-1], self.embedding.vocabulary_size)

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        inputs = apply_mask(inputs, mask)
        table = ops.cast(self._table(), self.compute_dtype)
        logits = matmul(inputs, ops.transpose(table))  # B T V
        return logits + ops.cast(self.bias, self.compute_dtype)

    def _table(self) -> Tensor:
        embedding = self.embedding.embedding
        if not is_quantized(embedding):
            return embedding.embeddings  # V D
        return embedding(ops.arange(self.embedding.vocabulary_size, dtype="int32"))

    def get_config(self) -> Config:
        embedding = keras.saving.serialize_keras_object(self.embedding)
        return {**super().get_config(), "embedding": embedding}

    def get_build_config(self) -> None:
        return None  # so a call builds it, which may find the embedding in its graph

    @classmethod
    def from_config(cls, config: Config) -> Self:
        unbuilt = {**config["embedding"], "build_config": None}
        embedding = keras.saving.deserialize_keras_object(unbuilt)
        return cls(**{**config, "embedding": embedding})


def embedding_before(inputs: Tensor, embedding: TokenEmbedding) -> TokenEmbedding:
    """Return the embedding of the same name in the inputs' graph, or else `embedding`.

    `keras.models.clone_model` copies the layers of a graph one by one. A cloned tied
    head would get a separate embedding instead of that of the graph.
    """
    graph = keras.Function(keras.utils.get_source_inputs(inputs), inputs)
    for layer in graph.operations:
        if type(layer) is type(embedding) and layer.name == embedding.name:
            return layer
    return embedding
