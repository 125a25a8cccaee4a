"""Loss of models that forecast numbers, which ignores unknown numbers.

Axes in shape comments: B batch, T steps, F features, P parameters.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from kseq.layers import backends
from kseq.layers.distributions import distribution_of
from kseq.layers.masking import mask_of
from kseq.layers.validation import concrete_values, one_of, shapes_compatible
from kseq.typing import Config, Tensor, TensorLike


@keras.saving.register_keras_serializable(package="kseq")
class ForecastLoss(keras.losses.Loss):
    """Loss of a model that forecasts numbers, chosen by the distribution of its head.

    | distribution | `score="likelihood"` | `score="crps"` |
    |---|---|---|
    | `"mean"` | squared error | absolute error |
    | `"gaussian"` | negative log-likelihood | in closed form |
    | `"student_t"` | negative log-likelihood | none |
    | `"negative_binomial"` | negative log-likelihood | none |
    | `"quantiles"` | pinball loss, mean over the levels | twice the pinball loss |

    The result is the mean over all known numbers. NaN in `y_true`, which marks a gap or
    the padding of `teacher_forcing`, is ignored. Computed in at least float32.

    Args:
        distribution: Name of the model's `head`.
        score: `"likelihood"`, or `"crps"` for the continuous ranked probability score,
            which is less sensitive to outliers.
        quantiles: The levels of `"quantiles"`, as for the head.
        name: Name of the loss.
        dtype: Precision of the computation. Types smaller than float32 become float32.

    Call arguments:
        y_true: Numbers `(B, T, F)`; counts for `"negative_binomial"`.
        y_pred: Parameters `(B, T, F, P)`, or `(B, T, F)` for `"mean"`. A Keras mask on
            them, True where a step counts, excludes further steps.
        sample_weight: Weights of the series, `(B,)`, of their steps, `(B, T)`, or of
            the numbers, `(B, T, F)`.

    Returns:
        Scalar: the weighted sum of the losses over the sum of their weights, or 0 if no
        number is known.

    Raises:
        ValueError: A name is unknown; the score has no closed form; the shapes do not
            fit; a count is negative or not a whole number. In compiled code, such a
            count makes the loss NaN.

    Example:

    >>> import numpy as np
    >>> from kseq.training import ForecastLoss
    >>> loss = ForecastLoss("gaussian")
    >>> y_true = np.array([[[0.0], [1.0], [np.nan]]])
    >>> parameters = np.array([[[[0.0, 1.0]], [[0.0, 1.0]], [[0.0, 1.0]]]])
    >>> round(float(loss(y_true, parameters)), 4)  # log(2 pi) / 2 + 1 / 4
    1.1689

    References:
        - [Salinas et al., 2020](https://arxiv.org/abs/1704.04110), 3.2
        - [Koenker and Bassett, 1978](https://doi.org/10.2307/1913643) (pinball)
        - [Gneiting and Raftery, 2007](https://doi.org/10.1198/016214506000001437), 4.2
    """

    def __init__(
        self,
        distribution: str = "gaussian",
        score: Literal["likelihood", "crps"] = "likelihood",
        quantiles: Sequence[float] | None = None,
        name: str = "forecast_loss",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, reduction="mean_with_sample_weight", dtype=dtype)
        self.distribution, self.quantiles = distribution, quantiles
        self.formulas = distribution_of(distribution, quantiles)
        self.score = one_of("score", score, ("likelihood", "crps"))
        if score == "crps":
            check_has_crps(distribution, self.formulas)

    @property
    def dtype(self) -> str:
        dtype = super().dtype
        return "float32" if dtype in ("float16", "bfloat16") else dtype

    def __call__(
        self,
        y_true: TensorLike,
        y_pred: TensorLike,
        sample_weight: TensorLike | None = None,
    ) -> Tensor:
        mask = mask_of(y_pred)
        y_true = ops.convert_to_tensor(y_true, self.dtype)
        y_pred = ops.convert_to_tensor(y_pred, self.dtype)
        check_parameters(y_true, y_pred, self.distribution, self.formulas)
        is_known = known_numbers(y_true, mask)  # B T F
        weights = number_weights(is_known, sample_weight, self.dtype)  # B T F
        values = ops.where(is_known, y_true, 0.0)
        if self.distribution == "negative_binomial":
            check_counts(values)
        losses = ops.where(is_known, self.call(values, y_pred), 0.0)
        total = ops.sum(weights)
        loss = ops.divide_no_nan(ops.sum(losses * weights), total)
        return loss * backends.share_of_replica(total)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        formula = self.formulas.crps if self.score == "crps" else self.formulas.loss
        losses = formula(y_true, y_pred)
        if self.distribution == "negative_binomial":
            is_count = ops.logical_and(y_true >= 0, y_true == ops.floor(y_true))
            losses = ops.where(is_count, losses, float("nan"))
        return losses

    def get_config(self) -> Config:
        return {
            "distribution": self.distribution,
            "score": self.score,
            "quantiles": self.quantiles,
            "name": self.name,
            "dtype": self.dtype,
        }


def check_has_crps(distribution: str | None, formulas: Any) -> None:
    if formulas.crps is None:
        raise ValueError(
            'The CRPS has a closed form only for "mean", "gaussian" and "quantiles". '
            f"Received: distribution={distribution!r}. Use the likelihood, and "
            "`kseq.training.crps(future, forecast.draws)` for samples."
        )


def check_parameters(
    y_true: Tensor, y_pred: Tensor, distribution: str | None, formulas: Any
) -> None:
    """Raise unless there are the parameters of a distribution for each number."""
    shape = tuple(y_true.shape)
    has_axis = distribution != "mean"
    expected = (*shape, formulas.num_parameters) if has_axis else shape
    if len(shape) == 3 and shapes_compatible(tuple(y_pred.shape), expected):
        return
    axes = f"(B, T, F, {formulas.num_parameters})" if has_axis else "(B, T, F)"
    raise ValueError(
        "`y_true` must be numbers, shape (B, T, F), and `y_pred` the predictions of a "
        f"model with head={distribution!r}, {axes}. Received: y_true of shape "
        f"{shape}, y_pred of shape {tuple(y_pred.shape)}. Pass the distribution of the "
        "head; numbers of one feature need an axis for it, `y_true[..., None]`."
    )


def check_counts(values: Tensor) -> None:
    """Raise if the values can be read and one is not a count."""
    seen = concrete_values(values)
    if seen is None:
        return
    is_count = (seen >= 0) & (seen == np.floor(seen))
    if not is_count.all():
        raise ValueError(
            'Values of "negative_binomial" must be counts: 0, 1, 2 and so on. '
            f"Received: {seen[~is_count].flat[0]}. Pass counts without scaling; for "
            'other numbers, use "gaussian" or "student_t".'
        )


def known_numbers(y_true: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mask of the numbers that count, `(B, T, F)`, given a mask of steps."""
    is_known = ops.logical_not(ops.isnan(y_true))
    if mask is None:
        return is_known
    return ops.logical_and(is_known, ops.expand_dims(ops.cast(mask, "bool"), -1))


def number_weights(
    is_known: Tensor, sample_weight: TensorLike | None, dtype: str
) -> Tensor:
    """Return the weight of each number, `(B, T, F)`, which is 0 if it is unknown."""
    known = ops.cast(is_known, dtype)
    if sample_weight is None:
        return known
    weights = ops.convert_to_tensor(sample_weight, dtype)
    while len(weights.shape) < 3:
        weights = ops.expand_dims(weights, -1)
    pairs = zip(weights.shape, is_known.shape, strict=False)
    fits = len(weights.shape) == 3 and all(
        None in pair or pair[0] in (1, pair[1]) for pair in pairs
    )
    if not fits:
        raise ValueError(
            "`sample_weight` must be weights of series, shape (B,), of their steps, "
            "(B, T), or of numbers, (B, T, F), like `y_true`. Received: sample_weight "
            f"of shape {tuple(np.shape(sample_weight))}, y_true of shape "
            f"{tuple(is_known.shape)}."
        )
    return known * weights
