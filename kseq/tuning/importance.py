"""How much of the differences between trials each hyperparameter goes along with."""

import numpy as np

MOST_GROUPS = 4
FEWEST_TRIALS = 5


def importance(values, scores):
    """Returns the share of the ranking of trials that one hyperparameter explains.

    The trials are ranked by score and put into groups, one for each value, or, of a
    number with more than four values, one for each quarter of its range of ranks. The
    measure is eta squared of the Kruskal-Wallis test, `(H - k + 1) / (n - k)` for n
    trials in k groups: 0 if the groups rank alike, 1 if they do not overlap. Ranks make
    it blind to the scale of the scores, and a diverged trial counts as one trial. It
    sees one hyperparameter at a time, and no interplay of two.

    Args:
        values: The value of the hyperparameter in each trial in which it was active.
        scores: The score of each of these trials.

    Returns:
        A number from 0 to 1, or None where there are fewer than five trials, or only
        one group, or as many groups as trials.

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
    groups = grouped(values)
    count, number = len(scores), len(set(groups))
    if count < FEWEST_TRIALS or number < 2 or number >= count:
        return None
    ranks = average_ranks(scores)
    groups = np.array(groups)
    members = [ranks[groups == group] for group in dict.fromkeys(groups.tolist())]
    middle = (count + 1) / 2
    between = sum(len(m) * (m.mean() - middle) ** 2 for m in members)
    variance = ((ranks - middle) ** 2).sum() / (count - 1)  # with ties corrected
    if variance == 0:
        return 0.0
    eta_squared = (between / variance - number + 1) / (count - number)
    return float(np.clip(eta_squared, 0, 1))


def grouped(values):
    """A group number for each value."""
    distinct = sorted(set(values), key=lambda value: (str(type(value)), value))
    numeric = all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in values
    )
    if not numeric or len(distinct) <= MOST_GROUPS:
        return [distinct.index(value) for value in values]
    ranks = average_ranks(values)
    return [int(rank) for rank in (ranks - 0.5) * MOST_GROUPS // len(values)]


def average_ranks(values):
    """Ranks from 1, where equal values share the mean of theirs."""
    values = np.asarray(values, dtype=float)
    below = (values[None, :] < values[:, None]).sum(axis=1)
    equal = (values[None, :] == values[:, None]).sum(axis=1)
    return below + (equal + 1) / 2


def importances(rows):
    """Returns the importance of each hyperparameter, the greatest first.

    Each is judged by the trials that used it: where it was inactive, it could not
    matter. One that was the same in all trials is left out.

    Args:
        rows: Of the trials that have a score, `(values, score)`.

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
