"""Importance of hyperparameters: the share of the ranking of trials they explain."""

from collections.abc import Sequence
from typing import Any

import numpy as np

MOST_GROUPS = 4
FEWEST_TRIALS = 5


def importance(values: Sequence[Any], scores: Sequence[float]) -> float | None:
    """Compute the share of the ranking of trials that one hyperparameter explains.

    The trials are ranked by score and grouped by value. For a number with more than
    four values, each quarter of the ranks of the values is a group. The measure is eta
    squared of the Kruskal-Wallis test, `(H - k + 1) / (n - k)` for n trials in k
    groups: 0 if the groups have the same ranks, 1 if they do not overlap. Ranks make it
    independent of the scale of the scores, and a diverged trial counts like any other.
    It considers one hyperparameter at a time, without interactions.

    Args:
        values: The value of the hyperparameter in each trial in which it was active.
        scores: The score of each of these trials.

    Returns:
        A number from 0 to 1. None if there are fewer than five trials, only one group,
        or as many groups as trials.

    Example:

    >>> from kseq.tuning.importance import importance
    >>> importance(["a", "a", "a", "b", "b", "b"], [1, 2, 3, 4, 5, 6])
    0.714...
    >>> importance(["a", "b", "a", "b", "b", "a"], [1, 2, 4, 3, 5, 6])
    0.0

    References:
        - [Kruskal and Wallis, 1952](https://doi.org/10.2307/2280779), eq. 1.1 to 1.3
        - Tomczak and Tomczak, 2014, "The need to report effect size estimates
          revisited", Trends in Sport Sciences 1(21), table 1
    """
    numbers = grouped(values)
    count, number = len(scores), len(set(numbers))
    if count < FEWEST_TRIALS or number < 2 or number >= count:
        return None
    ranks = average_ranks(scores)
    groups = np.array(numbers)
    members = [ranks[groups == group] for group in dict.fromkeys(groups.tolist())]
    middle = (count + 1) / 2
    between = sum(len(m) * (m.mean() - middle) ** 2 for m in members)
    variance = ((ranks - middle) ** 2).sum() / (count - 1)  # corrected for ties
    if variance == 0:
        return 0.0
    eta_squared = (between / variance - number + 1) / (count - number)
    return float(np.clip(eta_squared, 0, 1))


def grouped(values: Sequence[Any]) -> list[int]:
    """Return a group number for each value."""
    distinct = sorted(set(values), key=lambda value: (str(type(value)), value))
    numeric = all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in values
    )
    if not numeric or len(distinct) <= MOST_GROUPS:
        return [distinct.index(value) for value in values]
    ranks = average_ranks(values)
    return [int(rank) for rank in (ranks - 0.5) * MOST_GROUPS // len(values)]


def average_ranks(values: Sequence[float]) -> np.ndarray:
    """Return ranks from 1, where equal values share the mean of their ranks."""
    array = np.asarray(values, dtype=float)
    below = (array[None, :] < array[:, None]).sum(axis=1)
    equal = (array[None, :] == array[:, None]).sum(axis=1)
    return below + (equal + 1) / 2


def importances(
    rows: Sequence[tuple[dict[str, Any], float]],
) -> list[tuple[str, float | None, int]]:
    """Return the importance of each hyperparameter, the highest first.

    Only trials that used a hyperparameter count for it. A hyperparameter with the same
    value in all of them is left out.

    Args:
        rows: `(values, score)` of the trials that have a score.

    Returns:
        A list of `(name, importance or None, number of trials that used it)`.
    """
    names = dict.fromkeys(name for values, _ in rows for name in values)
    found = []
    for name in names:
        used = [(values[name], score) for values, score in rows if name in values]
        if len({value for value, _ in used}) > 1:
            share = importance([v for v, _ in used], [score for _, score in used])
            found.append((name, share, len(used)))
    return sorted(found, key=lambda item: 1 if item[1] is None else -item[1])
