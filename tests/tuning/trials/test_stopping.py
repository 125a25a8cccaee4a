import statistics

import numpy as np
import pytest

from kseq.tuning.trials.stopping import MedianStopping, SuccessiveHalving

RANDOM = np.random.default_rng(7)
OTHERS = [RANDOM.uniform(size=length).tolist() for length in (3, 5, 5, 2, 7)]


@pytest.mark.parametrize("direction", ["min", "max"])
def test_median_rule_matches_the_paper(direction):
    rule, verdicts = MedianStopping(warmup_epochs=1, warmup_trials=5), set()
    for epochs in (1, 3, 5):
        means = [sum(o[:epochs]) / len(o[:epochs]) for o in OTHERS]
        median = statistics.median(means)
        for _ in range(20):
            curve = RANDOM.uniform(size=epochs).tolist()
            worse = min(curve) > median if direction == "min" else max(curve) < median
            assert rule.is_hopeless(curve, OTHERS, direction) == worse
            verdicts.add(worse)
    assert verdicts == {True, False}


def test_median_rule_waits_for_epochs_and_trials():
    others = [[0.1, 0.1]] * 4
    assert MedianStopping(1, 4).is_hopeless([0.9], others, "min")
    assert not MedianStopping(2, 4).is_hopeless([0.9], others, "min")
    assert not MedianStopping(1, 5).is_hopeless([0.9], others, "min")


def test_successive_halving_stops_only_at_its_rungs():
    rule, others = SuccessiveHalving(first=2, factor=3), [[0.1] * 30] * 9
    stops = [e for e in range(1, 30) if rule.is_hopeless([0.9] * e, others, "min")]
    assert stops == [2, 6, 18]


@pytest.mark.parametrize("direction", ["min", "max"])
def test_successive_halving_keeps_the_best_share_of_trials_at_a_rung(direction):
    rule, seen = SuccessiveHalving(first=1, factor=3), []
    for _ in range(40):
        curve = [float(RANDOM.uniform())]
        better = [c for c in seen if (c < curve if direction == "min" else c > curve)]
        # In the paper: among the best n // 3 of the n at the rung, this one included.
        places = max(1, (len(seen) + 1) // 3)
        kept = len(seen) < 2 or len(better) < places
        assert rule.is_hopeless(curve, seen, direction) != kept
        seen.append(curve)


def test_trial_that_never_reached_a_rung_is_not_counted_there():
    rule = SuccessiveHalving(first=2, factor=2)
    assert not rule.is_hopeless([0.9, 0.9], [[0.1]] * 5, "min")


def test_rejects_invalid_arguments():
    with pytest.raises(ValueError, match="`warmup_epochs` must be 1 or more.*=0"):
        MedianStopping(warmup_epochs=0)
    with pytest.raises(ValueError, match="`factor` must be .* 2 or more.*factor=1"):
        SuccessiveHalving(factor=1)
