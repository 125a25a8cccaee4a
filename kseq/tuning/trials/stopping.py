"""Rules that stop a hopeless trial early, from the learning curves seen so far."""

import statistics


class MedianStopping:
    """Stops a trial that has never been as good as others were on average by then.

    After an epoch, the trial's best score so far is compared with the median, over the
    trials that have ended, of their mean score up to the same epoch.

    Args:
        warmup_epochs: How many epochs each trial trains at the least.
        warmup_trials: How many trials end before any is stopped.

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

    def __init__(self, warmup_epochs=1, warmup_trials=4):
        self.warmup_epochs = at_least_one("warmup_epochs", warmup_epochs)
        self.warmup_trials = at_least_one("warmup_trials", warmup_trials)

    def is_hopeless(self, curve, others, direction):
        """Whether to stop.

        Args:
            curve: The trial's objective, one number an epoch.
            others: The curves of the trials that have ended, the stopped ones too.
            direction: `"min"` or `"max"`.
        """
        epochs = len(curve)
        means = [statistics.fmean(other[:epochs]) for other in others if other]
        if epochs < self.warmup_epochs or len(means) < self.warmup_trials:
            return False
        median = statistics.median(means)
        return min(curve) > median if direction == "min" else max(curve) < median


class SuccessiveHalving:
    """Lets only the best of the trials that came this far train on, without waiting.

    At the epochs `first`, `first * factor`, `first * factor**2`, ... a trial goes on if
    its best score so far is among the best 1 / `factor` of those that reached that
    epoch before it; the first `factor - 1` to come always go on. This is the stopping
    variant of asynchronous successive halving.

    Args:
        first: The epoch at which trials are first compared.
        factor: How many come for each that goes on.

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

    def __init__(self, first=1, factor=3):
        self.first = at_least_one("first", first)
        if factor < 2:
            raise ValueError(
                f"`factor` must be an integer of 2 or more. Received: factor={factor}."
            )
        self.factor = factor

    def is_hopeless(self, curve, others, direction):
        """As `MedianStopping.is_hopeless`."""
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


def at_least_one(name, value):
    if value < 1:
        raise ValueError(f"`{name}` must be 1 or more. Received: {name}={value}.")
    return value
