"""Dropout layers: of single values, fast on a CPU, and of whole sources.

Axes in shape comments: B batch, S steps, D features.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops, tree

from kseq.layers import backends, torch_kernels
from kseq.layers.layer import Layer
from kseq.layers.validation import rate
from kseq.typing import Config, Shape, Tensor, Tree


@keras.saving.register_keras_serializable(package="kseq")
class Dropout(Layer):
    """Dropout as in `keras.layers.Dropout`, in a tenth of the time.

    In training, each value of the input is dropped with probability `dropout`, and the
    others are divided by `1 - dropout`. A hash of the index `i` and the seed decides
    whether value `i` is dropped. It takes two rounds of a few integer operations, which
    a compiler fuses with the multiplication; the random generators of the backends take
    longer than the matrix products around them. PyTorch has no such compiler at hand:
    there, one random number decides for four values.

    Args:
        dropout: Fraction of the values to drop.
        seed: Integer seed of the choices, or None.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Floats of any shape.

    Returns:
        A tensor like `inputs`; outside of training, `inputs` itself.

    Raises:
        ValueError: `dropout` is not in [0, 1).

    Example:

    >>> import numpy as np
    >>> from kseq.layers import Dropout
    >>> dropped = np.array(Dropout(0.2)(np.ones((100, 100)), training=True))
    >>> np.unique(dropped).tolist(), bool(0.15 < (dropped == 0).mean() < 0.25)
    ([0.0, 1.25], True)

    References:
        - [Srivastava et al., 2014](https://jmlr.org/papers/v15/srivastava14a.html), 4
        - [Salmon et al., 2011](https://doi.org/10.1145/2063384.2063405) (random numbers
          from a counter)
    """

    def __init__(self, dropout: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dropout = rate("dropout", dropout)
        self.seed = seed
        self.seed_generator: Any = None
        if dropout:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        self.built = True

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        return inputs_shape

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training or not self.dropout:
            return inputs
        if not backends.has_unsigned_integers():
            return torch_kernels.dropout(inputs, self.dropout, self.seed_generator)
        bits = random_bits(ops.shape(inputs), self.seed_generator.next())
        is_kept = bits >= ops.cast(int(self.dropout * 2**32), "uint32")
        scaled = inputs * ops.cast(1 / (1 - self.dropout), inputs.dtype)
        return ops.where(is_kept, scaled, ops.zeros_like(scaled))

    def get_config(self) -> Config:
        return {**super().get_config(), "dropout": self.dropout, "seed": self.seed}


@keras.saving.register_keras_serializable(package="kseq")
class SourceDropout(Layer):
    """Dropout of whole sources: in training, zeros replace those of some examples.

    A model that sometimes has to generate without a source learns the distribution
    without it too; `kseq.decoding.Guidance` compares the two. The sources that are kept
    are not scaled.

    Args:
        dropout: Fraction of the examples that lose their source.
        seed: Integer seed of the choices, or None.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`, the embedded source; or several of them by name, which
            an example loses together.
        without_source: Whether to drop the sources of all examples, in training or not.

    Returns:
        Tensors like `sequences`, with their Keras masks.

    Raises:
        ValueError: `dropout` is not in [0, 1).

    Example:

    >>> import numpy as np
    >>> from kseq.layers import SourceDropout
    >>> rows = np.array(SourceDropout(0.2)(np.ones((100, 7, 5)), training=True))
    >>> sorted(set(rows.mean(axis=(1, 2)).tolist()))
    [0.0, 1.0]

    References:
        - [Ho and Salimans, 2022](https://arxiv.org/abs/2207.12598), 3.2, algorithm 1
    """

    def __init__(self, dropout: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dropout = rate("dropout", dropout)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        self.built = True

    def compute_output_shape(self, sequences_shape: Tree) -> Tree:
        return sequences_shape

    def call(
        self, sequences: Tree, without_source: bool = False, training: bool = False
    ) -> Tree:
        if without_source:
            return tree.map_structure(ops.zeros_like, sequences)
        if not training or not self.dropout:
            return sequences
        first = tree.flatten(sequences)[0]
        rows = (ops.shape(first)[0], *[1] * (len(first.shape) - 1))
        numbers = keras.random.uniform(rows, seed=self.seed_generator)  # B 1 1
        return tree.map_structure(
            lambda x: ops.where(numbers < self.dropout, ops.zeros_like(x), x), sequences
        )

    def get_config(self) -> Config:
        return {**super().get_config(), "dropout": self.dropout, "seed": self.seed}


def random_bits(shape: Sequence[int | Tensor], seed: Tensor) -> Tensor:
    """Return uniform 32-bit integers, computed from their indices and two seeds."""
    size = (
        math.prod(shape) if all(isinstance(n, int) for n in shape) else ops.prod(shape)
    )
    first, second = (ops.cast(word, "uint32") for word in (seed[0], seed[1]))
    place = ops.cast(ops.arange(size, dtype="int32"), "uint32")
    stream = second * ops.cast(0x9E3779B9, "uint32")  # nearby seeds far apart
    return ops.reshape(mix(mix(place + first) + stream), shape)


def mix(x: Tensor) -> Tensor:
    """Hash 32-bit integers one to one, so that each bit depends on all bits."""
    x = ops.bitwise_xor(x, ops.right_shift(x, 16)) * ops.cast(0x7FEB352D, "uint32")
    x = ops.bitwise_xor(x, ops.right_shift(x, 15)) * ops.cast(0x846CA68B, "uint32")
    return ops.bitwise_xor(x, ops.right_shift(x, 16))


def sequence_dropout(
    dropout: float, dtype: str | keras.DTypePolicy
) -> "SequenceDropout":
    """Return dropout for `(B, S, D)` that drops the same features at every step.

    One dropout mask per sequence regularizes recurrent networks better than a new one
    at each step, and needs S times fewer random numbers.
    """
    return SequenceDropout(dropout, noise_shape=(None, 1, None), dtype=dtype)


class SequenceDropout(keras.layers.Dropout):
    """Keras' dropout, with any number of axes before the steps."""

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if len(inputs.shape) == 3:
            return super().call(inputs, training=training)
        shape = ops.shape(inputs)
        rows = ops.reshape(inputs, (-1, *shape[-2:]))  # B S D
        return ops.reshape(super().call(rows, training=training), shape)
