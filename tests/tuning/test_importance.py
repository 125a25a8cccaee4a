import numpy as np
import pytest
from scipy import stats

from kseq.tuning.importance import importance, importances

RANDOM = np.random.default_rng(5)


def test_importance_is_eta_squared_of_the_kruskal_wallis_test():
    values = RANDOM.choice(["a", "b", "c"], size=29).tolist()
    scores = RANDOM.normal(size=29) + [ord(value) - 97 for value in values]
    scores[3] = scores[11]  # a tie
    groups = [[s for v, s in zip(values, scores, strict=True) if v == g] for g in "abc"]
    h = stats.kruskal(*groups).statistic
    assert importance(values, scores) == pytest.approx((h - 3 + 1) / (29 - 3))


def test_numbers_are_grouped_into_quartiles():
    values = RANDOM.normal(size=41).tolist()
    scores = [value**3 for value in values]
    quarters = np.array_split(np.arange(41), 4)
    ordered = sorted(scores)
    h = stats.kruskal(*[[ordered[i] for i in q] for q in quarters]).statistic
    assert importance(values, scores) == pytest.approx((h - 3) / 37, abs=0.03)
    assert importance(values, RANDOM.permutation(scores)) < 0.2


def test_score_scale_and_diverged_trials_do_not_change_importance():
    values = RANDOM.integers(0, 3, size=23).tolist()
    scores = RANDOM.normal(size=23) + values
    worst = scores.copy()
    worst[scores.argmax()] = 1e30
    assert importance(values, np.power(worst, 3)) == importance(values, scores)


def test_importance_is_none_without_enough_trials_or_groups():
    assert importance([1, 2, 1, 2], [1, 2, 3, 4]) is None
    assert importance(["a"] * 7, list(range(7))) is None
    assert importance(list("abcdefg"), list(range(7))) is None


def test_ignores_constant_values_and_trials_with_inactive_ones():
    rows = []
    for index in range(24):
        values = {"kind": "deep" if index % 2 else "flat", "seed": 3}
        if index % 2:
            values["units"] = 2 + index % 3
        rows.append((values, index % 3 if index % 2 else 10 + index * 0.1))
    found = {name: (share, used) for name, share, used in importances(rows)}
    assert found.keys() == {"kind", "units"}
    assert found["units"][1] == 12 and found["units"][0] > 0.8
    assert found["kind"][1] == 24
