"""Quantizers: vectors as one of finitely many codes, with a gradient that goes through.

Rounding has no gradient. Both quantizers put the code in the place of the vector and
hand the gradient of the code back to the vector as it is (straight-through), as
`x + stop_gradient(code - x)` does.

Axes in shape comments: M vectors, N codes, D size of a code. Dots stand for any axes.
"""

import math
import numbers

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

MARGIN = 1e-3  # of the outermost levels, so that rounding reaches them


@keras.saving.register_keras_serializable(package="kseq")
class FiniteScalarQuantizer(Layer):
    """Rounds each of a few features to one of its levels.

    With L levels a feature becomes `round(f(x)) / floor(L / 2)`, where
    `f(x) = h tanh(x + s) - o` keeps it between the outermost levels: `h` is half of
    L - 1, a thousandth more, `o` is 1/2 for an even L and else 0, and `s` lets 0 stay
    0. A code is the product of the levels, so all of them are in reach from the first
    step: there is no codebook to learn, nor to collapse, and no further loss.

    Args:
        levels: The number of levels of each feature, at least 2. `(8, 5, 5, 5)` gives
            1,000 codes and `(8, 6, 5)` gives 240, as in the paper.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        features: `(..., D)`, a feature for each of the levels.

    Returns:
        Codes `(..., D)`, from -1 to 1.

    Raises:
        ValueError: A number of levels is not an integer of at least 2, or there is not
            a feature for each of them.

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

    def __init__(self, levels, **kwargs):
        # Half precision might round to another level, so `call` casts by itself.
        super().__init__(autocast=False, **kwargs)
        self.levels = checked_levels(levels)
        self.num_codes, self.width = math.prod(self.levels), len(self.levels)

    def build(self, features_shape):
        check_width(features_shape, self.width, f"levels={self.levels}")

    def compute_output_shape(self, features_shape):
        return features_shape

    def call(self, features):
        levels = ops.convert_to_tensor(self.levels, "float32")  # D
        half = (levels - 1) * (1 + MARGIN) / 2
        offset = ops.cast(levels % 2 == 0, "float32") / 2
        shift = ops.arctanh(offset / half)
        bounded = ops.tanh(ops.cast(features, "float32") + shift) * half - offset
        rounded = straight_through(bounded, ops.round(bounded))
        return ops.cast(rounded / (levels // 2), self.compute_dtype)

    def codes_to_ids(self, codes):
        """The numbers of codes `(..., D)`: int32 `(...)`, below `num_codes`."""
        steps, places = self._digits()
        halves = ops.cast(steps // 2, "float32")
        digits = ops.round((ops.cast(codes, "float32") + 1) * halves)
        return ops.sum(ops.cast(digits, "int32") * places, axis=-1)

    def ids_to_codes(self, ids):
        """The codes `(..., D)` of these numbers, integers `(...)`."""
        steps, places = self._digits()
        ids = checked_ids(ids, self.num_codes)
        digits = ops.expand_dims(ops.cast(ids, "int32"), -1) // places % steps
        halves = ops.cast(steps // 2, "float32")
        codes = ops.cast(digits, "float32") / halves - 1
        return ops.cast(codes, self.compute_dtype)

    def _digits(self):
        """The levels, and what a step of each adds to the number of a code: `(D,)`."""
        places = [math.prod(self.levels[:i]) for i in range(self.width)]
        return tuple(ops.convert_to_tensor(x, "int32") for x in (self.levels, places))

    def get_config(self):
        return {**super().get_config(), "levels": list(self.levels)}


@keras.saving.register_keras_serializable(package="kseq")
class VectorQuantizer(Layer):
    """Replaces each vector by the nearest of a codebook that follows the vectors.

    In training a code moves to the mean of the vectors that it stands for, an
    exponential moving average: `n = d n + (1 - d) count`, `m = d m + (1 - d) sum`,
    `code = m / n`. A code for which `n` falls below `restart_below` begins anew as one
    of the vectors at hand, drawn at random; in a new layer that is how all begin. The
    commitment loss `c mean((x - code)^2)`, which `fit` adds, keeps vectors near their
    codes.

    Args:
        num_codes: Number of codes N.
        width: Size D of a code.
        decay: Share `d` that a moving average keeps at each step, in [0, 1).
        restart_below: A code that stands for fewer vectors of a batch, on average,
            begins anew. 0 to let codes be.
        commitment: Weight `c` of the commitment loss.
        seed: Integer, for what codes begin anew as; or None.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        features: `(..., D)`.
        training: Whether the codes follow.

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
        num_codes,
        width,
        decay=0.99,
        restart_below=1.0,
        commitment=0.25,
        seed=None,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)  # as above
        self.num_codes = positive_integer("num_codes", num_codes)
        self.width = positive_integer("width", width)
        self.decay = rate("decay", decay)
        self.restart_below = not_negative("restart_below", restart_below)
        self.commitment = not_negative("commitment", commitment)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, features_shape):
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

    def compute_output_shape(self, features_shape):
        return features_shape

    def call(self, features, training=False):
        vectors = ops.cast(ops.reshape(features, (-1, self.width)), "float32")  # M D
        ids = self._nearest(vectors)  # M
        codes = ops.take(self.codebook, ids, axis=0)  # M D
        distance = ops.square(vectors - ops.stop_gradient(codes))
        loss = self.commitment * ops.mean(distance)
        self.add_loss(ops.cast(loss, keras.config.floatx()))  # that of other losses
        if training:
            self._follow(ops.stop_gradient(vectors), ids)
        codes = ops.reshape(straight_through(vectors, codes), ops.shape(features))
        return ops.cast(codes, self.compute_dtype)

    def _nearest(self, vectors):
        """The number of the nearest code of each vector `(M, D)`: int32 `(M,)`."""
        codebook = ops.convert_to_tensor(self.codebook)
        products = matmul(vectors, ops.transpose(codebook))  # M N
        distances = ops.sum(ops.square(codebook), axis=-1) - 2 * products
        return ops.cast(ops.argmin(distances, axis=-1), "int32")

    def _follow(self, vectors, ids):
        """Moves the codes towards the vectors `(M, D)` that they stand for."""
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

    def _moved(self, average, value):
        """The moving average, with one more value."""
        average = ops.convert_to_tensor(average)
        return self.decay * average + (1 - self.decay) * value

    def codes_to_ids(self, codes):
        """The numbers of codes `(..., D)`: int32 `(...)`, below `num_codes`."""
        self._check_built()
        vectors = ops.cast(ops.reshape(codes, (-1, self.width)), "float32")
        return ops.reshape(self._nearest(vectors), ops.shape(codes)[:-1])

    def ids_to_codes(self, ids):
        """The codes `(..., D)` of these numbers, integers `(...)`."""
        self._check_built()
        ids = checked_ids(ids, self.num_codes)
        return ops.cast(ops.take(self.codebook, ids, axis=0), self.compute_dtype)

    def _check_built(self):
        if not self.built:
            raise ValueError(
                "A codebook must be built before it is read. Received: "
                f"{self.name}, which is not. Call it with features first, or "
                f"`build((None, {self.width}))`."
            )

    def get_config(self):
        return {
            **super().get_config(),
            "num_codes": self.num_codes,
            "width": self.width,
            "decay": self.decay,
            "restart_below": self.restart_below,
            "commitment": self.commitment,
            "seed": self.seed,
        }


def straight_through(x, code):
    """The code, with the gradient of `x`."""
    return x + ops.stop_gradient(code - x)


def checked_levels(levels):
    """The levels as a tuple of integers of at least 2."""
    is_list = isinstance(levels, (list, tuple)) and levels
    if not is_list or not all(map(is_level, levels)):
        raise ValueError(
            "`levels` must be a list of integers of at least 2, one for each feature, "
            f"such as (8, 5, 5, 5). Received: levels={levels!r}."
        )
    return tuple(int(level) for level in levels)


def is_level(value):
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_integer and value >= 2


def checked_ids(ids, num_codes):
    """Returns ids unless it can be seen that some are not from 0 to below the number.

    In a compiled function nothing can be seen.
    """
    ids = ops.convert_to_tensor(ids)
    seen = concrete_values(ids)
    if seen is not None and ((seen < 0) | (seen >= num_codes)).any():
        raise ValueError(
            f"`ids` must be from 0 to {num_codes - 1}. Received: ids from {seen.min()} "
            f"to {seen.max()}. `codes_to_ids(codes)` gives such ids."
        )
    return ids


def check_width(shape, width, given):
    """Refuse features that are known to be of another size than the codes."""
    if not shape or shape[-1] != width:
        raise ValueError(
            f"The last axis must have a size of {width}, that of a code. Received: "
            f"features of shape {tuple(shape)} with {given}. A dense layer before this "
            "one makes it so."
        )
