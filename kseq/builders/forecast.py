"""The result of a model that writes numbers.

Axes in shape comments: B batch, N draws, T steps, F features.
"""

import dataclasses

import numpy as np

from kseq.layers.validation import number


@dataclasses.dataclass(frozen=True)
class Forecast:
    """The steps that follow on each series, in several draws or as one path.

    Attributes:
        draws: `(B, N, T, F)`, N series of steps for each row, each as likely.

    Example:

    >>> import kseq, numpy as np
    >>> model = kseq.encoder_decoder(
    ...     source=kseq.layers.FeatureEmbedding(3, 8),
    ...     target=kseq.layers.FeatureEmbedding(1, 8),
    ...     head="gaussian",
    ... )
    >>> forecast = model.generate(np.ones((2, 5, 3)), num_steps=4, num_draws=9, seed=1)
    >>> forecast.draws.shape, forecast.mean.shape, forecast.quantile(0.9).shape
    ((2, 9, 4, 1), (2, 4, 1), (2, 4, 1))
    >>> low, high = forecast.interval(0.8)
    >>> bool((low <= high).all())
    True
    """

    draws: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """The mean of the draws at each step, `(B, T, F)`."""
        return self.draws.mean(axis=1)

    def quantile(self, level) -> np.ndarray:
        """The number below which this share of the draws is, at each step.

        Args:
            level: From 0 to 1; 0.5 is the median.

        Returns:
            `(B, T, F)`.

        Raises:
            ValueError: The level is outside of 0 to 1, or there is one path alone.
        """
        if not 0 <= number("level", level) <= 1:
            raise ValueError(
                f"`level` must be a number from 0 to 1. Received: level={level!r}. "
                "Ninety percent are 0.9."
            )
        if self.draws.shape[1] == 1:
            raise ValueError(
                "Quantiles need several draws. Received: a forecast of one path. "
                "Write it with `model.generate(..., num_draws=100)`."
            )
        return np.quantile(self.draws, level, axis=1)

    def interval(self, level=0.9) -> tuple[np.ndarray, np.ndarray]:
        """The two quantiles between which this share of the draws is.

        Args:
            level: From 0 to 1.

        Returns:
            Two arrays `(B, T, F)`.
        """
        return self.quantile(0.5 - level / 2), self.quantile(0.5 + level / 2)
