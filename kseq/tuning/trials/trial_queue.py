"""Which trial runs next: one to go on with, one to run again, or a new one."""

import collections

from kseq.tuning.trials.events import CREATED, ENDED, IDLE, of_kind
from kseq.tuning.trials.exploration import is_searchable


class TrialQueue:
    """The trials that wait, and behind them those that the oracle will propose.

    Args:
        proposer: The `Proposer`, which lives through the journal here.
        journal: The `Journal`.
        first: The values to try before those that the oracle proposes.
        max_trials: How many trials there may be, or None.
    """

    def __init__(self, proposer, journal, first, max_trials):
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

    def take(self, is_running):
        """Returns a trial to run, or None: there are enough, or some must end first.

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
            return None  # until a `fit` has asked for some
        return self._propose(is_running)

    def _propose(self, is_running):
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

    def _values(self, trial):
        """The values of a new trial: the first ones are the user's."""
        values = trial.hyperparameters.values
        created = len(self.oracle.start_order) - 1
        if created >= len(self.first):
            return values
        rounds = {k: v for k, v in values.items() if k.startswith("tuner/")}
        return {**self.first[created], **rounds}

    def put_back(self, trial):
        self.waiting.append(trial)

    def end(self, trial_id, score, epoch, space):
        """Tells the oracle how a trial ended; the score is None if it failed."""
        self.proposer.end(trial_id, score, epoch, space)
        self.is_idle = False
