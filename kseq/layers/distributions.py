"""Probability distributions of the numbers that a model forecasts.

Axes in shape comments: P parameters, Q quantiles, C random numbers; dots for the
leading axes, those of the numbers.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from keras import ops

from kseq.layers.validation import one_of
from kseq.typing import Tensor

SMALLEST = 1e-5  # deviation, for a series that is constant
SMALLEST_DISPERSION = 1e-3  # of counts; float32 is not precise enough for less
LEAST_UNIFORM = 2.0**-25  # half of the smallest random number above 0
QUANTILES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


class Point:
    """A point forecast: one number, without a distribution.

    All distributions have these methods; `crps` is None if it is not implemented. Their
    parameters are `(..., P)`; here they are `(...)`.

    Attributes:
        num_parameters: Number of parameters P.
        num_uniforms: Number of random numbers C for one sample. It is 1 where `draw` is
            the inverse distribution function, and 0 where sampling is impossible.
    """

    num_parameters, num_uniforms = 1, 0

    def parameters(self, outputs: Tensor) -> Tensor:
        """Return the parameters for unconstrained outputs `(..., P)`."""
        return outputs[..., 0]

    def mean(self, parameters: Tensor) -> Tensor:
        """Return the mean `(...)`."""
        return parameters

    def draw(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        """Turn uniform random numbers `(..., C)` in [0, 1) into samples `(...)`."""
        raise NotImplementedError

    def loss(self, values: Tensor, parameters: Tensor) -> Tensor:
        """Return the loss of values `(...)`: `(...)`, here the squared errors."""
        return ops.square(values - parameters)

    def crps(self, values: Tensor, parameters: Tensor) -> Tensor:
        """Return the continuous ranked probability score `(...)`."""
        return ops.abs(values - parameters)


class Gaussian:
    """The normal distribution: mean and standard deviation."""

    num_parameters, num_uniforms = 2, 1

    def parameters(self, outputs: Tensor) -> Tensor:
        mean, deviation = outputs[..., 0], outputs[..., 1]
        return ops.stack([mean, positive(deviation)], axis=-1)

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters[..., 0]

    def draw(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        return parameters[..., 0] + parameters[..., 1] * normal(uniforms[..., 0])

    def loss(self, values: Tensor, parameters: Tensor) -> Tensor:
        mean, deviation = parameters[..., 0], parameters[..., 1]
        z = (values - mean) / deviation
        return ops.log(deviation) + 0.5 * (ops.square(z) + math.log(2 * math.pi))

    def crps(self, values: Tensor, parameters: Tensor) -> Tensor:
        mean, deviation = parameters[..., 0], parameters[..., 1]
        z = (values - mean) / deviation
        density = ops.exp(-0.5 * ops.square(z)) / math.sqrt(2 * math.pi)
        absolute = z * ops.erf(z / math.sqrt(2))
        return deviation * (absolute + 2 * density - 1 / math.sqrt(math.pi))


class StudentT:
    """Student's t distribution: location, scale, degrees of freedom above 2."""

    num_parameters, num_uniforms = 3, 2
    crps: Any = None

    def parameters(self, outputs: Tensor) -> Tensor:
        location, scale = outputs[..., 0], positive(outputs[..., 1])
        freedom = 2.0 + positive(outputs[..., 2])
        return ops.stack([location, scale, freedom], axis=-1)

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters[..., 0]

    def draw(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        location, scale, freedom = (parameters[..., i] for i in range(3))
        # Bailey, 1994: for uniform U and V, sqrt(n (U ** (-2 / n) - 1)) cos(2 pi V).
        exponent = -2.0 / freedom * ops.log(above_zero(uniforms[..., 0]))
        radius = ops.sqrt(freedom * ops.expm1(exponent))
        return location + scale * radius * ops.cos(2 * math.pi * uniforms[..., 1])

    def loss(self, values: Tensor, parameters: Tensor) -> Tensor:
        location, scale, freedom = (parameters[..., i] for i in range(3))
        z = (values - location) / scale
        normalizer = log_gamma_ratio(0.5 * freedom, 0.5)
        normalizer = normalizer - 0.5 * ops.log(freedom * math.pi) - ops.log(scale)
        power = 0.5 * (freedom + 1.0)
        return power * ops.log1p(ops.square(z) / freedom) - normalizer


class NegativeBinomial:
    """Counts: mean m and dispersion a, with the variance `m + a m ** 2`."""

    num_parameters = 2
    num_rounds = 6
    num_uniforms = 2 + 2 * num_rounds
    crps: Any = None

    def parameters(self, outputs: Tensor) -> Tensor:
        mean = positive(outputs[..., 0])
        dispersion = positive(outputs[..., 1], SMALLEST_DISPERSION)
        return ops.stack([mean, dispersion], axis=-1)

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters[..., 0]

    def draw(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        mean, dispersion = parameters[..., 0], parameters[..., 1]
        rate = gamma(1.0 / dispersion, uniforms[..., 1:]) * dispersion * mean
        return poisson(rate, uniforms[..., 0])

    def loss(self, values: Tensor, parameters: Tensor) -> Tensor:
        mean, shape = parameters[..., 0], 1.0 / parameters[..., 1]
        ways = log_gamma_ratio(values + 1.0, shape - 1.0) - log_gamma(shape)
        zeros = shape * ops.log1p(mean / shape)
        ones = values * (ops.log(mean) - ops.log(shape + mean))
        return zeros - ones - ways


class Quantiles:
    """Quantiles of a distribution, interpolated and extrapolated linearly.

    Args:
        levels: The probabilities of the quantiles, Q increasing numbers.
    """

    num_uniforms = 1

    def __init__(self, levels: Sequence[float]) -> None:
        self.levels = levels
        self.num_parameters = len(levels)

    def parameters(self, outputs: Tensor) -> Tensor:
        steps = [outputs[..., :1], positive(outputs[..., 1:], 0.0)]
        return ops.cumsum(ops.concatenate(steps, axis=-1), axis=-1)  # never decreases

    def mean(self, parameters: Tensor) -> Tensor:
        means = [right_share(*pair) for pair in pairs(self.levels)]
        first, last = self.levels[0], self.levels[-1]
        means[0] -= 0.5 * first**2 / (self.levels[1] - first)
        means[-1] += 0.5 * (1 - last) ** 2 / (last - self.levels[-2])
        return self._between(parameters, means)

    def draw(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        shares = []
        for low, high in pairs(self.levels):
            share = (uniforms[..., 0] - low) / (high - low)
            if low != self.levels[0]:
                share = ops.maximum(share, 0.0)
            if high != self.levels[-1]:
                share = ops.minimum(share, 1.0)
            shares.append(share)
        return self._between(parameters, shares)

    def _between(self, parameters: Tensor, shares: Sequence[Tensor | float]) -> Tensor:
        """Return the first quantile plus a fraction of each step to the next one."""
        value = parameters[..., 0]
        for index, share in enumerate(shares):
            step = parameters[..., index + 1] - parameters[..., index]
            value = value + step * share
        return value

    def loss(self, values: Tensor, parameters: Tensor) -> Tensor:
        errors = ops.expand_dims(values, -1) - parameters  # ... Q
        levels = ops.convert_to_tensor(self.levels, parameters.dtype)  # Q
        pinballs = ops.maximum(levels * errors, (levels - 1.0) * errors)
        return ops.mean(pinballs, axis=-1)

    def crps(self, values: Tensor, parameters: Tensor) -> Tensor:
        return 2.0 * self.loss(values, parameters)


Distribution: TypeAlias = Point | Gaussian | StudentT | NegativeBinomial | Quantiles

SIMPLE: dict[str, Callable[[], Distribution]] = {
    "mean": Point,
    "gaussian": Gaussian,
    "student_t": StudentT,
    "negative_binomial": NegativeBinomial,
}
NAMES = (*SIMPLE, "quantiles")


def distribution_of(
    name: str, quantiles: Sequence[float] | None = None
) -> Distribution:
    """Return the distribution with a name.

    Args:
        name: One of `NAMES`.
        quantiles: The levels of `"quantiles"`, two or more increasing numbers between 0
            and 1. Defaults to `QUANTILES`.

    Raises:
        ValueError: The name is unknown, the levels are invalid, or levels are given for
            another distribution.
    """
    one_of("distribution", name, NAMES)
    if name == "quantiles":
        return Quantiles(checked_levels(QUANTILES if quantiles is None else quantiles))
    if quantiles is not None:
        raise ValueError(
            '`quantiles` are the levels of the distribution "quantiles". Received: '
            f"quantiles={quantiles} with {name!r}. Leave them out, or use "
            '"quantiles".'
        )
    return SIMPLE[name]()


def checked_levels(levels: Iterable[float]) -> tuple[float, ...]:
    """Return the levels as a tuple; raise unless they increase between 0 and 1."""
    levels = tuple(float(level) for level in levels)
    is_rising = all(low < high for low, high in pairs(levels))
    if len(levels) < 2 or not is_rising or not 0 < levels[0] or not levels[-1] < 1:
        raise ValueError(
            "`quantiles` must be two or more increasing levels between 0 and 1. "
            f"Received: quantiles={levels}. For an interval of 90 % and the median, "
            "use `quantiles=(0.05, 0.5, 0.95)`."
        )
    return levels


def pairs(values: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(values, values[1:], strict=False))


def right_share(low: float, high: float) -> float:
    """Return the mean of a ramp from 0 at `low` to 1 at `high`, of a uniform number."""
    return 1.0 - 0.5 * (low + high)


def positive(x: Tensor, least: float = SMALLEST) -> Tensor:
    """Map any number to one above `least`."""
    return ops.softplus(x) + least


def above_zero(uniforms: Tensor) -> Tensor:
    return ops.maximum(uniforms, LEAST_UNIFORM)


def normal(uniforms: Tensor) -> Tensor:
    """Return the inverse distribution function of the standard normal."""
    return math.sqrt(2) * ops.erfinv(2.0 * above_zero(uniforms) - 1.0)


def gamma(shape: Tensor, uniforms: Tensor) -> Tensor:
    """Sample from gamma distributions with scale 1.

    Uses the method of Marsaglia and Tsang, 2000, with as many trials as `uniforms`
    allows. For one sample in a hundred million all trials fail; it is near the mean.

    Args:
        shape: Above 0, `(...)`.
        uniforms: `(..., C)`: one, plus two for each trial.
    """
    is_small = shape < 1.0
    d = ops.where(is_small, shape + 1.0, shape) - 1.0 / 3.0
    drawn, is_open = d, ops.ones_like(d, dtype="bool")
    for first in range(1, uniforms.shape[-1] - 1, 2):
        x = normal(uniforms[..., first])
        cube = (1.0 + x / ops.sqrt(9.0 * d)) ** 3
        log_cube = ops.log(ops.maximum(cube, LEAST_UNIFORM))
        log_u = ops.log(above_zero(uniforms[..., first + 1]))
        bound = 0.5 * ops.square(x) + d * (1.0 - cube + log_cube)
        is_taken = ops.logical_and(cube > 0.0, log_u < bound)
        is_first = ops.logical_and(is_open, is_taken)
        drawn = ops.where(is_first, d * cube, drawn)
        is_open = ops.logical_and(is_open, ops.logical_not(is_taken))
    factor = ops.exp(ops.log(above_zero(uniforms[..., 0])) / shape)
    return ops.where(is_small, drawn * factor, drawn)


def poisson(rate: Tensor, uniforms: Tensor) -> Tensor:
    """Return the inverse distribution function of the Poisson distribution.

    Up to a rate of 16 it is a sum; above, it is the expansion of Giles, 2016, (10).

    Args:
        rate: At least 0, `(...)`.
        uniforms: `(...)`.
    """
    most = 16.0
    small = ops.expand_dims(ops.clip(rate, 1e-20, most), -1)  # ... 1
    counts = ops.arange(64, dtype="int32")
    counts = ops.cast(counts, rate.dtype)
    factorials = [math.lgamma(count + 1.0) for count in range(64)]
    factorials = ops.convert_to_tensor(factorials, rate.dtype)
    chances = ops.exp(counts * ops.log(small) - small - factorials)  # ... 64
    below = ops.cumsum(chances, axis=-1)
    is_passed = ops.expand_dims(uniforms, -1) >= below
    summed = ops.sum(ops.cast(is_passed, rate.dtype), axis=-1)
    w, root = normal(uniforms), ops.sqrt(ops.maximum(rate, most))
    square = ops.square(w)
    expanded = rate + root * w + 1 / 3 + square / 6 - w * (2 + square) / (72 * root)
    expanded = ops.maximum(ops.floor(expanded), 0.0)
    return ops.where(rate <= most, summed, expanded)


def log_gamma(x: Tensor) -> Tensor:
    """Return the logarithm of the gamma function, for numbers above 0.

    Stirling's series at `x + 8`, then the recurrence down to `x`.
    """
    far = x + 8.0
    series = (far - 0.5) * ops.log(far) - far + 0.5 * math.log(2 * math.pi)
    down = [ops.log(rising(x, first)) for first in (0, 4)]
    return series + stirling(far) - down[0] - down[1]


def log_gamma_ratio(x: Tensor, step: Tensor | float) -> Tensor:
    """Return `log_gamma(x + step) - log_gamma(x)`, precise even if both are large."""
    far = x + 8.0
    ratio = (far - 0.5) * ops.log1p(step / far) + step * ops.log(far + step) - step
    ratio = ratio + stirling(far + step) - stirling(far)
    for number in range(8):
        ratio = ratio - ops.log1p(step / (x + number))
    return ratio


def stirling(x: Tensor) -> Tensor:
    """Return the correction terms of Stirling's formula, for numbers from 8 on."""
    inverse = 1.0 / x
    square = ops.square(inverse)
    return inverse * (1 / 12 - square * (1 / 360 - square / 1260))


def rising(x: Tensor, first: int) -> Tensor:
    """Return the product of `x + first` to `x + first + 3`."""
    product = x + first
    for number in range(first + 1, first + 4):
        product = product * (x + number)
    return product
