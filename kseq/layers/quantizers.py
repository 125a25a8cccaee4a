"""Quantizers: replace vectors with discrete codes, with a straight-through gradient.

Rounding has no useful gradient. Both quantizers replace a vector `x` with a code and
pass the gradient of the code to `x` unchanged: `x + stop_gradient(code - x)`.

Axes in shape comments: M vectors, N codes, D size of a code. Dots stand for any axes.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kseq.layers.backends import matmul
from kseq.layers.initializers import initializer_of
from kseq.layers.layer import Layer
from kseq.layers.validation import (
    concrete_values,
    not_negative,
    positive_integer,
    rate,
)
from kseq.typing import Config, Shape, Tensor, TensorLike

MARGIN = 1e-3  # widens the range, so that rounding reaches the outermost levels


@keras.saving.register_keras_serializable(package="kseq")
class FiniteScalarQuantizer(Layer):
    """Finite scalar quantization: each feature is rounded to one of a few levels.

    With L levels, a feature becomes `round(f(x)) / floor(L / 2)`, where
    `f(x) = h tanh(x + s) - o` keeps it between the outermost levels. `h` is
    1.001 (L - 1) / 2, `o` is 1/2 for an even L and 0 otherwise, and `s` makes
    `f(0) = 0`. All combinations of levels are codes, usable from the first step on.
    There is no codebook that must be learned or might collapse, and no extra loss.

    Args:
        levels: Number of levels of each feature, at least 2. `(8, 5, 5, 5)` gives
            1,000 codes and `(8, 6, 5)` gives 240, as in the paper.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        features: `(..., D)`, one feature for each entry of `levels`.

    Returns:
        Codes `(..., D)`, from -1 to 1.

    Raises:
        ValueError: A number of levels is not an integer of at least 2, or the number of
            features is not that of `levels`.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import FiniteScalarQuantizer
    >>> quantizer = FiniteScalarQuantizer((3, 5))
    >>> codes = quantizer(np.array([[0.2, -3.0], [4.0, 0.4]]))
    >>> np.array(codes).tolist()
    [[0.0, -1.0], [1.0, 0.5]]
    >>> ids = quantizer.codes_to_ids(codes)
    >>> np.array(ids).tolist(), quantizer.num_codes
    ([1, 11], 15)

    References:
        - [Mentzer et al., 2023](https://arxiv.org/abs/2309.15505), 3.1, A.1
    """

    def __init__(self, levels: Sequence[int], **kwargs: Any) -> None:
        # Half precision might round to another level, so `call` casts the features.
        super().__init__(autocast=False, **kwargs)
        self.levels = checked_levels(levels)
        self.num_codes, self.width = math.prod(self.levels), len(self.levels)

    def build(self, features_shape: Shape) -> None:
        check_width(features_shape, self.width, f"levels={self.levels}")

    def compute_output_shape(self, features_shape: Shape) -> Shape:
        return features_shape

    def call(self, features: Tensor) -> Tensor:
        levels = ops.convert_to_tensor(self.levels, "float32")  # D
        half = (levels - 1) * (1 + MARGIN) / 2
        offset = ops.cast(levels % 2 == 0, "float32") / 2
        shift = ops.arctanh(offset / half)
        bounded = ops.tanh(ops.cast(features, "float32") + shift) * half - offset
        rounded = straight_through(bounded, ops.round(bounded))
        return ops.cast(rounded / (levels // 2), self.compute_dtype)

    def codes_to_ids(self, codes: TensorLike) -> Tensor:
        """Return the ids of codes `(..., D)`: int32 `(...)`, below `num_codes`."""
        steps, places = self._digits()
        halves = ops.cast(steps // 2, "float32")
        digits = ops.round((ops.cast(codes, "float32") + 1) * halves)
        return ops.sum(ops.cast(digits, "int32") * places, axis=-1)

    def ids_to_codes(self, ids: TensorLike) -> Tensor:
        """Return the codes `(..., D)` of ids, integers `(...)`."""
        steps, places = self._digits()
        ids = checked_ids(ids, self.num_codes)
        digits = ops.expand_dims(ops.cast(ids, "int32"), -1) // places % steps
        halves = ops.cast(steps // 2, "float32")
        codes = ops.cast(digits, "float32") / halves - 1
        return ops.cast(codes, self.compute_dtype)

    def _digits(self) -> tuple[Tensor, Tensor]:
        """Return, both `(D,)`, the levels and the place values of an id's digits."""
        places = [math.prod(self.levels[:i]) for i in range(self.width)]
        return tuple(ops.convert_to_tensor(x, "int32") for x in (self.levels, places))

    def get_config(self) -> Config:
        return {**super().get_config(), "levels": list(self.levels)}


@keras.saving.register_keras_serializable(package="kseq")
class VectorQuantizer(Layer):
    """Vector quantization with a codebook learned by moving averages.

    Each vector is replaced by the nearest code. In training, a code moves to the mean
    of the vectors assigned to it, by an exponential moving average:
    `n = d n + (1 - d) count`, `m = d m + (1 - d) sum`, `code = m / n`. If `n` falls
    below `restart_below`, the code restarts as a random vector of the batch; in a new
    layer all codes start this way. `fit` adds the commitment loss
    `c mean((x - code)^2)`, which keeps vectors near their codes.

    Args:
        num_codes: Number of codes N.
        width: Size D of a code.
        decay: Share `d` that a moving average keeps at each step, in [0, 1).
        restart_below: A code with fewer vectors per batch, on average, restarts. 0
            disables restarts.
        commitment: Weight `c` of the commitment loss.
        seed: Integer seed of restarts, or None.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        features: `(..., D)`.
        training: Whether to update the codebook.

    Returns:
        Codes `(..., D)`.

    Raises:
        ValueError: A size is not a positive integer, `decay` is not in [0, 1), a number
            is negative, or the features are not as wide as the codes.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import VectorQuantizer
    >>> quantizer = VectorQuantizer(num_codes=7, width=3)
    >>> codes = quantizer(np.ones((2, 4, 4, 3)))
    >>> ids = quantizer.codes_to_ids(codes)
    >>> tuple(codes.shape), tuple(ids.shape)
    ((2, 4, 4, 3), (2, 4, 4))

    References:
        - [van den Oord et al., 2017](https://arxiv.org/abs/1711.00937), 3.1, 3.2, A.1
        - [Dhariwal et al., 2020](https://arxiv.org/abs/2005.00341), 3.2 (restarts)
    """

    def __init__(
        self,
        num_codes: int,
        width: int,
        decay: float = 0.99,
        restart_below: float = 1.0,
        commitment: float = 0.25,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # `call` casts the features
        self.num_codes = positive_integer("num_codes", num_codes)
        self.width = positive_integer("width", width)
        self.decay = rate("decay", decay)
        self.restart_below = not_negative("restart_below", restart_below)
        self.commitment = not_negative("commitment", commitment)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, features_shape: Shape) -> None:
        check_width(features_shape, self.width, f"width={self.width}")
        options = {"trainable": False, "dtype": "float32", "autocast": False}
        scale = keras.initializers.RandomNormal(self.width**-0.5, seed=self.seed)
        self.codebook = self.add_weight(
            shape=(self.num_codes, self.width),
            initializer=initializer_of("codebook", scale),
            name="codebook",
            **options,
        )
        self.counts = self.add_weight(
            shape=(self.num_codes,), initializer="zeros", name="counts", **options
        )
        self.sums = self.add_weight(
            shape=(self.num_codes, self.width),
            initializer="zeros",
            name="sums",
            **options,
        )

    def compute_output_shape(self, features_shape: Shape) -> Shape:
        return features_shape

    def call(self, features: Tensor, training: bool = False) -> Tensor:
        vectors = ops.cast(ops.reshape(features, (-1, self.width)), "float32")  # M D
        ids = self._nearest(vectors)  # M
        codes = ops.take(self.codebook, ids, axis=0)  # M D
        distance = ops.square(vectors - ops.stop_gradient(codes))
        loss = self.commitment * ops.mean(distance)
        self.add_loss(ops.cast(loss, keras.config.floatx()))  # dtype of other losses
        if training:
            self._update(ops.stop_gradient(vectors), ids)
        codes = ops.reshape(straight_through(vectors, codes), ops.shape(features))
        return ops.cast(codes, self.compute_dtype)

    def _nearest(self, vectors: Tensor) -> Tensor:
        """Return the id of the nearest code of each vector `(M, D)`: int32 `(M,)`."""
        codebook = ops.convert_to_tensor(self.codebook)
        products = matmul(vectors, ops.transpose(codebook))  # M N
        distances = ops.sum(ops.square(codebook), axis=-1) - 2 * products
        return ops.cast(ops.argmin(distances, axis=-1), "int32")

    def _update(self, vectors: Tensor, ids: Tensor) -> None:
        """Move the codes towards the vectors `(M, D)` assigned to them."""
        is_of = ops.one_hot(ids, self.num_codes, dtype="float32")  # M N
        counts = self._moved(self.counts, ops.sum(is_of, axis=0))  # N
        sums = self._moved(self.sums, matmul(ops.transpose(is_of), vectors))  # N D
        draws = keras.random.randint(
            (self.num_codes,), 0, ops.shape(vectors)[0], seed=self.seed_generator
        )
        fresh = ops.take(vectors, draws, axis=0)  # N D
        begins = counts < self.restart_below  # N
        counts = ops.where(begins, self.restart_below, counts)
        begins, rows = ops.expand_dims(begins, -1), ops.expand_dims(counts, -1)  # N 1
        sums = ops.where(begins, fresh * rows, sums)
        before = ops.convert_to_tensor(self.codebook)
        known = ops.where(rows > 0, sums / ops.maximum(rows, 1e-12), before)
        self.counts.assign(counts)
        self.sums.assign(sums)
        self.codebook.assign(known)

    def _moved(self, average: keras.Variable, value: Tensor) -> Tensor:
        """Return a moving average after one more value."""
        average = ops.convert_to_tensor(average)
        return self.decay * average + (1 - self.decay) * value

    def codes_to_ids(self, codes: TensorLike) -> Tensor:
        """Return the ids of codes `(..., D)`: int32 `(...)`, below `num_codes`."""
        self._check_built()
        vectors = ops.cast(ops.reshape(codes, (-1, self.width)), "float32")
        return ops.reshape(self._nearest(vectors), ops.shape(codes)[:-1])

    def ids_to_codes(self, ids: TensorLike) -> Tensor:
        """Return the codes `(..., D)` of ids, integers `(...)`."""
        self._check_built()
        ids = checked_ids(ids, self.num_codes)
        return ops.cast(ops.take(self.codebook, ids, axis=0), self.compute_dtype)

    def _check_built(self) -> None:
        if not self.built:
            raise ValueError(
                "A codebook must be built before it is used. Received: "
                f"{self.name}, which is not built. Call it with features first, or "
                f"call `build((None, {self.width}))`."
            )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_codes": self.num_codes,
            "width": self.width,
            "decay": self.decay,
            "restart_below": self.restart_below,
            "commitment": self.commitment,
            "seed": self.seed,
        }


def straight_through(x: Tensor, code: Tensor) -> Tensor:
    """Return the code, and pass its gradient to `x` unchanged."""
    return x + ops.stop_gradient(code - x)


def checked_levels(levels: Any) -> tuple[int, ...]:
    """Return the levels as a tuple; raise unless they are integers of at least 2."""
    is_list = isinstance(levels, (list, tuple)) and levels
    if not is_list or not all(map(is_level, levels)):
        raise ValueError(
            "`levels` must be a list of integers of at least 2, one for each feature, "
            f"such as (8, 5, 5, 5). Received: levels={levels!r}."
        )
    return tuple(int(level) for level in levels)


def is_level(value: Any) -> bool:
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_integer and value >= 2


def checked_ids(ids: TensorLike, num_codes: int) -> Tensor:
    """Return ids as a tensor; raise if any is below 0 or not below `num_codes`.

    In a compiled function the ids cannot be checked.
    """
    ids = ops.convert_to_tensor(ids)
    seen = concrete_values(ids)
    if seen is not None and ((seen < 0) | (seen >= num_codes)).any():
        raise ValueError(
            f"`ids` must be from 0 to {num_codes - 1}. Received: ids from {seen.min()} "
            f"to {seen.max()}. `codes_to_ids(codes)` returns valid ids."
        )
    return ids


def check_width(shape: Shape, width: int, given: str) -> None:
    """Raise unless the last axis of features has the size of the codes."""
    if not shape or shape[-1] != width:
        raise ValueError(
            f"The last axis must have a size of {width}, that of a code. Received: "
            f"features of shape {tuple(shape)} with {given}. Put a dense layer with "
            f"{width} units before this layer."
        )
