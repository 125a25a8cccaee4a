"""The queue of trials: interrupted ones, ones to run again, and new ones."""

import collections
from typing import Any

from kseq.tuning.trials.events import CREATED, ENDED, IDLE, of_kind
from kseq.tuning.trials.exploration import is_searchable
from kseq.tuning.trials.journal import Journal
from kseq.tuning.trials.oracles import Proposer


class TrialQueue:
    """The waiting trials, followed by those that the oracle will propose.

    Args:
        proposer: The `Proposer`, which replays the journal here.
        journal: The `Journal`.
        first: The values to try before those that the oracle proposes.
        max_trials: Maximum number of trials, or None.
    """

    def __init__(
        self,
        proposer: Proposer,
        journal: Journal,
        first: list[dict[str, Any]],
        max_trials: int | None,
    ) -> None:
        self.proposer = proposer
        self.oracle = proposer.oracle
        self.journal = journal
        self.first = first
        self.max_trials = max_trials
        proposer.replay(journal.events)
        ended = {event["trial"] for event in of_kind(journal.events, ENDED)}
        trials = self.oracle.trials.values()
        self.waiting = collections.deque(t for t in trials if t.trial_id not in ended)
        self.is_exhausted = False
        self.is_idle = False

    def take(self, is_running: bool) -> Any:
        """Return a trial to run, or None if there are enough or some must end first.

        Args:
            is_running: Whether any trial runs.
        """
        if self.waiting:
            return self.waiting.popleft()
        if self.is_exhausted or self.is_idle:
            return None
        if self.max_trials and len(self.oracle.trials) >= self.max_trials:
            return None
        if is_running and not is_searchable(self.oracle.hyperparameters):
            return None  # until a `fit` has added hyperparameters
        return self._propose(is_running)

    def _propose(self, is_running: bool) -> Any:
        trial = self.proposer.create()
        if trial.status == "RUNNING":
            trial.hyperparameters.values = self._values(trial)
            values = trial.hyperparameters.values
            self.journal.append(CREATED, trial.trial_id, values=values)
            return trial
        if trial.status == "STOPPED" or not is_running:
            self.is_exhausted = True
        else:
            self.is_idle = True  # until a trial ends
            self.journal.append(IDLE)
        return None

    def _values(self, trial: Any) -> dict[str, Any]:
        """Return the values of a new trial, which are the user's for the first ones."""
        values = trial.hyperparameters.values
        created = len(self.oracle.start_order) - 1
        if created >= len(self.first):
            return values
        rounds = {k: v for k, v in values.items() if k.startswith("tuner/")}
        return {**self.first[created], **rounds}

    def put_back(self, trial: Any) -> None:
        self.waiting.append(trial)

    def end(
        self,
        trial_id: str,
        score: float | None,
        epoch: int,
        space: dict[str, Any] | None,
    ) -> None:
        """Report to the oracle how a trial ended; the score is None if it failed."""
        self.proposer.end(trial_id, score, epoch, space)
        self.is_idle = False
