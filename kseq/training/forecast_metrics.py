"""Metrics of forecasts: the CRPS, and the coverage of intervals.

Axes in shape comments: B batch, N draws, T steps, F features, P parameters.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kseq.layers.distributions import distribution_of
from kseq.layers.masking import mask_of
from kseq.layers.validation import number, shapes_compatible
from kseq.training.forecast_loss import (
    check_has_crps,
    check_parameters,
    known_numbers,
    number_weights,
)
from kseq.typing import Config, Tensor, TensorLike


def crps(y_true: TensorLike, draws: TensorLike) -> Tensor:
    """Compute the continuous ranked probability score of samples, for each number.

    It is the area between the distribution function F of the samples and the step
    function at the true number `y`, `integral (F(x) - (x >= y)) ** 2 dx`, in the unit
    of the numbers. For a single sample, it is the absolute error. For samples `x`:

        mean |x_i - y| - mean |x_i - x_j| / 2

    Args:
        y_true: Numbers `(B, T, F)`.
        draws: Samples `(B, N, T, F)`, such as `forecast.draws`.

    Returns:
        Tensor `(B, T, F)`, NaN where `y_true` is NaN.

    Raises:
        ValueError: The shapes do not fit.

    Example:

    >>> import numpy as np
    >>> from kseq.training import crps
    >>> draws = np.array([0.0, 1.0]).reshape(1, 2, 1, 1)
    >>> float(crps(np.ones((1, 1, 1)), draws)[0, 0, 0])  # 1 / 2 - 1 / 4
    0.25

    References:
        - [Gneiting and Raftery, 2007](https://doi.org/10.1198/016214506000001437), (21)
    """
    y_true, draws = as_draws(y_true, draws)
    count = draws.shape[1]
    errors = ops.mean(ops.abs(draws - ops.expand_dims(y_true, 1)), axis=1)  # B T F
    places = ops.arange(count, dtype="int32")
    ranks = ops.cast(2 * places + 1 - count, draws.dtype) / count**2
    ranks = ops.reshape(ranks, (1, count, 1, 1))
    return errors - ops.sum(ranks * ops.sort(draws, axis=1), axis=1)


def as_draws(y_true: TensorLike, draws: TensorLike) -> tuple[Tensor, Tensor]:
    """Return both as tensors of one dtype, after checking their shapes."""
    dtype = keras.backend.floatx()
    y_true = ops.convert_to_tensor(y_true, dtype)
    draws = ops.convert_to_tensor(draws, dtype)
    shape = tuple(y_true.shape)
    if len(shape) != 3 or not shapes_compatible(
        tuple(draws.shape), (*shape[:1], None, *shape[1:])
    ):
        raise ValueError(
            "`y_true` must be numbers, shape (B, T, F), and their draws of shape (B, "
            f"N, T, F). Received: y_true of shape {shape}, draws of shape "
            f"{tuple(draws.shape)}. Use `forecast.draws`; numbers of one feature need "
            "an axis for it, `y_true[..., None]`."
        )
    return y_true, draws


class _NumberMean(keras.metrics.Metric):
    """Mean over all known numbers.

    Args:
        distribution: Name of the model's `head`, or None for samples.
        quantiles: The levels of `"quantiles"`, as for the head.
        name: Name of the metric.
        dtype: Dtype of the sums. Types smaller than float32 become float32.
    """

    def __init__(
        self,
        distribution: str | None = None,
        quantiles: Sequence[float] | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.distribution, self.quantiles = distribution, quantiles
        self.formulas: Any = distribution and distribution_of(distribution, quantiles)
        # Half precision cannot count beyond 2048.
        self.sum_dtype = keras.backend.result_type(self.dtype, "float32")
        self.total = self.add_variable((), "zeros", dtype=self.sum_dtype, name="total")
        self.count = self.add_variable((), "zeros", dtype=self.sum_dtype, name="count")

    def update_state(
        self,
        y_true: TensorLike,
        y_pred: TensorLike,
        sample_weight: TensorLike | None = None,
    ) -> None:
        mask = None if self.formulas is None else mask_of(y_pred)
        if self.formulas is None:
            y_true, y_pred = as_draws(y_true, y_pred)
        else:
            y_true = ops.convert_to_tensor(y_true, self.sum_dtype)
            y_pred = ops.convert_to_tensor(y_pred, self.sum_dtype)
            check_parameters(y_true, y_pred, self.distribution, self.formulas)
        is_known = known_numbers(y_true, mask)
        weights = number_weights(is_known, sample_weight, self.sum_dtype)
        values = self.values(ops.where(is_known, y_true, 0.0), y_pred)  # B T F
        values = ops.cast(values, self.sum_dtype)
        self.total.assign_add(ops.sum(values * weights))
        self.count.assign_add(ops.sum(weights))

    def result(self) -> Tensor:
        return ops.divide_no_nan(self.total, self.count)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "distribution": self.distribution,
            "quantiles": self.quantiles,
        }


@keras.saving.register_keras_serializable(package="kseq")
class CRPS(_NumberMean):
    """Mean continuous ranked probability score, which is 0 for a perfect forecast.

    Samples are scored as by `crps`. In `fit` and `evaluate`, where a model predicts the
    next step from the true ones, pass the name of its head: the score is then computed
    in closed form.

    Args:
        distribution: None for samples, or the name of the model's `head`: `"mean"`,
            `"gaussian"` or `"quantiles"`.
        quantiles: The levels of `"quantiles"`, as for the head.
        name: Name of the metric.
        dtype: Dtype of the sums. Types smaller than float32 become float32.

    Call arguments:
        y_true: Numbers `(B, T, F)`. NaN is ignored.
        y_pred: Samples `(B, N, T, F)`, or parameters `(B, T, F, P)`.
        sample_weight: Weights, as for `ForecastLoss`.

    Returns:
        Scalar from `result()`, 0 before the first number.

    Raises:
        ValueError: There is no closed form, or the shapes do not fit.

    Example:

    >>> import numpy as np
    >>> from kseq.training import CRPS
    >>> draws = np.array([0.0, 1.0]).reshape(1, 2, 1, 1)
    >>> float(CRPS()(np.ones((1, 1, 1)), draws))
    0.25

    References:
        - [Gneiting and Raftery, 2007](https://doi.org/10.1198/016214506000001437), 4.2
    """

    def __init__(
        self,
        distribution: str | None = None,
        quantiles: Sequence[float] | None = None,
        name: str = "crps",
        dtype: str | None = None,
    ) -> None:
        super().__init__(distribution, quantiles, name, dtype)
        if self.formulas is not None:
            check_has_crps(distribution, self.formulas)

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if self.formulas is None:
            return crps(y_true, y_pred)
        return self.formulas.crps(y_true, y_pred)


@keras.saving.register_keras_serializable(package="kseq")
class IntervalCoverage(_NumberMean):
    """Fraction of the numbers that lie in their prediction interval.

    A well-calibrated model has a coverage near the level. A lower coverage means that
    the model is overconfident. The interval is central: it leaves out as much of the
    distribution below as above.

    Args:
        level: Fraction of the distribution in the interval, between 0 and 1.
        distribution: None for samples, or the name of the model's `head`, `"gaussian"`
            or `"quantiles"`, for its predictions of the next step from the true ones.
        quantiles: The levels of `"quantiles"`, as for the head.
        name: Name of the metric.
        dtype: Dtype of the sums. Types smaller than float32 become float32.
    Call arguments:
        y_true: Numbers `(B, T, F)`. NaN is ignored.
        y_pred: Samples `(B, N, T, F)`, or parameters `(B, T, F, P)`.
        sample_weight: Weights, as for `ForecastLoss`.

    Returns:
        Scalar from `result()`, 0 before the first number.

    Raises:
        ValueError: `level` is not between 0 and 1; the inverse of the distribution has
            no closed form; the shapes do not fit.

    Example:

    >>> import numpy as np
    >>> from kseq.training import IntervalCoverage
    >>> draws = np.linspace(0, 1, 101).reshape(1, 101, 1, 1)
    >>> y_true = np.array([0.01, 0.5, 0.94, 1.5]).reshape(4, 1, 1)
    >>> float(IntervalCoverage(0.9)(y_true, np.repeat(draws, 4, axis=0)))
    0.5
    """

    def __init__(
        self,
        level: float = 0.9,
        distribution: str | None = None,
        quantiles: Sequence[float] | None = None,
        name: str = "interval_coverage",
        dtype: str | None = None,
    ) -> None:
        super().__init__(distribution, quantiles, name, dtype)
        self.level = number("level", level)
        if not 0 < level < 1:
            raise ValueError(
                f"`level` must be a number between 0 and 1. Received: level={level!r}. "
                "Use 0.9 for ninety percent."
            )
        if self.formulas is not None and self.formulas.num_uniforms != 1:
            raise ValueError(
                'The interval has a closed form only for "gaussian" and "quantiles". '
                f"Received: distribution={distribution!r}. Use samples: "
                "`IntervalCoverage()(future, forecast.draws)`."
            )

    def values(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        low, high = (self.quantile(y_pred, q) for q in self.ends)
        return ops.logical_and(low <= y_true, y_true <= high)

    @property
    def ends(self) -> tuple[float, float]:
        """The levels of the two ends of the interval."""
        return 0.5 - 0.5 * self.level, 0.5 + 0.5 * self.level

    def quantile(self, y_pred: Tensor, level: float) -> Tensor:
        if self.formulas is None:
            return ops.quantile(y_pred, level, axis=1)  # B T F
        uniforms = ops.full((1, 1, 1, 1), level, y_pred.dtype)
        return self.formulas.draw(y_pred, uniforms)

    def get_config(self) -> Config:
        return {**super().get_config(), "level": self.level}
