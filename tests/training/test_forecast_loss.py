"""Loss and metrics of forecasts: integrals as oracles, and missing values."""

import keras
import numpy as np
import pytest
from scipy import stats

from kseq.training import CRPS, ForecastLoss, IntervalCoverage, crps, teacher_forcing
from tests.helpers import array, assert_close, random_array

B, N, T, F = 3, 7, 5, 2
TRUTH = random_array(B, T, F)
DRAWS = random_array(B, N, T, F, seed=1)
PARAMETERS = np.stack([random_array(B, T, F, seed=2), np.full((B, T, F), 0.7)], -1)


def test_crps_of_draws_is_the_integral_over_their_distribution_function():
    found = array(crps(TRUTH, DRAWS))
    x = np.linspace(-8, 8, 32_001)
    for place in [(0, 0, 0), (1, 3, 1), (2, 4, 0)]:
        b, t, f = place
        below = (DRAWS[b, :, t, f, None] <= x).mean(axis=0)
        errors = (below - (x >= TRUTH[place])) ** 2
        assert found[place] == pytest.approx(np.trapezoid(errors, x), abs=2e-3)


def test_crps_of_one_draw_is_its_absolute_error():
    assert_close(crps(TRUTH, DRAWS[:, :1]), abs(DRAWS[:, 0] - TRUTH))


def test_crps_of_many_draws_is_close_to_that_of_their_distribution():
    draws = PARAMETERS[..., 0][:, None] + 0.7 * random_array(B, 4000, T, F, seed=3)
    closed = float(ForecastLoss("gaussian", score="crps")(TRUTH, PARAMETERS))
    assert float(CRPS()(TRUTH, draws)) == pytest.approx(closed, rel=0.03)
    assert float(CRPS("gaussian")(TRUTH, PARAMETERS)) == pytest.approx(closed, rel=1e-5)


def test_loss_is_the_mean_over_known_values():
    truth = TRUTH.copy()
    truth[0, 1] = truth[2, 3, 1] = np.nan
    normal = stats.norm(PARAMETERS[..., 0], PARAMETERS[..., 1])
    losses = -normal.logpdf(truth)
    loss = ForecastLoss("gaussian")
    assert float(loss(truth, PARAMETERS)) == pytest.approx(np.nanmean(losses), rel=1e-5)
    weights = np.array([1.0, 0.0, 2.0])
    known = ~np.isnan(truth) * weights[:, None, None]
    expected = np.nansum(losses * weights[:, None, None]) / known.sum()
    assert float(loss(truth, PARAMETERS, weights)) == pytest.approx(expected, rel=1e-5)
    weights = np.repeat(weights[:, None], T, axis=1)
    assert float(loss(truth, PARAMETERS, weights)) == pytest.approx(expected, rel=1e-5)
    assert float(loss(truth * np.nan, PARAMETERS)) == 0


def test_missing_values_have_no_gradient():
    inputs = keras.Input((T, F))
    model = keras.Model(inputs, keras.layers.Dense(F)(inputs))
    model.compile(keras.optimizers.SGD(1.0), ForecastLoss("mean"))
    before = [array(weight) for weight in model.weights]
    model.train_on_batch(TRUTH, TRUTH * np.nan)
    assert_close([array(weight) for weight in model.weights], before)


def test_loss_of_means_is_the_squared_or_absolute_error():
    squared = float(ForecastLoss("mean")(TRUTH, DRAWS[:, 0]))
    assert squared == pytest.approx(np.mean((TRUTH - DRAWS[:, 0]) ** 2), rel=1e-5)
    absolute = float(ForecastLoss("mean", score="crps")(TRUTH, DRAWS[:, 0]))
    assert absolute == pytest.approx(np.mean(abs(TRUTH - DRAWS[:, 0])), rel=1e-5)


def test_coverage_is_the_share_of_values_within_the_quantiles():
    metric = IntervalCoverage(0.8)
    low, high = np.quantile(DRAWS, [0.1, 0.9], axis=1)
    truth = TRUTH.copy()
    truth[0, 0, 0] = np.nan
    known = ~np.isnan(truth)
    expected = ((low <= truth) & (truth <= high))[known].mean()
    assert float(metric(truth, DRAWS)) == pytest.approx(expected)
    normal = stats.norm(PARAMETERS[..., 0], PARAMETERS[..., 1])
    expected = (abs(normal.cdf(TRUTH) - 0.5) <= 0.4).mean()
    assert float(IntervalCoverage(0.8, "gaussian")(TRUTH, PARAMETERS)) == pytest.approx(
        expected
    )


def test_interval_of_a_quantile_forecast_is_between_two_quantiles():
    levels = (0.1, 0.5, 0.9)
    quantiles = np.sort(random_array(B, T, F, 3, seed=5), axis=-1)
    expected = ((quantiles[..., 0] <= TRUTH) & (TRUTH <= quantiles[..., 2])).mean()
    metric = IntervalCoverage(0.8, "quantiles", quantiles=levels)
    assert float(metric(TRUTH, quantiles)) == pytest.approx(expected)


def test_metrics_accumulate_over_batches():
    for metric in (CRPS(), IntervalCoverage()):
        whole = float(metric(TRUTH, DRAWS))
        metric.reset_state()
        metric.update_state(TRUTH[:1], DRAWS[:1])
        metric.update_state(TRUTH[1:], DRAWS[1:])
        assert float(metric.result()) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(
    "measure",
    [
        ForecastLoss("quantiles", quantiles=(0.1, 0.9), name="a"),
        ForecastLoss("gaussian", score="crps"),
        CRPS("gaussian", name="a"),
        IntervalCoverage(0.7, "quantiles", quantiles=(0.1, 0.9)),
    ],
)
def test_losses_and_metrics_survive_serialization(measure):
    serialized = keras.saving.serialize_keras_object(measure)
    copy = keras.saving.deserialize_keras_object(serialized)
    assert type(copy) is type(measure) and copy.name == measure.name
    for option in ("distribution", "quantiles", "score", "level"):
        assert getattr(copy, option, None) == getattr(measure, option, None)


def test_negative_counts_make_a_compiled_loss_nan():
    inputs = keras.Input((T, F))
    outputs = keras.layers.Dense(2 * F, activation="softplus")(inputs)
    outputs = keras.layers.Reshape((T, F, 2))(outputs)
    model = keras.Model(inputs, outputs)
    model.compile("sgd", ForecastLoss("negative_binomial"))
    counts = np.ones((B, T, F), "float32")
    assert np.isfinite(model.train_on_batch(TRUTH, counts))
    counts[0, 0, 0] = -1
    if keras.backend.backend() != "torch":
        assert np.isnan(model.train_on_batch(TRUTH, counts))
        return
    with pytest.raises(ValueError, match="must be counts"):  # PyTorch runs eagerly
        model.train_on_batch(TRUTH, counts)


def test_numeric_targets_are_shifted_by_one_unknown_step():
    source = [TRUTH[0], TRUTH[1, :3]]
    target = [DRAWS[0, 0], DRAWS[1, 0, :4]]
    covariates = [DRAWS[0, 1, :, :1], DRAWS[1, 1, :4, :1]]
    batches = teacher_forcing(
        source,
        target,
        shuffle=False,
        length_multiple=1,
        source_padding=np.nan,
        covariates=covariates,
        sample_weight=[1, 2],
    )
    [(inputs, labels, weights)] = batches
    assert (
        inputs["source"].shape == (2, T, F) and np.isnan(inputs["source"][1, 3:]).all()
    )
    assert_close(labels[0], target[0])
    assert_close(labels[1, :4], target[1])
    assert np.isnan(labels[1, 4:]).all()
    assert np.isnan(inputs["target"][:, 0]).all()
    assert_close(inputs["target"][:, 1:], labels[:, :-1])
    assert_close(inputs["covariates"][1, :4], covariates[1])
    assert weights.tolist() == [[1] * 5, [2] * 4 + [0]]
