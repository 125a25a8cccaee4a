"""Result of a forecasting model.

Axes in shape comments: B batch, N draws, T steps, F features.
"""

import dataclasses

import numpy as np

from kseq.layers.validation import number


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Next steps of each series, as several draws or as one path.

    Attributes:
        draws: `(B, N, T, F)`, N equally likely continuations of each series.

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
        """Mean of the draws at each step, `(B, T, F)`."""
        return self.draws.mean(axis=1)

    def quantile(self, level: float) -> np.ndarray:
        """Return the quantile of the draws at each step.

        Args:
            level: From 0 to 1; 0.5 is the median.

        Returns:
            `(B, T, F)`.

        Raises:
            ValueError: `level` is not from 0 to 1, or there is only one path.
        """
        if not 0 <= number("level", level) <= 1:
            raise ValueError(
                f"`level` must be a number from 0 to 1. Received: level={level!r}. "
                "Pass 0.9 for 90 percent."
            )
        if self.draws.shape[1] == 1:
            raise ValueError(
                "Quantiles need several draws. Received: a forecast of one path. "
                "Generate it with `model.generate(..., num_draws=100)`."
            )
        return np.quantile(self.draws, level, axis=1)

    def interval(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Return the two quantiles between which this fraction of the draws lies.

        Args:
            level: From 0 to 1.

        Returns:
            Two arrays `(B, T, F)`.
        """
        return self.quantile(0.5 - level / 2), self.quantile(0.5 + level / 2)
