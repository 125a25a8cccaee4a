"""Rules that stop hopeless trials early, from the learning curves seen so far."""

import statistics
from collections.abc import Sequence
from typing import Protocol


class StoppingRule(Protocol):
    """The interface of a stopping rule."""

    def is_hopeless(
        self,
        curve: Sequence[float],
        others: Sequence[Sequence[float]],
        direction: str,
    ) -> bool: ...


class MedianStopping:
    """A rule that stops a trial if its best score is worse than a median of others.

    After each epoch, the best score of the trial so far is compared with the median,
    over all ended trials, of their mean score up to the same epoch.

    Args:
        warmup_epochs: Minimum number of epochs of each trial.
        warmup_trials: Number of trials that must end before any is stopped.

    Example:

    >>> from kseq.tuning import MedianStopping
    >>> rule = MedianStopping(warmup_epochs=1, warmup_trials=2)
    >>> rule.is_hopeless([0.9, 0.8], [[0.7, 0.5], [0.6, 0.4]], "min")
    True
    >>> rule.is_hopeless([0.9, 0.5], [[0.7, 0.5], [0.6, 0.4]], "min")
    False

    References:
        - [Golovin et al., 2017](https://doi.org/10.1145/3097983.3098043), "Google
          Vizier: a service for black-box optimization", 3.2.2
    """

    def __init__(self, warmup_epochs: int = 1, warmup_trials: int = 4) -> None:
        self.warmup_epochs = at_least_one("warmup_epochs", warmup_epochs)
        self.warmup_trials = at_least_one("warmup_trials", warmup_trials)

    def is_hopeless(
        self,
        curve: Sequence[float],
        others: Sequence[Sequence[float]],
        direction: str,
    ) -> bool:
        """Return whether to stop the trial.

        Args:
            curve: The objective of the trial, one number per epoch.
            others: The curves of all ended trials, including stopped ones.
            direction: `"min"` or `"max"`.
        """
        epochs = len(curve)
        means = [statistics.fmean(other[:epochs]) for other in others if other]
        if epochs < self.warmup_epochs or len(means) < self.warmup_trials:
            return False
        median = statistics.median(means)
        return min(curve) > median if direction == "min" else max(curve) < median


class SuccessiveHalving:
    """A rule that continues only the best of the trials that reached an epoch.

    At the epochs `first`, `first * factor`, `first * factor**2`, ... a trial continues
    if its best score so far is among the best 1 / `factor` of the trials that reached
    that epoch before it, without waiting for others. The first `factor - 1` trials
    always continue. This is the stopping variant of asynchronous successive halving.

    Args:
        first: The epoch at which trials are first compared.
        factor: Number of trials of which one continues.

    Example:

    >>> from kseq.tuning import SuccessiveHalving
    >>> rule = SuccessiveHalving(first=2, factor=2)
    >>> rule.is_hopeless([0.9], [[0.7, 0.5], [0.6, 0.4]], "min")
    False
    >>> rule.is_hopeless([0.9, 0.8], [[0.7, 0.5], [0.6, 0.4]], "min")
    True

    References:
        - [Li et al., 2020](https://arxiv.org/abs/1810.05934), "A system for massively
          parallel hyperparameter tuning", 3.2
        - [Jamieson and Talwalkar, 2016](https://arxiv.org/abs/1502.07943), algorithm 1
    """

    def __init__(self, first: int = 1, factor: int = 3) -> None:
        self.first = at_least_one("first", first)
        if factor < 2:
            raise ValueError(
                f"`factor` must be an integer of 2 or more. Received: factor={factor}."
            )
        self.factor = factor

    def is_hopeless(
        self,
        curve: Sequence[float],
        others: Sequence[Sequence[float]],
        direction: str,
    ) -> bool:
        """Return whether to stop the trial; see `MedianStopping.is_hopeless`."""
        epochs = len(curve)
        rung = self.first
        while rung < epochs:
            rung *= self.factor
        if rung != epochs:
            return False
        sign = 1 if direction == "min" else -1
        mine = min(sign * value for value in curve)
        reached = [other[:epochs] for other in others if len(other) >= epochs]
        ahead = sum(min(sign * value for value in other) < mine for other in reached)
        places = max(1, (len(reached) + 1) // self.factor)
        return len(reached) + 1 >= self.factor and ahead >= places


def at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"`{name}` must be 1 or more. Received: {name}={value}.")
    return value
