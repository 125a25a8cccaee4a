"""KerasTuner's oracles, driven so that the same events lead to the same state.

KerasTuner does not save the complete state of an oracle: a reloaded grid search has
lost its order, a reloaded Bayesian search its random numbers, and a kill between two
files loses a trial. Here, therefore, an oracle saves nothing. A new one replays the
journal.
"""

import contextlib
import copy
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import keras_tuner

from kseq.tuning.objectives import make_objective
from kseq.tuning.trials.events import CREATED, ENDED, IDLE, Event

TUNERS = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
    "grid": keras_tuner.oracles.GridSearchOracle,
    "hyperband": keras_tuner.oracles.HyperbandOracle,
}
ENDLESS = 10**9  # trials, failures: the search counts them


def make_oracle(tuner: Any, objective: Any, seed: int, epochs: Any) -> Any:
    """Return an oracle by its name, or a user's own oracle as it is.

    Raises:
        ValueError: The tuner is unknown, or an argument that it needs is missing.
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
                "tuner='hyperband' needs `epochs`, the maximum per model. "
                f"Received: epochs={epochs!r}. Pass epochs=27, for example."
            )
        settings["max_epochs"] = epochs
    return TUNERS[tuner](**settings)


class Proposer:
    """A proposer of trials, which asks an oracle and reports results to it.

    Args:
        oracle: A new Oracle of KerasTuner. It is prevented from printing, writing
            files, and counting trials and failures, which the search does.
        hyperparameters: The space, as a `keras_tuner.HyperParameters`.
    """

    def __init__(self, oracle: Any, hyperparameters: Any) -> None:
        self.oracle = oracle
        oracle.__class__ = without_files(type(oracle))
        oracle.verbose = 0
        oracle.max_trials = None
        oracle.max_retries_per_trial = 0
        oracle.max_consecutive_failed_trials = ENDLESS
        oracle.update_space(hyperparameters)
        self._asked = 0

    def create(self) -> Any:
        """Return the next trial, whose status is RUNNING, IDLE or STOPPED."""
        self._asked += 1
        with quiet():
            return self.oracle.create_trial(f"trial-{self._asked}")

    def end(
        self,
        trial_id: str,
        score: float | None,
        epoch: int = 0,
        space: dict[str, Any] | None = None,
    ) -> None:
        """Report the score of a trial to the oracle, or None if it failed."""
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

    def replay(self, events: Iterable[Event]) -> None:
        """Replay the events of a journal."""
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

    def _adopt(self, trial: Any, event: Event) -> Any:
        """Add a trial that this oracle would not have proposed."""
        known = self.oracle.get_space()
        known.values = dict(event["values"])
        taken = type(trial)(known, trial_id=event["trial"], status="RUNNING")
        self.oracle.trials[taken.trial_id] = taken
        self.oracle.start_order.append(taken.trial_id)
        self.oracle.ongoing_trials[f"trial-{self._asked}"] = taken
        return taken


class WithoutFiles:
    """A mixin that overrides the saving of an oracle, whose state is the journal."""

    def save(self) -> None:
        pass

    def _save_trial(self, trial: Any) -> None:
        pass

    def _check_objective_found(self, metrics: Any) -> None:
        pass  # for several objectives, a trial reports only their sum


def without_files(kind: type) -> type:
    """Return a class of the same oracle that saves nothing."""
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (WithoutFiles, kind), names)


def hyperparameters_from(config: dict[str, Any]) -> Any:
    """Call KerasTuner's `from_config` on a copy, because it changes its argument."""
    return keras_tuner.HyperParameters.from_config(copy.deepcopy(config))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the warning about KerasTuner's deprecated naming of threads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
