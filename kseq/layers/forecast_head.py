"""The head of forecasting models: a distribution for each number.

Axes in shape comments: B batch, T steps, U units, F features, P parameters.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.distributions import distribution_of
from kseq.layers.initializers import initializer_of
from kseq.layers.masking import apply_mask
from kseq.layers.validation import positive_integer
from kseq.typing import Config, Initializer, Shape, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class ForecastHead(Composite):
    """The forecast of each number of a step: its mean, or a distribution.

    | distribution | parameters P of each number |
    |---|---|
    | `"mean"` | only the number itself |
    | `"gaussian"` | mean, standard deviation |
    | `"student_t"` | location, scale, degrees of freedom above 2: for rare outliers |
    | `"negative_binomial"` | mean m, dispersion a, for counts of variance `m + a m^2` |
    | `"quantiles"` | a quantile for each of the levels, which never cross |

    The numbers of a step are independent, given the steps before it. The distribution
    function of quantiles is linear between them, and beyond the outer ones.

    Args:
        distribution: One of these names.
        num_features: Number of features F of a step.
        quantiles: The levels of `"quantiles"`. Defaults to 0.05, then 0.1, 0.2 and so
            on up to 0.9, then 0.95.
        kernel_initializer: Initializer of the kernel.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, T, U)`, the outputs of a decoder.
        mask: Boolean `(B, T)`, True where a step is real. Masked inputs are replaced by
            zeros. Defaults to the Keras mask of `inputs`, which the parameters keep.

    Returns:
        Parameters `(B, T, F, P)`; for `"mean"` the means, `(B, T, F)`.

    Raises:
        ValueError: The distribution is unknown, a size is not a positive integer, or
            the levels do not increase between 0 and 1.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import ForecastHead
    >>> head = ForecastHead("gaussian", num_features=3)
    >>> parameters = head(np.ones((2, 5, 8)))
    >>> tuple(parameters.shape), tuple(head.mean(parameters).shape)
    ((2, 5, 3, 2), (2, 5, 3))

    References:
        - [Salinas et al., 2020](https://arxiv.org/abs/1704.04110), 3.1, 3.2
        - [Wen et al., 2017](https://arxiv.org/abs/1711.11053), 3 (quantiles)
    """

    def __init__(
        self,
        distribution: Literal[
            "mean", "gaussian", "student_t", "negative_binomial", "quantiles"
        ] = "gaussian",
        num_features: int = 1,
        quantiles: Sequence[float] | None = None,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.distribution, self.quantiles = distribution, quantiles
        self.formulas = distribution_of(distribution, quantiles)
        self.num_features = positive_integer("num_features", num_features)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.projection = keras.layers.Dense(
            self.num_features * self.formulas.num_parameters,
            kernel_initializer=initializer_of("kernel", self.kernel_initializer),
            dtype=self.dtype_policy,
            name="projection",
        )
        self.supports_masking = True

    @property
    def num_uniforms(self) -> int:
        """The number of random numbers for one sample; 0 if sampling is impossible."""
        return self.formulas.num_uniforms

    def build(self, inputs_shape: Shape) -> None:
        self.projection.build(inputs_shape)
        freeze_parts(self)

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        shape = (*inputs_shape[:-1], self.num_features)
        is_mean = self.distribution == "mean"
        return shape if is_mean else (*shape, self.formulas.num_parameters)

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        outputs = self.projection(apply_mask(inputs, mask))  # B T FP
        axes = self.num_features, self.formulas.num_parameters
        shape = (*ops.shape(outputs)[:-1], *axes)
        parameters = self.formulas.parameters(ops.reshape(outputs, shape))
        return ops.cast(parameters, self.compute_dtype)  # PyTorch may widen it

    def mean(self, parameters: Tensor) -> Tensor:
        """Return the means of distributions, `(..., F)`."""
        return self.formulas.mean(parameters)

    def draw(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        """Sample from distributions.

        Args:
            parameters: `(..., F, P)`.
            uniforms: Uniform random numbers in [0, 1), `(..., F, num_uniforms)`.

        Returns:
            Samples `(..., F)`.
        """
        return self.formulas.draw(parameters, uniforms)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "distribution": self.distribution,
            "num_features": self.num_features,
            "quantiles": self.quantiles,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
