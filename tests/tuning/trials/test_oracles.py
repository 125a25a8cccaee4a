import keras
import keras_tuner
import pytest

import kseq
from kseq.training import CRPS, EditDistanceRate, IntervalCoverage, SaveBest
from kseq.tuning.fingerprint import fingerprint
from kseq.tuning.trials.oracles import Proposer, hyperparameters_from, make_oracle


def space():
    hp = keras_tuner.HyperParameters()
    hp.Choice("kind", ["shallow", "deep"])
    with hp.conditional_scope("kind", ["deep"]):
        hp.Int("units", 2, 5)
    hp.Float("rate", 1e-3, 1e-1, step=10, sampling="log")
    return hp


def score(values):
    deep = values.get("units", 0)
    return abs(values["rate"] - 0.01) + deep * 0.03 + values.get("tuner/epochs", 0) / 97


def proposer(tuner):
    oracle = make_oracle(tuner, "val_loss", seed=11, epochs=9)
    return Proposer(oracle, space())


def advance(proposer, journal, trials):
    """Run trials to their ends, and append their events to the journal."""
    for _ in range(trials):
        trial = proposer.create()
        if trial.status != "RUNNING":
            return
        values = dict(trial.hyperparameters.values)
        journal.append({"event": "created", "trial": trial.trial_id, "values": values})
        found = None if len(journal) % 7 == 0 else score(values)
        proposer.end(trial.trial_id, found)
        event = {"event": "ended", "trial": trial.trial_id, "score": found}
        journal.append({**event, "epoch": 0, "space": None})


@pytest.mark.thorough(all_but=2)
@pytest.mark.parametrize("tuner", ["random", "bayesian", "hyperband", "grid"])
def test_replayed_oracle_continues_as_if_never_stopped(tuner):
    uninterrupted, stopped = [], []
    advance(proposer(tuner), uninterrupted, 14)
    advance(proposer(tuner), stopped, 9)
    again = proposer(tuner)
    again.replay(stopped)
    advance(again, stopped, 5)
    assert stopped == uninterrupted
    assert len(uninterrupted) >= 26


def test_oracle_writes_no_files_and_is_otherwise_unchanged(tmp_path):
    kind = keras_tuner.oracles.RandomSearchOracle
    oracle = kind(objective="val_loss", seed=11)
    oracle._set_project_dir(tmp_path, "project")  # as KerasTuner does
    before = fingerprint(type(oracle))
    advance(Proposer(oracle, space()), [], 2)
    assert len(oracle.end_order) == 2 and list(tmp_path.iterdir()) == []
    assert isinstance(oracle, kind) and fingerprint(type(oracle)) == before
    oracle.save()
    kind.save(oracle)
    assert [path.name for path in tmp_path.rglob("*.json")] == ["oracle.json"]


def test_running_trial_is_running_again_after_a_replay():
    first = proposer("random")
    trial = first.create()
    values = dict(trial.hyperparameters.values)
    again = proposer("random")
    again.replay([{"event": "created", "trial": trial.trial_id, "values": values}])
    assert again.oracle.trials[trial.trial_id].status == "RUNNING"
    assert again.create().trial_id != trial.trial_id


def test_replay_accepts_a_trial_that_the_oracle_would_not_propose():
    again = proposer("random")
    values = {"kind": "deep", "units": 4, "rate": 0.1}
    again.replay([{"event": "created", "trial": "0007", "values": values}])
    again.end("0007", 0.5)
    assert again.oracle.get_best_trials()[0].hyperparameters.values == values


def test_reading_a_configuration_does_not_change_it():
    config = space().get_config()
    hyperparameters_from(config)
    assert config == space().get_config()


def test_an_objective_and_its_direction_can_be_given_as_a_pair():
    objective = make_oracle("random", ("val_bleu", "max"), 3, None).objective
    assert (objective.name, objective.direction) == ("val_bleu", "max")


METRICS = [
    metric
    for metric in vars(kseq.training).values()
    if isinstance(metric, type)
    and issubclass(metric, keras.metrics.Metric)
    # A coverage is best at the share of its interval: neither more nor less is better.
    and metric is not IntervalCoverage
]


@pytest.mark.parametrize("metric", METRICS)
def test_the_direction_of_every_metric_of_kseq_is_known(metric, tmp_path):
    names = [metric().name, f"val_{metric().name}", f"val_written_{metric().name}"]
    for name in names:
        found = make_oracle("random", name, 3, None).objective
        expected = kseq.tuning.objective(name)
        assert found.direction == expected.direction == SaveBest("x.keras", name).mode
    both = make_oracle("random", ["val_loss", names[1]], 3, None).objective
    assert [part.name for part in both.objectives] == ["val_loss", names[1]]
    is_error = metric in (EditDistanceRate, CRPS)
    assert found.direction == ("min" if is_error else "max")


@pytest.mark.parametrize(
    "tuner, objective, message",
    [
        ("best", "val_loss", "'hyperband', or an Oracle.*Received: tuner='best'"),
        ("random", "val_charm", "and its direction.*Received: objective='val_charm'"),
        ("random", [], "or a list of these.*Received: objective=\\[\\]"),
        ("random", [["val_loss"]], "or a list of these.*Received: objective=\\[\\["),
        ("random", ("a", "b", "c"), "or a list of these.*Received: objective=\\('a"),
        ("random", ["val_loss", 3], "or a list of these.*Received: objective=3"),
        ("random", ("val_bleu", "up"), r'Pass \("val_bleu", "max"\)'),
        ("hyperband", "val_loss", "needs `epochs`.*Received: epochs=None"),
    ],
)
def test_rejects_invalid_arguments(tuner, objective, message):
    with pytest.raises(ValueError, match=message):
        make_oracle(tuner, objective, 3, None)
