"""The loss of models that write numbers, in which what is not known does not count.

Axes in shape comments: B batch, T steps, F features, P parameters.
"""

import keras
import numpy as np
from keras import ops

from kseq.layers import backends
from kseq.layers.distributions import distribution_of
from kseq.layers.masking import mask_of
from kseq.layers.validation import concrete_values, one_of, shapes_compatible


@keras.saving.register_keras_serializable(package="kseq")
class ForecastLoss(keras.losses.Loss):
    """How badly the head of a model that writes numbers foresaw them.

    | distribution | `score="likelihood"` | `score="crps"` |
    |---|---|---|
    | `"mean"` | squared error | absolute error |
    | `"gaussian"` | negative log-likelihood | in closed form |
    | `"student_t"` | negative log-likelihood | none |
    | `"negative_binomial"` | negative log-likelihood | none |
    | `"quantiles"` | pinball loss, mean over the levels | twice the pinball loss |

    The result is the mean over all numbers that are known: NaN in `y_true`, a gap or
    the padding of `teacher_forcing`, counts for nothing. Computed in float32 at least.

    Args:
        distribution: The name of the model's `head`.
        score: `"likelihood"`, or `"crps"` for the continuous ranked probability score,
            which a rare leap sways less.
        quantiles: The levels of `"quantiles"`, as for the head.
        name: Name of the loss.
        dtype: Precision of the computation, float32 or wider. Less becomes float32.

    Call arguments:
        y_true: Numbers `(B, T, F)`; of `"negative_binomial"` counts.
        y_pred: Parameters `(B, T, F, P)`, of `"mean"` `(B, T, F)`. A Keras mask on
            them, True where a step counts, leaves out further steps.
        sample_weight: Weights of the series, `(B,)`, of their steps, `(B, T)`, or of
            each number, `(B, T, F)`.

    Returns:
        Scalar: the weighted sum of the losses over the sum of their weights, or 0 where
        no number is known.

    Raises:
        ValueError: A name is unknown, there is no closed form, the shapes do not fit,
            or a count is negative or no whole number. Compiled, such a count makes the
            loss NaN.

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
        distribution="gaussian",
        score="likelihood",
        quantiles=None,
        name="forecast_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction="mean_with_sample_weight", dtype=dtype)
        self.distribution, self.quantiles = distribution, quantiles
        self.formulas = distribution_of(distribution, quantiles)
        self.score = one_of("score", score, ("likelihood", "crps"))
        if score == "crps":
            check_has_crps(distribution, self.formulas)

    @property
    def dtype(self):
        dtype = super().dtype
        return "float32" if dtype in ("float16", "bfloat16") else dtype

    def __call__(self, y_true, y_pred, sample_weight=None):
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

    def call(self, y_true, y_pred):
        formula = self.formulas.crps if self.score == "crps" else self.formulas.loss
        losses = formula(y_true, y_pred)
        if self.distribution == "negative_binomial":
            is_count = ops.logical_and(y_true >= 0, y_true == ops.floor(y_true))
            losses = ops.where(is_count, losses, float("nan"))
        return losses

    def get_config(self):
        return {
            "distribution": self.distribution,
            "score": self.score,
            "quantiles": self.quantiles,
            "name": self.name,
            "dtype": self.dtype,
        }


def check_has_crps(distribution, formulas):
    if formulas.crps is None:
        raise ValueError(
            'The CRPS has a closed form for "mean", "gaussian" and "quantiles". '
            f"Received: distribution={distribution!r}. Take the likelihood, and "
            "`kseq.training.crps(future, forecast.draws)` of what is drawn."
        )


def check_parameters(y_true, y_pred, distribution, formulas):
    """Raises unless there are the parameters of a distribution for each number."""
    shape = tuple(y_true.shape)
    has_axis = distribution != "mean"
    expected = (*shape, formulas.num_parameters) if has_axis else shape
    if len(shape) == 3 and shapes_compatible(tuple(y_pred.shape), expected):
        return
    axes = f"(B, T, F, {formulas.num_parameters})" if has_axis else "(B, T, F)"
    raise ValueError(
        "`y_true` must be numbers, shape (B, T, F), and `y_pred` what a model with "
        f"head={distribution!r} says of each, {axes}. Received: y_true of shape "
        f"{shape}, y_pred of shape {tuple(y_pred.shape)}. Name the distribution of the "
        "head; numbers of one feature have an axis for it, `y_true[..., None]`."
    )


def check_counts(values):
    """Raises if it can be seen that a value is no count."""
    seen = concrete_values(values)
    if seen is None:
        return
    is_count = (seen >= 0) & (seen == np.floor(seen))
    if not is_count.all():
        raise ValueError(
            'Values of "negative_binomial" must be counts: 0, 1, 2 and so on. '
            f"Received: {seen[~is_count].flat[0]}. Give them as they were counted, "
            'not scaled; other numbers need "gaussian" or "student_t".'
        )


def known_numbers(y_true, mask=None):
    """Marks the numbers that count, `(B, T, F)`, under a mask of steps or without."""
    is_known = ops.logical_not(ops.isnan(y_true))
    if mask is None:
        return is_known
    return ops.logical_and(is_known, ops.expand_dims(ops.cast(mask, "bool"), -1))


def number_weights(is_known, sample_weight, dtype):
    """The weight of each number, `(B, T, F)`: zero where it is not known."""
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
