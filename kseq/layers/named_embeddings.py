"""Embeddings of several inputs by name: side by side, or summed to one sequence.

Axes in shape comments: B batch, S steps, D width.
"""

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


class SeveralEmbeddings(SequenceEmbedding):
    """The base of embeddings that read a dictionary, with an embedding for each name.

    What other embeddings say of their one input, `padding`, `vocabulary_size` and
    `num_positions`, these say of each by name.
    """

    def __init__(self, embeddings, **kwargs):
        # Half precision might lose what marks padding, so each part casts by itself.
        super().__init__(autocast=False, **kwargs)
        example = f"`{type(self).__name__}({{'word': TokenEmbedding(8_000, 64)}})`"
        self.embeddings = check_parts(
            "embeddings", embeddings, SequenceEmbedding, example
        )
        self.supports_masking = True

    def _of_each(self, attribute):
        return {name: getattr(x, attribute) for name, x in self.embeddings.items()}

    @property
    def padding(self):
        return self._of_each("padding")

    @property
    def vocabulary_size(self):
        return self._of_each("vocabulary_size")

    @property
    def num_positions(self):
        return self._of_each("num_positions")

    def symbolic_input(self, name):
        return {
            key: embedding.symbolic_input(f"{name}_{key}")
            for key, embedding in self.embeddings.items()
        }

    def build(self, inputs_shape):
        check_names("inputs", inputs_shape, self.embeddings)
        for name, embedding in self.embeddings.items():
            if not embedding.built:
                embedding.build(inputs_shape[name])
        freeze_parts(self)

    def masks(self, inputs, previous_mask=None):
        """The mask of each input by name, or None where there is none."""
        before = previous_mask or dict.fromkeys(self.embeddings)
        return {
            name: embedding.compute_mask(inputs[name], before[name])
            for name, embedding in self.embeddings.items()
        }

    def vectors(self, inputs):
        """The vectors of each input by name."""
        check_names("inputs", inputs, self.embeddings)
        return {
            name: embedding(inputs[name]) for name, embedding in self.embeddings.items()
        }

    def get_config(self):
        return {**super().get_config(), "embeddings": serialize_parts(self.embeddings)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "embeddings": deserialize_parts(config["embeddings"])})


@keras.saving.register_keras_serializable(package="kseq")
class NamedEmbeddings(SeveralEmbeddings):
    """An embedding for each of several sources, by name.

    `kseq.encoder_decoder(source={"lemma": 40, "tags": 30})` is short for it. Each
    source has its own length; `JoinedEncoders` reads what comes out.

    Args:
        embeddings: Dictionary of embeddings, such as `TokenEmbedding`. One may stand
            there under several names.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Dictionary of what each embedding reads.

    Returns:
        Dictionary of vectors `(B, S, D)`, each with its Keras mask.

    Raises:
        ValueError: `embeddings` are no embeddings with names, or the inputs have other
            names.

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

    def __init__(self, embeddings, **kwargs):
        super().__init__(embeddings, **kwargs)
        if any(isinstance(x, NamedEmbeddings) for x in self.embeddings.values()):
            raise ValueError(
                "Each of several sources must be one sequence. Received: `embeddings` "
                f"with a {type(self).__name__} among them. Name all sources in one "
                "dictionary; `SummedEmbedding` makes one sequence of several inputs."
            )

    @property
    def width(self):
        return self._of_each("width")

    def compute_output_shape(self, inputs_shape):
        return {
            name: embedding.compute_output_shape(inputs_shape[name])
            for name, embedding in self.embeddings.items()
        }

    def compute_mask(self, inputs, previous_mask=None):
        return self.masks(inputs, previous_mask)

    def call(self, inputs):
        return self.vectors(inputs)


@keras.saving.register_keras_serializable(package="kseq")
class SummedEmbedding(SeveralEmbeddings):
    """The sum of several vectors for each step: of a word, and of features beside it.

    The inputs have the same steps: the words of a sentence, say, and the part of speech
    of each. A step is padding where all of them that know padding say so.

    Args:
        embeddings: Dictionary of embeddings of one width, such as `TokenEmbedding` and,
            for numbers, `FeatureEmbedding`.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Dictionary of what each embedding reads.

    Returns:
        Vectors `(B, S, D)`, with the Keras mask of the steps that are no padding.

    Raises:
        ValueError: `embeddings` are no embeddings of one width with names, or the
            inputs have other names, or different numbers of steps.

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

    def __init__(self, embeddings, **kwargs):
        super().__init__(embeddings, **kwargs)
        widths = self._of_each("width")
        if len(set(widths.values())) > 1:
            raise ValueError(
                "`embeddings` must have one width, since their vectors are summed. "
                f"Received: widths {widths}."
            )

    @property
    def width(self):
        return next(iter(self.embeddings.values())).width

    @property
    def padding(self):
        padding = super().padding
        if all(each is None for each in padding.values()):
            return padding
        # The others say which steps are padding, so anything may fill these up.
        return {name: 0.0 if x is None else x for name, x in padding.items()}

    def compute_output_shape(self, inputs_shape):
        shapes = [
            embedding.compute_output_shape(inputs_shape[name])
            for name, embedding in self.embeddings.items()
        ]
        return shapes[0]

    def compute_mask(self, inputs, previous_mask=None):
        is_real = None
        for mask in self.masks(inputs, previous_mask).values():
            if mask is not None:
                is_real = mask if is_real is None else ops.logical_or(is_real, mask)
        return is_real

    def call(self, inputs):
        vectors = self.vectors(inputs)
        steps = {name: x.shape[1] for name, x in vectors.items()}
        if len(set(steps.values()) - {None}) > 1:
            raise ValueError(
                "The inputs must have the same steps, since their vectors are summed. "
                f"Received: {steps} steps. Sources of their own lengths are "
                '`source={"lemma": ..., "tags": ...}`, with an encoder each.'
            )
        total, *others = vectors.values()
        for other in others:
            total = total + other
        return total  # B S D


def each_embedding(embedding):
    """The embeddings that read one input each: the parts of one that reads several."""
    if not isinstance(embedding, SeveralEmbeddings):
        return [embedding]
    return [x for part in embedding.embeddings.values() for x in each_embedding(part)]
