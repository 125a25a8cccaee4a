"""Embeddings of several named inputs: separate, or summed to one sequence.

Axes in shape comments: B batch, S steps, D width.
"""

from collections.abc import Mapping
from typing import Any, Self

import keras
from keras import ops

from kseq.layers.composition import freeze_parts
from kseq.layers.named_parts import (
    check_names,
    check_parts,
    deserialize_parts,
    serialize_parts,
)
from kseq.layers.sequence_embedding import SequenceEmbedding
from kseq.typing import Config, Shape, Tensor, Tree


class SeveralEmbeddings(SequenceEmbedding):
    """Base class of embeddings with a dictionary of inputs, one embedding per name.

    `padding`, `vocabulary_size` and `num_positions` are dictionaries with the value of
    each embedding.
    """

    def __init__(
        self, embeddings: Mapping[str, SequenceEmbedding], **kwargs: Any
    ) -> None:
        # Half precision might lose the values that mark padding. Each embedding casts.
        super().__init__(autocast=False, **kwargs)
        example = f"`{type(self).__name__}({{'word': TokenEmbedding(8_000, 64)}})`"
        self.embeddings = check_parts(
            "embeddings", embeddings, SequenceEmbedding, example
        )
        self.supports_masking = True

    def _of_each(self, attribute: str) -> dict[str, Any]:
        return {name: getattr(x, attribute) for name, x in self.embeddings.items()}

    @property
    def padding(self) -> dict[str, float | None]:
        return self._of_each("padding")

    @property
    def vocabulary_size(self) -> dict[str, int | None]:
        return self._of_each("vocabulary_size")

    @property
    def num_positions(self) -> dict[str, int | None]:
        return self._of_each("num_positions")

    def symbolic_input(self, name: str) -> Tree:
        return {
            key: embedding.symbolic_input(f"{name}_{key}")
            for key, embedding in self.embeddings.items()
        }

    def build(self, inputs_shape: Mapping[str, Tree]) -> None:
        check_names("inputs", inputs_shape, self.embeddings)
        for name, embedding in self.embeddings.items():
            if not embedding.built:
                embedding.build(inputs_shape[name])
        freeze_parts(self)

    def masks(
        self,
        inputs: Mapping[str, Tree],
        previous_mask: Mapping[str, Tree] | None = None,
    ) -> dict[str, Tree]:
        """Return the mask of each input by name, None for an input without one."""
        before = previous_mask or dict.fromkeys(self.embeddings)
        return {
            name: embedding.compute_mask(inputs[name], before[name])
            for name, embedding in self.embeddings.items()
        }

    def vectors(self, inputs: Mapping[str, Tree]) -> dict[str, Tensor]:
        """Return the vectors of each input by name."""
        check_names("inputs", inputs, self.embeddings)
        return {
            name: embedding(inputs[name]) for name, embedding in self.embeddings.items()
        }

    def get_config(self) -> Config:
        return {**super().get_config(), "embeddings": serialize_parts(self.embeddings)}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**{**config, "embeddings": deserialize_parts(config["embeddings"])})


@keras.saving.register_keras_serializable(package="kseq")
class NamedEmbeddings(SeveralEmbeddings):
    """Separate embeddings of several named sources.

    `kseq.encoder_decoder(source={"lemma": 40, "tags": 30})` is shorthand for it. Each
    source has its own length. `JoinedEncoders` takes the outputs.

    Args:
        embeddings: Dictionary of embeddings, such as `TokenEmbedding`. Several names
            may share one embedding.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Dictionary with the input of each embedding.

    Returns:
        Dictionary of vectors `(B, S, D)`, each with its Keras mask.

    Raises:
        ValueError: `embeddings` is not a dictionary of embeddings, or the names of the
            inputs differ.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import NamedEmbeddings, TokenEmbedding
    >>> embedding = NamedEmbeddings(
    ...     {"lemma": TokenEmbedding(11, 5), "tags": TokenEmbedding(7, 3)}
    ... )
    >>> inputs = {"lemma": np.array([[4, 5, 6, 7]]), "tags": np.array([[2, 3]])}
    >>> {name: tuple(vectors.shape) for name, vectors in embedding(inputs).items()}
    {'lemma': (1, 4, 5), 'tags': (1, 2, 3)}

    References:
        - [Zoph and Knight, 2016](https://arxiv.org/abs/1601.00710), 3
    """

    def __init__(
        self, embeddings: Mapping[str, SequenceEmbedding], **kwargs: Any
    ) -> None:
        super().__init__(embeddings, **kwargs)
        if any(isinstance(x, NamedEmbeddings) for x in self.embeddings.values()):
            raise ValueError(
                "Each of several sources must be one sequence. Received: `embeddings` "
                f"with a {type(self).__name__} among them. List all sources in one "
                "dictionary, or use `SummedEmbedding` to sum several inputs into one "
                "sequence."
            )

    @property
    def width(self) -> dict[str, int]:
        return self._of_each("width")

    def compute_output_shape(
        self, inputs_shape: Mapping[str, Tree]
    ) -> dict[str, Shape]:
        return {
            name: embedding.compute_output_shape(inputs_shape[name])
            for name, embedding in self.embeddings.items()
        }

    def compute_mask(
        self,
        inputs: Mapping[str, Tree],
        previous_mask: Mapping[str, Tree] | None = None,
    ) -> dict[str, Tree]:
        return self.masks(inputs, previous_mask)

    def call(self, inputs: Mapping[str, Tree]) -> dict[str, Tensor]:
        return self.vectors(inputs)


@keras.saving.register_keras_serializable(package="kseq")
class SummedEmbedding(SeveralEmbeddings):
    """Sum of the embeddings of several inputs with the same steps.

    The inputs could be the words of a sentence and the part of speech of each word. A
    step is padding if all inputs that have a mask mark it as padding.

    Args:
        embeddings: Dictionary of embeddings of one width, such as `TokenEmbedding` and,
            for numbers, `FeatureEmbedding`.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Dictionary with the input of each embedding.

    Returns:
        Vectors `(B, S, D)`, with the Keras mask of the real steps.

    Raises:
        ValueError: `embeddings` is not a dictionary of embeddings of one width, or the
            names or the numbers of steps of the inputs differ.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import SummedEmbedding, TokenEmbedding
    >>> embedding = SummedEmbedding(
    ...     {"word": TokenEmbedding(11, 5), "tag": TokenEmbedding(7, 5)}
    ... )
    >>> inputs = {"word": np.array([[4, 5, 6]]), "tag": np.array([[2, 3, 2]])}
    >>> tuple(embedding(inputs).shape)
    (1, 3, 5)

    References:
        - [Sennrich and Haddow, 2016](https://arxiv.org/abs/1606.02892), 2.1 (features)
        - [Devlin et al., 2019](https://arxiv.org/abs/1810.04805), 3 (the sum)
    """

    def __init__(
        self, embeddings: Mapping[str, SequenceEmbedding], **kwargs: Any
    ) -> None:
        super().__init__(embeddings, **kwargs)
        widths = self._of_each("width")
        if len(set(widths.values())) > 1:
            raise ValueError(
                "`embeddings` must have one width, since their vectors are summed. "
                f"Received: widths {widths}."
            )

    @property
    def width(self) -> int:
        return next(iter(self.embeddings.values())).width

    @property
    def padding(self) -> dict[str, float | None]:
        padding = super().padding
        if all(each is None for each in padding.values()):
            return padding
        # The other inputs mark padding steps, so any value may pad these.
        return {name: 0.0 if x is None else x for name, x in padding.items()}

    def compute_output_shape(self, inputs_shape: Mapping[str, Tree]) -> Shape:
        shapes = [
            embedding.compute_output_shape(inputs_shape[name])
            for name, embedding in self.embeddings.items()
        ]
        return shapes[0]

    def compute_mask(
        self,
        inputs: Mapping[str, Tree],
        previous_mask: Mapping[str, Tree] | None = None,
    ) -> Tensor | None:
        is_real = None
        for mask in self.masks(inputs, previous_mask).values():
            if mask is not None:
                is_real = mask if is_real is None else ops.logical_or(is_real, mask)
        return is_real

    def call(self, inputs: Mapping[str, Tree]) -> Tensor:
        vectors = self.vectors(inputs)
        steps = {name: x.shape[1] for name, x in vectors.items()}
        if len(set(steps.values()) - {None}) > 1:
            raise ValueError(
                "The inputs must have the same steps, since their vectors are summed. "
                f"Received: {steps} steps. For sources of different lengths use "
                '`source={"lemma": ..., "tags": ...}`, with an encoder for each.'
            )
        total, *others = vectors.values()
        for other in others:
            total = total + other
        return total  # B S D


def each_embedding(embedding: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return the embeddings of single inputs that an embedding consists of."""
    if not isinstance(embedding, SeveralEmbeddings):
        return [embedding]
    return [x for part in embedding.embeddings.values() for x in each_embedding(part)]
