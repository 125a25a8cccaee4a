"""Oracles of KerasTuner, driven so that the same events lead to the same state.

KerasTuner saves what an oracle knows, but not all of it: a reloaded grid search has
forgotten its order, a reloaded Bayesian one its random numbers, and a kill between two
files loses a trial. So here an oracle saves nothing. It is made anew, and lives through
the journal again.
"""

import contextlib
import copy
import warnings

import keras_tuner

from kseq.tuning.objectives import make_objective
from kseq.tuning.trials.events import CREATED, ENDED, IDLE

TUNERS = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
    "grid": keras_tuner.oracles.GridSearchOracle,
    "hyperband": keras_tuner.oracles.HyperbandOracle,
}
ENDLESS = 10**9  # trials, failures: the search counts them itself


def make_oracle(tuner, objective, seed, epochs):
    """Returns an oracle from its name, or a user's own as it is.

    Raises:
        ValueError: There is no such tuner, or something that it needs is missing.
    """
    if isinstance(tuner, keras_tuner.Oracle):
        return tuner
    if tuner not in TUNERS:
        raise ValueError(
            f"`tuner` must be one of {', '.join(map(repr, TUNERS))}, or an Oracle of "
            f"KerasTuner. Received: tuner={tuner!r}."
        )
    settings = {"objective": make_objective(objective), "seed": seed}
    if tuner == "hyperband":
        if not epochs:
            raise ValueError(
                "tuner='hyperband' needs `epochs`, the most that one model may train. "
                f"Received: epochs={epochs!r}. Pass epochs=27, for example."
            )
        settings["max_epochs"] = epochs
    return TUNERS[tuner](**settings)


class Proposer:
    """Asks an oracle for trials, and tells it how they ended.

    Args:
        oracle: A fresh Oracle of KerasTuner. It is kept from printing, from writing
            files, from counting trials and failures: the search does all that.
        hyperparameters: The space, as a `keras_tuner.HyperParameters`.
    """

    def __init__(self, oracle, hyperparameters):
        self.oracle = oracle
        oracle.__class__ = without_files(type(oracle))
        oracle.verbose = 0
        oracle.max_trials = None
        oracle.max_retries_per_trial = 0
        oracle.max_consecutive_failed_trials = ENDLESS
        oracle.update_space(hyperparameters)
        self._asked = 0

    def create(self):
        """Returns the next trial, whose status is RUNNING, IDLE or STOPPED."""
        self._asked += 1
        with quiet():
            return self.oracle.create_trial(f"trial-{self._asked}")

    def end(self, trial_id, score, epoch=0, space=None):
        """Tells the oracle what a trial scored, or with None that it failed."""
        trial = self.oracle.get_trial(trial_id)
        if space is not None:
            trial.hyperparameters = hyperparameters_from(space)
        with quiet():
            if score is None:
                trial.status = "FAILED"
            else:
                name = self.oracle.objective.name
                self.oracle.update_trial(trial_id, {name: score}, step=epoch)
                trial.status = "COMPLETED"
            self.oracle.end_trial(trial)

    def replay(self, events):
        """Lives through the events of a journal."""
        for event in events:
            if event["event"] == ENDED:
                self.end(event["trial"], event["score"], event["epoch"], event["space"])
            elif event["event"] == CREATED:
                trial = self.create()
                if trial.status != "RUNNING" or trial.trial_id != event["trial"]:
                    trial = self._adopt(trial, event)
                trial.hyperparameters.values = dict(event["values"])
            elif event["event"] == IDLE:
                self.create()

    def _adopt(self, trial, event):
        """Takes in a trial that this oracle would not have proposed."""
        known = self.oracle.get_space()
        known.values = dict(event["values"])
        taken = type(trial)(known, trial_id=event["trial"], status="RUNNING")
        self.oracle.trials[taken.trial_id] = taken
        self.oracle.start_order.append(taken.trial_id)
        self.oracle.ongoing_trials[f"trial-{self._asked}"] = taken
        return taken


class WithoutFiles:
    """Stands before the class of an oracle, whose state is the journal."""

    def save(self):
        pass

    def _save_trial(self, trial):
        pass

    def _check_objective_found(self, metrics):
        pass  # it is the sum alone that a trial reports of several objectives


def without_files(kind):
    """The class of an oracle that saves nothing, and is the same otherwise."""
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (WithoutFiles, kind), names)


def hyperparameters_from(config):
    """KerasTuner's `from_config`, which writes into the configuration that it reads."""
    return keras_tuner.HyperParameters.from_config(copy.deepcopy(config))


@contextlib.contextmanager
def quiet():
    """KerasTuner names threads in a way that Python has deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
