"""Forecast distributions, compared with SciPy and with their own samples."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special, stats

from kseq.layers import ForecastHead
from kseq.layers.distributions import (
    QUANTILES,
    distribution_of,
    gamma,
    log_gamma,
    log_gamma_ratio,
    poisson,
)
from tests.helpers import array, assert_close, check_layer, random_array

HEADS = {
    "mean": {"distribution": "mean"},
    "student_t": {"distribution": "student_t"},
    "negative_binomial": {"distribution": "negative_binomial"},
    "quantiles": {"distribution": "quantiles", "quantiles": (0.1, 0.5, 0.8)},
}
UNIFORMS = np.random.default_rng(7).uniform(size=(200_000, 14)).astype("float32")


def tensor(*values):
    return ops.convert_to_tensor(np.array(values), "float32")


@pytest.mark.parametrize("name", HEADS)
def test_a_forecast_head_keeps_the_contract_of_layers(name):
    initializer = keras.initializers.HeNormal
    arguments = {"num_features": 3, "kernel_initializer": lambda: initializer()}
    inputs = {"inputs": random_array(2, 5, 7)}
    if name == "quantiles":
        check_layer(ForecastHead, {**arguments, **HEADS[name]}, inputs)
        return
    head = ForecastHead(num_features=3, **HEADS[name])
    axes = () if name == "mean" else (head.formulas.num_parameters,)
    assert tuple(head(inputs["inputs"]).shape) == (2, 5, 3, *axes)


@pytest.mark.parametrize("x", [1e-3, 0.3, 1.0, 4.5, 7.99, 8.0, 120.0, 1e4])
def test_log_gamma_equals_scipy(x):
    expected = special.gammaln(x)
    assert_close(log_gamma(tensor(x)), [expected], rtol=3e-6, atol=3e-6)
    for step in (0.5, -0.5 * min(x, 1), 3.0, 1e3):
        ratio = special.gammaln(x + step) - expected
        assert_close(log_gamma_ratio(tensor(x), step), [ratio], rtol=1e-5, atol=1e-5)


def test_the_loss_of_a_gaussian_is_its_negative_log_likelihood():
    values, means, deviations = [0.3, -2.0, 7.0], [0.1, 1.0, 7.5], [0.2, 3.0, 1.1]
    parameters = ops.stack([tensor(*means), tensor(*deviations)], -1)
    loss = distribution_of("gaussian").loss(tensor(*values), parameters)
    assert_close(loss, -stats.norm(means, deviations).logpdf(values))


@pytest.mark.parametrize("freedom", [2.1, 5.0, 80.0])
def test_the_loss_of_student_t_is_its_negative_log_likelihood(freedom):
    values, locations, scales = [0.3, -2.0, 70.0], [0.1, 1.0, 7.5], [0.2, 3.0, 1.1]
    parameters = [locations, scales, [freedom] * 3]
    parameters = ops.stack([tensor(*each) for each in parameters], -1)
    loss = distribution_of("student_t").loss(tensor(*values), parameters)
    expected = -stats.t(freedom, locations, scales).logpdf(values)
    assert_close(loss, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dispersion", [1e-3, 0.2, 1.0, 30.0])
@pytest.mark.parametrize("mean", [0.05, 3.0, 400.0])
def test_the_loss_of_counts_is_the_negative_log_likelihood(mean, dispersion):
    values = np.array([0.0, 1.0, 7.0, 390.0])
    parameters = tensor(*[[mean, dispersion]] * 4)
    loss = distribution_of("negative_binomial").loss(tensor(*values), parameters)
    shape = 1 / dispersion
    expected = -stats.nbinom(shape, shape / (shape + mean)).logpmf(values)
    assert_close(loss, expected, rtol=1e-4, atol=2e-3)


def test_the_loss_of_quantiles_is_the_pinball_loss():
    levels, quantiles, value = (0.1, 0.5, 0.8), [-1.0, 0.5, 2.0], 1.2
    losses = [
        level * (value - q) if value > q else (1 - level) * (q - value)
        for level, q in zip(levels, quantiles, strict=True)
    ]
    loss = distribution_of("quantiles", levels).loss(
        tensor(value), tensor(*quantiles)[None]
    )
    assert_close(loss, [np.mean(losses)])


@pytest.mark.parametrize("value", [-3.0, 0.4, 2.5])
def test_the_crps_of_a_gaussian_is_its_integral(value):
    mean, deviation = 0.5, 1.3
    x = np.linspace(-20, 20, 400_001)
    errors = (stats.norm(mean, deviation).cdf(x) - (x >= value)) ** 2
    parameters = tensor([mean, deviation])
    crps = distribution_of("gaussian").crps(tensor(value), parameters)
    assert_close(crps, [np.trapezoid(errors, x)], atol=1e-4)


@pytest.mark.parametrize(
    "name, parameters, expected",
    [
        ("gaussian", (0.5, 1.3), stats.norm(0.5, 1.3)),
        ("student_t", (0.5, 1.3, 4.5), stats.t(4.5, 0.5, 1.3)),
        ("student_t", (0.5, 1.3, 40.0), stats.t(40, 0.5, 1.3)),
        ("negative_binomial", (3.0, 0.5), stats.nbinom(2, 2 / 5)),
        ("negative_binomial", (0.2, 3.0), stats.nbinom(1 / 3, 1 / (1 + 0.6))),
        ("negative_binomial", (90.0, 0.1), stats.nbinom(10, 10 / 100)),
    ],
)
def test_samples_follow_the_distribution(name, parameters, expected):
    distribution = distribution_of(name)
    rows = np.repeat(np.array([parameters], "float32"), len(UNIFORMS), axis=0)
    uniforms = ops.convert_to_tensor(UNIFORMS[:, : distribution.num_uniforms])
    samples = array(distribution.draw(ops.convert_to_tensor(rows), uniforms))
    assert abs(samples.mean() - expected.mean()) < 0.01 * expected.std()
    assert abs(samples.std() / expected.std() - 1) < 0.05
    mean = array(distribution.mean(ops.convert_to_tensor(rows[:1])))
    assert_close(mean, [expected.mean()])
    for level in (0.05, 0.3, 0.5, 0.9, 0.99):
        point = expected.ppf(level)
        assert abs((samples <= point).mean() - expected.cdf(point)) < 0.005


@pytest.mark.parametrize("shape", [0.2, 1.0, 6.5])
def test_gamma_samples_follow_the_distribution(shape):
    samples = array(
        gamma(tensor(*[shape] * len(UNIFORMS)), ops.convert_to_tensor(UNIFORMS))
    )
    assert stats.kstest(stats.gamma(shape).cdf(samples), "uniform").statistic < 0.005


@pytest.mark.parametrize("rate", [0.0, 0.3, 15.9, 16.1, 300.0])
def test_poisson_quantiles_equal_scipy(rate):
    uniforms = (np.arange(1000) + 0.5) / 1000
    found = array(poisson(tensor(*[rate] * 1000), tensor(*uniforms)))
    wrong = found != stats.poisson(rate).ppf(uniforms)
    assert wrong.mean() <= 0.004
    assert abs(found - stats.poisson(rate).ppf(uniforms)).max() <= 1


def test_quantiles_increase_and_samples_follow_them():
    levels = (0.1, 0.5, 0.8)
    distribution = distribution_of("quantiles", levels)
    parameters = distribution.parameters(ops.convert_to_tensor(random_array(50, 3)))
    assert (np.diff(array(parameters), axis=-1) > 0).all()
    row = np.array([-1.0, 0.5, 2.0], "float32")
    samples = array(
        distribution.draw(
            ops.convert_to_tensor(np.tile(row, (len(UNIFORMS), 1))),
            ops.convert_to_tensor(UNIFORMS[:, :1]),
        )
    )
    for level, quantile in zip(levels, row, strict=True):
        assert abs((samples <= quantile).mean() - level) < 0.004
    mean = array(distribution.mean(tensor(*row)))
    assert abs(samples.mean() - mean) < 0.01


def test_the_default_quantiles_span_90_percent():
    assert QUANTILES[0] == 0.05 and QUANTILES[-1] == 0.95
