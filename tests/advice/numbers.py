"""Numbers as targets: bad calls, what their messages advise, and calls that do it."""

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


def writer(target=None, source=None, **options):
    source = source or FeatureEmbedding(3, 4)
    target = target or FeatureEmbedding(1, 4)
    options = {"encoder": "rnn", "decoder": "rnn", "width": 3, **options}
    return kseq.encoder_decoder(source, target, **options)


def with_calendar(**options):
    return writer(covariates=FeatureEmbedding(2, 4), **options)


def write(model=None, source=PAST, num_steps=4, **options):
    with eagerly():
        return (model or writer()).generate(source, num_steps, **options)


def placed(length):
    return FeatureEmbedding(1, 4, positions="learned", max_length=length)


def gaussian(**options):
    return write(writer(head="gaussian"), num_draws=9, **options)


OWN_QUANTILES = ForecastHead("quantiles", 1, quantiles=(0.1, 0.5, 0.9))
OF_NUMBERS = "`target=kseq.layers.FeatureEmbedding(num_features, 64)`."
CLOSED = (
    "Use the likelihood, and `kseq.training.crps(future, forecast.draws)` for samples."
)
EXPLICIT_AXIS = (
    "Pass the distribution of the head; numbers of one feature need an axis for it, "
    "`y_true[..., None]`."
)

ADVICE = {
    "a target of pictures": (
        lambda: writer(PatchEmbedding((4, 6, 1), 2, 3)),
        f"For a series of numbers, build the model with {OF_NUMBERS}",
        lambda: writer(FeatureEmbedding(1, 64)),
    ),
    "sizes that are no vocabularies": (
        lambda: kseq.encoder_decoder(3, 1, width=3),
        "Count special tokens as part of the vocabulary. A series of numbers has no "
        f"tokens; build the model with {OF_NUMBERS}",
        lambda: (
            kseq.encoder_decoder(3 + 4, 1 + 4, width=3),
            writer(FeatureEmbedding(1, 64)),
        ),
    ),
    "an unknown head": (
        lambda: writer(head="poisson"),
        'For custom quantiles use `kseq.layers.ForecastHead("quantiles", 1, '
        "quantiles=(0.1, 0.5, 0.9))`.",
        lambda: writer(head=OWN_QUANTILES),
    ),
    "a head of other features": (
        lambda: writer(head=ForecastHead("gaussian", num_features=3)),
        "Use `kseq.layers.ForecastHead(..., num_features=1)`.",
        lambda: writer(head=ForecastHead("gaussian", num_features=1)),
    ),
    "one embedding of numbers for both": (
        lambda: writer(one := FeatureEmbedding(1, 4), one),
        "Create two: `kseq.layers.FeatureEmbedding(1, 4)`.",
        lambda: writer(FeatureEmbedding(1, 4), FeatureEmbedding(1, 4)),
    ),
    "a target with a mask value": (
        lambda: writer(FeatureEmbedding(1, 4, mask_value=0.0)),
        "Leave it out, and pad short targets with NaN, as `teacher_forcing` does.",
        lambda: (writer(), teacher_forcing(PAST, [FUTURE[0], FUTURE[1, :2]])[0]),
    ),
    "covariates that are a number": (
        lambda: writer(covariates=2),
        "Use `covariates=kseq.layers.FeatureEmbedding(num_covariates, 4)`.",
        lambda: writer(covariates=FeatureEmbedding(2, 4)),
    ),
    "covariates of another width": (
        lambda: writer(covariates=FeatureEmbedding(2, 5)),
        "Use `kseq.layers.FeatureEmbedding(2, 4)`.",
        lambda: writer(covariates=FeatureEmbedding(2, 4)),
    ),
    "numbers with a tied head": (
        lambda: writer(tie_embeddings="target"),
        "Leave it out.",
        writer,
    ),
    "tokens with covariates": (
        lambda: kseq.encoder_decoder(11, 13, covariates=FeatureEmbedding(2, 4)),
        "Leave them out, or use `target=kseq.layers.FeatureEmbedding(num_features, "
        "width)`.",
        lambda: (kseq.encoder_decoder(11, 13, width=3), with_calendar()),
    ),
    "no number of steps": (
        lambda: write(num_steps=None),
        "A series has no end token: `model.generate(past, num_steps=24)`.",
        lambda: write(num_steps=24),
    ),
    "no covariates for a model that needs them": (
        lambda: write(with_calendar()),
        "Build it with `covariates=kseq.layers.FeatureEmbedding(num_covariates, "
        "width)`.",
        lambda: write(with_calendar(), covariates=CALENDAR),
    ),
    "covariates for a model without": (
        lambda: write(covariates=CALENDAR),
        "Build it with `covariates=kseq.layers.FeatureEmbedding(num_covariates, "
        "width)`.",
        lambda: write(with_calendar(), covariates=CALENDAR),
    ),
    "a prefix without an axis of features": (
        lambda: write(prefix=FUTURE[..., 0]),
        "A single feature also needs an axis: `prefix[..., None]`.",
        lambda: write(prefix=FUTURE[..., 0][..., None]),
    ),
    "draws of a mean": (
        lambda: write(num_draws=9),
        'Build it with head="gaussian", or leave `num_draws` out.',
        lambda: (gaussian(), write()),
    ),
    "more steps than positions": (
        lambda: write(writer(placed(3))),
        "Generate less, or train with more positions.",
        lambda: (write(writer(placed(3)), num_steps=3), write(writer(placed(4)))),
    ),
    "covariates of other steps": (
        lambda: write(with_calendar(), covariates=CALENDAR, num_steps=3),
        "Pass 3 steps of each series.",
        lambda: write(with_calendar(), covariates=CALENDAR[:, :3], num_steps=3),
    ),
    "covariates that are not known": (
        lambda: write(with_calendar(), covariates=with_gap(CALENDAR)),
        "Leave out covariates that are unknown for the future, or fill the gaps.",
        lambda: write(with_calendar(), covariates=np.nan_to_num(with_gap(CALENDAR))),
    ),
    "a gap in a source": (
        lambda: write(source=with_gap(PAST)),
        "Fill the gaps, `numpy.nan_to_num(source)`, and mark them by additional "
        "features.",
        lambda: write(source=np.nan_to_num(with_gap(PAST))),
    ),
    "percent in place of a share": (
        lambda: gaussian().quantile(90),
        "Pass 0.9 for 90 percent.",
        lambda: gaussian().quantile(0.9),
    ),
    "a quantile of one path": (
        lambda: write(writer(head="gaussian")).quantile(0.9),
        "Generate it with `model.generate(..., num_draws=100)`.",
        lambda: write(writer(head="gaussian"), num_draws=100).quantile(0.9),
    ),
    "levels of a Gaussian": (
        lambda: ForecastHead("gaussian", quantiles=(0.1, 0.9)),
        'Leave them out, or use "quantiles".',
        lambda: (ForecastHead("gaussian"), ForecastHead("quantiles", 1, (0.1, 0.9))),
    ),
    "levels that do not rise": (
        lambda: ForecastHead("quantiles", quantiles=(0.5, 0.05, 0.95)),
        "For an interval of 90 % and the median, use `quantiles=(0.05, 0.5, 0.95)`.",
        lambda: ForecastHead("quantiles", quantiles=(0.05, 0.5, 0.95)),
    ),
    "a CRPS without a closed form": (
        lambda: ForecastLoss("student_t", score="crps"),
        CLOSED,
        lambda: (ForecastLoss("student_t"), crps(FUTURE, DRAWS)),
    ),
    "a metric without a closed form": (
        lambda: CRPS("student_t"),
        CLOSED,
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
    "counts that are none": (
        lambda: ForecastLoss("negative_binomial")(FUTURE, GAUSSIANS),
        'Pass counts without scaling; for other numbers, use "gaussian" or '
        '"student_t".',
        lambda: (
            ForecastLoss("negative_binomial")(np.ones_like(FUTURE), abs(GAUSSIANS)),
            ForecastLoss("gaussian")(FUTURE, GAUSSIANS),
        ),
    ),
    "draws of other steps": (
        lambda: crps(FUTURE[..., 0], DRAWS),
        "Use `forecast.draws`; numbers of one feature need an axis for it, "
        "`y_true[..., None]`.",
        lambda: crps(FUTURE[..., 0][..., None], gaussian().draws),
    ),
    "coverage in percent": (
        lambda: IntervalCoverage(90),
        "Use 0.9 for ninety percent.",
        lambda: IntervalCoverage(0.9),
    ),
    "an interval without a closed form": (
        lambda: IntervalCoverage(0.9, "student_t"),
        "Use samples: `IntervalCoverage()(future, forecast.draws)`.",
        lambda: IntervalCoverage()(FUTURE, gaussian().draws),
    ),
    "a target that is infinite": (
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
    "covariates of longer stretches": (
        lambda: teacher_forcing(PAST, FUTURE, covariates=LONG),
        "Cut both to the same steps.",
        lambda: teacher_forcing(PAST, FUTURE, covariates=CALENDAR),
    ),
    "an ensemble of numbers": (
        lambda: kseq.ensemble([writer(), writer()]),
        "Combine the draws: `np.concatenate([one.draws, other.draws], "
        "axis=1)` of two forecasts.",
        lambda: np.concatenate([gaussian().draws, gaussian().draws], axis=1),
    ),
    "a fan of many series": (
        lambda: fan_chart(DRAWS),
        "For the first feature of the first series pass `forecast.draws[0, :, :, 0]`.",
        lambda: fan_chart(gaussian().draws[0, :, :, 0]),
    ),
    "a fan in percent": (
        lambda: fan_chart(DRAWS[0, :, :, 0], levels=(50, 90)),
        "For 90 percent pass 0.9.",
        lambda: fan_chart(DRAWS[0, :, :, 0], levels=(0.5, 0.9)),
    ),
}
