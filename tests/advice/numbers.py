"""Numbers as targets: bad calls, their advice, and corrected calls."""

import numpy as np

import kseq
from kseq.layers import FeatureEmbedding, ForecastHead, PatchEmbedding
from kseq.plots import fan_chart
from kseq.training import (
    CRPS,
    ForecastLoss,
    IntervalCoverage,
    crps,
    teacher_forcing,
)
from tests.advice.eagerly import eagerly
from tests.helpers import random_array

PAST, FUTURE = random_array(2, 5, 3), random_array(2, 4, 1)
CALENDAR = random_array(2, 4, 2)
DRAWS = random_array(2, 9, 4, 1)
MEANS = random_array(2, 4, 1)
GAUSSIANS = np.stack([MEANS, np.ones_like(MEANS)], axis=-1)
LONG = np.concatenate([FUTURE, FUTURE], axis=1)


def with_gap(values, gap=np.nan):
    values = values.copy()
    values[1, 2, 0] = gap
    return values


def forecaster(target=None, source=None, **options):
    source = source or FeatureEmbedding(3, 4)
    target = target or FeatureEmbedding(1, 4)
    options = {"encoder": "rnn", "decoder": "rnn", "width": 3, **options}
    return kseq.encoder_decoder(source, target, **options)


def forecaster_with_calendar(**options):
    return forecaster(covariates=FeatureEmbedding(2, 4), **options)


def forecast(model=None, source=PAST, num_steps=4, **options):
    with eagerly():
        return (model or forecaster()).generate(source, num_steps, **options)


def target_with_positions(length):
    return FeatureEmbedding(1, 4, positions="learned", max_length=length)


def gaussian_forecast(**options):
    return forecast(forecaster(head="gaussian"), num_draws=9, **options)


CUSTOM_QUANTILES = ForecastHead("quantiles", 1, quantiles=(0.1, 0.5, 0.9))
TARGET_OF_NUMBERS = "`target=kseq.layers.FeatureEmbedding(num_features, 64)`."
NO_CLOSED_FORM = (
    "Use the likelihood, and `kseq.training.crps(future, forecast.draws)` for samples."
)
EXPLICIT_AXIS = (
    "Pass the distribution of the head; numbers of one feature need an axis for it, "
    "`y_true[..., None]`."
)

ADVICE = {
    "a target of pictures": (
        lambda: forecaster(PatchEmbedding((4, 6, 1), 2, 3)),
        f"For a series of numbers, build the model with {TARGET_OF_NUMBERS}",
        lambda: forecaster(FeatureEmbedding(1, 64)),
    ),
    "sizes that are not vocabularies": (
        lambda: kseq.encoder_decoder(3, 1, width=3),
        "Count special tokens as part of the vocabulary. A series of numbers has no "
        f"tokens; build the model with {TARGET_OF_NUMBERS}",
        lambda: (
            kseq.encoder_decoder(3 + 4, 1 + 4, width=3),
            forecaster(FeatureEmbedding(1, 64)),
        ),
    ),
    "an unknown head": (
        lambda: forecaster(head="poisson"),
        'For custom quantiles use `kseq.layers.ForecastHead("quantiles", 1, '
        "quantiles=(0.1, 0.5, 0.9))`.",
        lambda: forecaster(head=CUSTOM_QUANTILES),
    ),
    "a head with another number of features": (
        lambda: forecaster(head=ForecastHead("gaussian", num_features=3)),
        "Use `kseq.layers.ForecastHead(..., num_features=1)`.",
        lambda: forecaster(head=ForecastHead("gaussian", num_features=1)),
    ),
    "one embedding of numbers for source and target": (
        lambda: forecaster(one := FeatureEmbedding(1, 4), one),
        "Create two: `kseq.layers.FeatureEmbedding(1, 4)`.",
        lambda: forecaster(FeatureEmbedding(1, 4), FeatureEmbedding(1, 4)),
    ),
    "a target with a mask value": (
        lambda: forecaster(FeatureEmbedding(1, 4, mask_value=0.0)),
        "Leave it out, and pad short targets with NaN, as `teacher_forcing` does.",
        lambda: (forecaster(), teacher_forcing(PAST, [FUTURE[0], FUTURE[1, :2]])[0]),
    ),
    "covariates that are a number": (
        lambda: forecaster(covariates=2),
        "Use `covariates=kseq.layers.FeatureEmbedding(num_covariates, 4)`.",
        lambda: forecaster(covariates=FeatureEmbedding(2, 4)),
    ),
    "covariates of another width": (
        lambda: forecaster(covariates=FeatureEmbedding(2, 5)),
        "Use `kseq.layers.FeatureEmbedding(2, 4)`.",
        lambda: forecaster(covariates=FeatureEmbedding(2, 4)),
    ),
    "numbers with a tied head": (
        lambda: forecaster(tie_embeddings="target"),
        "Leave it out.",
        forecaster,
    ),
    "tokens with covariates": (
        lambda: kseq.encoder_decoder(11, 13, covariates=FeatureEmbedding(2, 4)),
        "Leave them out, or use `target=kseq.layers.FeatureEmbedding(num_features, "
        "width)`.",
        lambda: (kseq.encoder_decoder(11, 13, width=3), forecaster_with_calendar()),
    ),
    "no number of steps": (
        lambda: forecast(num_steps=None),
        "A series has no end token: `model.generate(past, num_steps=24)`.",
        lambda: forecast(num_steps=24),
    ),
    "no covariates for a model that needs them": (
        lambda: forecast(forecaster_with_calendar()),
        "Build it with `covariates=kseq.layers.FeatureEmbedding(num_covariates, "
        "width)`.",
        lambda: forecast(forecaster_with_calendar(), covariates=CALENDAR),
    ),
    "covariates for a model without": (
        lambda: forecast(covariates=CALENDAR),
        "Build it with `covariates=kseq.layers.FeatureEmbedding(num_covariates, "
        "width)`.",
        lambda: forecast(forecaster_with_calendar(), covariates=CALENDAR),
    ),
    "a prefix without an axis of features": (
        lambda: forecast(prefix=FUTURE[..., 0]),
        "A single feature also needs an axis: `prefix[..., None]`.",
        lambda: forecast(prefix=FUTURE[..., 0][..., None]),
    ),
    "samples of a mean": (
        lambda: forecast(num_draws=9),
        'Build it with head="gaussian", or leave `num_draws` out.',
        lambda: (gaussian_forecast(), forecast()),
    ),
    "more steps than positions": (
        lambda: forecast(forecaster(target_with_positions(3))),
        "Generate less, or train with more positions.",
        lambda: (
            forecast(forecaster(target_with_positions(3)), num_steps=3),
            forecast(forecaster(target_with_positions(4))),
        ),
    ),
    "covariates with another number of steps": (
        lambda: forecast(forecaster_with_calendar(), covariates=CALENDAR, num_steps=3),
        "Pass 3 steps of each series.",
        lambda: forecast(
            forecaster_with_calendar(), covariates=CALENDAR[:, :3], num_steps=3
        ),
    ),
    "covariates with gaps": (
        lambda: forecast(forecaster_with_calendar(), covariates=with_gap(CALENDAR)),
        "Leave out covariates that are unknown for the future, or fill the gaps.",
        lambda: forecast(
            forecaster_with_calendar(), covariates=np.nan_to_num(with_gap(CALENDAR))
        ),
    ),
    "a gap in a source": (
        lambda: forecast(source=with_gap(PAST)),
        "Fill the gaps, `numpy.nan_to_num(source)`, and mark them by additional "
        "features.",
        lambda: forecast(source=np.nan_to_num(with_gap(PAST))),
    ),
    "a quantile in percent": (
        lambda: gaussian_forecast().quantile(90),
        "Pass 0.9 for 90 percent.",
        lambda: gaussian_forecast().quantile(0.9),
    ),
    "a quantile of one sample": (
        lambda: forecast(forecaster(head="gaussian")).quantile(0.9),
        "Generate it with `model.generate(..., num_draws=100)`.",
        lambda: forecast(forecaster(head="gaussian"), num_draws=100).quantile(0.9),
    ),
    "quantile levels of a Gaussian": (
        lambda: ForecastHead("gaussian", quantiles=(0.1, 0.9)),
        'Leave them out, or use "quantiles".',
        lambda: (ForecastHead("gaussian"), ForecastHead("quantiles", 1, (0.1, 0.9))),
    ),
    "quantile levels that do not increase": (
        lambda: ForecastHead("quantiles", quantiles=(0.5, 0.05, 0.95)),
        "For an interval of 90 % and the median, use `quantiles=(0.05, 0.5, 0.95)`.",
        lambda: ForecastHead("quantiles", quantiles=(0.05, 0.5, 0.95)),
    ),
    "a CRPS without a closed form": (
        lambda: ForecastLoss("student_t", score="crps"),
        NO_CLOSED_FORM,
        lambda: (ForecastLoss("student_t"), crps(FUTURE, DRAWS)),
    ),
    "a metric without a closed form": (
        lambda: CRPS("student_t"),
        NO_CLOSED_FORM,
        lambda: CRPS()(FUTURE, DRAWS),
    ),
    "a loss of another distribution": (
        lambda: ForecastLoss("gaussian")(FUTURE, MEANS),
        EXPLICIT_AXIS,
        lambda: (
            ForecastLoss("mean")(FUTURE, MEANS),
            ForecastLoss("gaussian")(FUTURE, GAUSSIANS),
        ),
    ),
    "numbers without an axis of features": (
        lambda: ForecastLoss("gaussian")(FUTURE[..., 0], GAUSSIANS),
        EXPLICIT_AXIS,
        lambda: ForecastLoss("gaussian")(FUTURE[..., 0][..., None], GAUSSIANS),
    ),
    "targets that are not counts": (
        lambda: ForecastLoss("negative_binomial")(FUTURE, GAUSSIANS),
        'Pass counts without scaling; for other numbers, use "gaussian" or '
        '"student_t".',
        lambda: (
            ForecastLoss("negative_binomial")(np.ones_like(FUTURE), abs(GAUSSIANS)),
            ForecastLoss("gaussian")(FUTURE, GAUSSIANS),
        ),
    ),
    "samples of targets without an axis of features": (
        lambda: crps(FUTURE[..., 0], DRAWS),
        "Use `forecast.draws`; numbers of one feature need an axis for it, "
        "`y_true[..., None]`.",
        lambda: crps(FUTURE[..., 0][..., None], gaussian_forecast().draws),
    ),
    "coverage in percent": (
        lambda: IntervalCoverage(90),
        "Use 0.9 for ninety percent.",
        lambda: IntervalCoverage(0.9),
    ),
    "an interval without a closed form": (
        lambda: IntervalCoverage(0.9, "student_t"),
        "Use samples: `IntervalCoverage()(future, forecast.draws)`.",
        lambda: IntervalCoverage()(FUTURE, gaussian_forecast().draws),
    ),
    "an infinite target": (
        lambda: teacher_forcing(PAST, with_gap(FUTURE, np.inf)),
        "Leave such rows out, or use NaN for missing numbers.",
        lambda: (
            teacher_forcing(PAST[:1], FUTURE[:1]),
            teacher_forcing(PAST, with_gap(FUTURE)),
        ),
    ),
    "covariates of tokens": (
        lambda: teacher_forcing([[4]], [[2, 4, 3]], covariates=CALENDAR[:1]),
        "Leave them out.",
        lambda: teacher_forcing([[4]], [[2, 4, 3]]),
    ),
    "covariates longer than the targets": (
        lambda: teacher_forcing(PAST, FUTURE, covariates=LONG),
        "Cut both to the same steps.",
        lambda: teacher_forcing(PAST, FUTURE, covariates=CALENDAR),
    ),
    "an ensemble of forecasters": (
        lambda: kseq.ensemble([forecaster(), forecaster()]),
        "Combine the draws: `np.concatenate([one.draws, other.draws], "
        "axis=1)` of two forecasts.",
        lambda: np.concatenate(
            [gaussian_forecast().draws, gaussian_forecast().draws], axis=1
        ),
    ),
    "a fan chart of many series": (
        lambda: fan_chart(DRAWS),
        "For the first feature of the first series pass `forecast.draws[0, :, :, 0]`.",
        lambda: fan_chart(gaussian_forecast().draws[0, :, :, 0]),
    ),
    "a fan chart with levels in percent": (
        lambda: fan_chart(DRAWS[0, :, :, 0], levels=(50, 90)),
        "For 90 percent pass 0.9.",
        lambda: fan_chart(DRAWS[0, :, :, 0], levels=(0.5, 0.9)),
    ),
}
