"""Pooling layers: mean, max, last step, class token and attention.

They reduce a sequence to one vector. Only real steps are read, so padding never affects
the result. A sequence without a real step gives zeros.

Axes in shape comments: B batch, S steps, D features, U units.
"""

from typing import Any

import keras
from keras import ops

from kseq.layers.attention import add_kernel, cast_like, weighted_sum
from kseq.layers.backends import matmul
from kseq.layers.initializers import initializer_of
from kseq.layers.layer import Layer
from kseq.layers.masking import apply_mask, as_boolean_mask, step_mask
from kseq.layers.sums import mean_of_steps
from kseq.layers.validation import positive_integer, sequence_shape
from kseq.typing import Config, Initializer, Shape, Tensor, TensorLike


@keras.saving.register_keras_serializable(package="kseq")
class MeanPooling(Layer):
    """Mean of the steps.

    `sum(x_s) / n` over the n real steps, summed in at least float32.

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        mask: Boolean `(B, S)`, True where a step is real. Defaults to the Keras mask
            of `sequences`.

    Returns:
        Vectors `(B, D)`, without a mask. A sequence without a real step gives zeros.

    Raises:
        ValueError: The mask contains values other than booleans or 0 and 1.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import MeanPooling
    >>> sequences = np.array([[[1.0], [3.0], [99.0]]])
    >>> np.array(MeanPooling()(sequences, mask=[[True, True, False]])).tolist()
    [[2.0]]

    References:
        - [Iyyer et al., 2015](https://aclanthology.org/P15-1162/)
    """

    def call(self, sequences: Tensor, mask: Tensor | None = None) -> Tensor:
        mask = real_steps(sequences, mask)
        return mean_of_steps(apply_mask(sequences, mask), mask)

    def compute_output_shape(self, sequences_shape: Shape) -> Shape:
        batch, _, width = sequence_shape("sequences", sequences_shape)
        return (batch, width)

    def compute_mask(
        self, sequences: Tensor, previous_mask: Tensor | None = None
    ) -> None:
        return None


@keras.saving.register_keras_serializable(package="kseq")
class MaxPooling(Layer):
    """Maximum of each feature over the steps.

    `max(x_s)` over the real steps: a feature that is large at any step is kept.

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        mask: Boolean `(B, S)`, True where a step is real. Defaults to the Keras mask
            of `sequences`.

    Returns:
        Vectors `(B, D)`, without a mask. A sequence without a real step gives zeros.

    Raises:
        ValueError: The mask contains values other than booleans or 0 and 1.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import MaxPooling
    >>> sequences = np.array([[[-1.0], [-3.0], [99.0]]])
    >>> np.array(MaxPooling()(sequences, mask=[[True, True, False]])).tolist()
    [[-1.0]]

    References:
        - [Collobert et al., 2011](https://www.jmlr.org/papers/v12/collobert11a.html),
          3.3.2
    """

    def call(self, sequences: Tensor, mask: Tensor | None = None) -> Tensor:
        sequences, mask = one_step_at_least(sequences, mask)
        largest = ops.max(apply_mask(sequences, mask, float("-inf")), axis=1)  # B D
        return ops.where(ops.any(mask, axis=1, keepdims=True), largest, 0.0)

    def compute_output_shape(self, sequences_shape: Shape) -> Shape:
        batch, _, width = sequence_shape("sequences", sequences_shape)
        return (batch, width)

    def compute_mask(
        self, sequences: Tensor, previous_mask: Tensor | None = None
    ) -> None:
        return None


@keras.saving.register_keras_serializable(package="kseq")
class LastStepPooling(Layer):
    """Last real step.

    `x_n`. Here a forward recurrent network has read the whole sequence. The backward
    half of a bidirectional one has read only one step, so use another pooling for it.

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        mask: Boolean `(B, S)`, True where a step is real. Defaults to the Keras mask
            of `sequences`.

    Returns:
        Vectors `(B, D)`, without a mask. A sequence without a real step gives zeros.

    Raises:
        ValueError: The mask contains values other than booleans or 0 and 1.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import LastStepPooling
    >>> sequences = np.array([[[1.0], [3.0], [99.0]]])
    >>> np.array(LastStepPooling()(sequences, mask=[[True, True, False]])).tolist()
    [[3.0]]

    References:
        - [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215), 2
    """

    def call(self, sequences: Tensor, mask: Tensor | None = None) -> Tensor:
        sequences, mask = one_step_at_least(sequences, mask)
        steps = ops.arange(ops.shape(sequences)[1], dtype="int32")  # S
        last = ops.max(ops.where(mask, steps, -1), axis=1, keepdims=True)  # B 1
        return ops.sum(apply_mask(sequences, ops.equal(steps, last)), axis=1)  # B D

    def compute_output_shape(self, sequences_shape: Shape) -> Shape:
        batch, _, width = sequence_shape("sequences", sequences_shape)
        return (batch, width)

    def compute_mask(
        self, sequences: Tensor, previous_mask: Tensor | None = None
    ) -> None:
        return None


@keras.saving.register_keras_serializable(package="kseq")
class ClassToken(Layer):
    """Learned class token in front of each sequence.

    `[c; x_1; ...; x_n]`. An encoder that reads in both directions, such as a
    Transformer, summarizes the sequence at this step; `ClassTokenPooling` returns it.

    Args:
        embeddings_initializer: Initializer of the vector.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        mask: Boolean `(B, S)`, True where a step is real. Defaults to the Keras mask
            of `sequences`.

    Returns:
        Sequences `(B, 1 + S, D)`. A Keras mask is kept, with True in front.

    Raises:
        ValueError: The mask contains values other than booleans or 0 and 1.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import ClassToken
    >>> tuple(ClassToken()(np.ones((2, 7, 5))).shape)
    (2, 8, 5)

    References:
        - [Devlin et al., 2019](https://arxiv.org/abs/1810.04805), 3
        - [Dosovitskiy et al., 2021](https://arxiv.org/abs/2010.11929), 3.1
    """

    def __init__(
        self, embeddings_initializer: Initializer = "uniform", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    def build(self, sequences_shape: Shape) -> None:
        sequence_shape("sequences", sequences_shape)
        self.embedding = self.add_weight(
            shape=(1, 1, sequences_shape[-1]),
            initializer=initializer_of("embeddings", self.embeddings_initializer),
            name="embedding",
        )

    def compute_output_shape(self, sequences_shape: Shape) -> Shape:
        batch, steps, width = sequence_shape("sequences", sequences_shape)
        return (batch, None if steps is None else 1 + steps, width)

    def compute_mask(
        self, sequences: Tensor, previous_mask: Tensor | None = None
    ) -> Tensor | None:
        if previous_mask is None:
            return None
        mask = as_boolean_mask(previous_mask)
        return ops.pad(mask, ((0, 0), (1, 0)), constant_values=True)  # B 1+S

    def call(self, sequences: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, _, width = ops.shape(sequences)
        [embedding] = cast_like(sequences, self.embedding)  # 1 1 D
        token = ops.broadcast_to(embedding, (batch, 1, width))
        return ops.concatenate([token, sequences], axis=1)  # B 1+S D

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "embeddings_initializer": keras.initializers.serialize(
                self.embeddings_initializer
            ),
        }


@keras.saving.register_keras_serializable(package="kseq")
class ClassTokenPooling(Layer):
    """First real step, where `ClassToken` puts the class token.

    Returns `x_1`. Put a bidirectional encoder between `ClassToken` and this layer.
    Without one, the first step does not depend on the others.

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        mask: Boolean `(B, S)`, True where a step is real. Defaults to the Keras mask
            of `sequences`.

    Returns:
        Vectors `(B, D)`, without a mask. A sequence without a real step gives zeros.

    Raises:
        ValueError: The mask contains values other than booleans or 0 and 1.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import ClassTokenPooling
    >>> sequences = np.array([[[1.0], [3.0], [99.0]]])
    >>> np.array(ClassTokenPooling()(sequences)).tolist()
    [[1.0]]

    References:
        - [Devlin et al., 2019](https://arxiv.org/abs/1810.04805), 3
        - [Dosovitskiy et al., 2021](https://arxiv.org/abs/2010.11929), 3.1
    """

    def call(self, sequences: Tensor, mask: Tensor | None = None) -> Tensor:
        sequences, mask = one_step_at_least(sequences, mask)
        length = ops.shape(sequences)[1]
        steps = ops.arange(length, dtype="int32")  # S
        first = ops.min(ops.where(mask, steps, length), axis=1, keepdims=True)  # B 1
        return ops.sum(apply_mask(sequences, ops.equal(steps, first)), axis=1)  # B D

    def compute_output_shape(self, sequences_shape: Shape) -> Shape:
        batch, _, width = sequence_shape("sequences", sequences_shape)
        return (batch, width)

    def compute_mask(
        self, sequences: Tensor, previous_mask: Tensor | None = None
    ) -> None:
        return None


@keras.saving.register_keras_serializable(package="kseq")
class AttentionPooling(Layer):
    """Weighted mean of the steps with learned attention.

    `sum(a_s x_s)` with `a = softmax(v . tanh(W x_s + b))` over the real steps. This is
    Bahdanau's additive attention with one learned query for all sequences, where `b` is
    the projected query. The weights show which steps a classifier attends to.

    Args:
        units: Width U of the hidden layer. Defaults to the width of the sequence.
        kernel_initializer: Initializer of `W` and `v`.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        mask: Boolean `(B, S)`, True where a step is real. Defaults to the Keras mask
            of `sequences`.
        return_attention_scores: Whether to return the weights as well.

    Returns:
        Vectors `(B, D)`, without a mask, or `(vectors, weights)` with weights `(B, S)`.
        A sequence without a real step gives zeros.

    Raises:
        ValueError: `units` is not a positive integer, or the mask contains values other
            than booleans or 0 and 1.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import AttentionPooling
    >>> pooled, weights = AttentionPooling(units=3)(
    ...     np.ones((2, 4, 5)), return_attention_scores=True)
    >>> tuple(pooled.shape), tuple(weights.shape)
    ((2, 5), (2, 4))

    References:
        - [Yang et al., 2016](https://aclanthology.org/N16-1174/), 2.2
        - [Lin et al., 2017](https://arxiv.org/abs/1703.03130), 2.1 (several queries)
    """

    def __init__(
        self,
        units: int | None = None,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = None if units is None else positive_integer("units", units)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, sequences_shape: Shape) -> None:
        width = sequences_shape[-1]
        units = width if self.units is None else self.units
        self.key_kernel = add_kernel(self, "key", width, units)
        self.bias = self.add_weight(shape=(units,), initializer="zeros", name="bias")
        self.score_kernel = add_kernel(self, "score", units, 1)

    def call(
        self,
        sequences: Tensor,
        mask: Tensor | None = None,
        return_attention_scores: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        mask = real_steps(sequences, mask)
        steps = apply_mask(sequences, mask)  # B S D
        key_kernel, bias, score_kernel = cast_like(
            steps, self.key_kernel, self.bias, self.score_kernel
        )
        hidden = ops.tanh(matmul(steps, key_kernel) + bias)  # B S U
        scores = ops.swapaxes(matmul(hidden, score_kernel), 1, 2)  # B 1 S
        pooled, weights = weighted_sum(scores, steps, mask)
        pooled, weights = ops.squeeze(pooled, 1), ops.squeeze(weights, 1)  # B D, B S
        return (pooled, weights) if return_attention_scores else pooled

    def compute_output_shape(self, sequences_shape: Shape) -> Shape:
        batch, _, width = sequence_shape("sequences", sequences_shape)
        return (batch, width)

    def compute_mask(
        self, sequences: Tensor, previous_mask: Tensor | None = None
    ) -> None:
        return None

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def real_steps(sequences: Tensor, mask: TensorLike | None) -> Tensor:
    """Return the boolean mask `(B, S)` of the real steps: all if `mask` is None."""
    sequence_shape("sequences", sequences.shape)
    if mask is None:
        return ops.ones(ops.shape(sequences)[:2], dtype="bool")
    return step_mask(mask, sequences)


def one_step_at_least(
    sequences: Tensor, mask: TensorLike | None
) -> tuple[Tensor, Tensor]:
    """Return sequences and the mask of their real steps, with S = 0 padded to S = 1."""
    mask = real_steps(sequences, mask)
    if sequences.shape[1] != 0:
        return sequences, mask
    return ops.pad(sequences, ((0, 0), (0, 1), (0, 0))), ops.pad(mask, ((0, 0), (0, 1)))
