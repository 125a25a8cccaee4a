"""One call of `search`, from finding the hyperparameters to its last trial.

The parent process owns the oracle and the journal, and never builds a model. See
`trial.py` for the process of a trial, and `server.py` for how it is started.
"""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

import keras_tuner

from kseq.tuning.trials.attempts import Attempt, Engine, close_all
from kseq.tuning.trials.errors import SearchFailed
from kseq.tuning.trials.events import ENDED, of_kind
from kseq.tuning.trials.exploration import complete, count_points, explored
from kseq.tuning.trials.identity import identity
from kseq.tuning.trials.job import Failed, Job
from kseq.tuning.trials.journal import Journal
from kseq.tuning.trials.layout import SearchDirectory
from kseq.tuning.trials.loop import Loop
from kseq.tuning.trials.oracles import Proposer
from kseq.tuning.trials.outcomes import Outcomes, Rules, check_success
from kseq.tuning.trials.seeds import seed_of_attempt
from kseq.tuning.trials.server import TrialServer
from kseq.tuning.trials.table import LiveTable
from kseq.tuning.trials.trial_queue import TrialQueue


@dataclasses.dataclass
class Search:
    """One call of `search`, with checked arguments."""

    space: keras_tuner.HyperModel
    server: TrialServer
    engine: Engine
    settings: dict[str, Any]
    oracle: keras_tuner.Oracle
    first: list[dict[str, Any]]
    max_trials: int | None
    workers: int
    directory: Path
    overwrite: bool
    rules: Rules
    executions: int
    tensorboard: bool
    verbose: bool

    def run(self) -> Journal:
        """Run trials until there are no more, and return the closed journal."""
        limit = self.rules.timeout
        deadline = None if limit is None else time.monotonic() + limit
        try:
            known = explored(self.space, self.server, self.oracle.seed)
            first = [complete(values, known) for values in self.first]
            facts = identity(self.space, known, self.oracle, first, self.settings)
            journal = Journal(self.directory, facts, self.overwrite)
            with contextlib.closing(journal):
                try:
                    self._run_trials(journal, known, first, deadline)
                    check_success(journal.events)
                except (ValueError, SearchFailed) as error:
                    journal.give_up(str(error))
                    raise
            return journal
        finally:
            self.server.close()

    def _run_trials(
        self,
        journal: Journal,
        known: Any,
        first: list[dict[str, Any]],
        deadline: float | None,
    ) -> None:
        if self.engine is not self.server:
            self.server.close()  # only needed to explore the space
        files = SearchDirectory(self.directory.absolute())
        close_all(files)
        max_trials = self.max_trials or self.oracle.max_trials
        table = LiveTable(self.verbose, self.oracle.objective)
        queue = TrialQueue(Proposer(self.oracle, known), journal, first, max_trials)
        outcomes = Outcomes(self.space, self.oracle, journal, queue, self.rules, table)
        table.show_past(of_kind(journal.events, ENDED), max_trials)

        def start(trial):
            return Attempt(self.engine, files, self._job(trial, journal))

        loop = Loop(self.engine, self.workers, queue, outcomes, table, start, deadline)
        try:
            with table:
                loop.run()
                if queue.is_exhausted:
                    table.show_exhaustion(count_points(self.space))
        finally:
            close_all(files)

    def _job(self, trial: Any, journal: Journal) -> Job:
        # A trial whose process died continues; one that failed gets another seed.
        attempt = journal.failures_of(trial.trial_id).count(Failed.kind)
        values = dict(trial.hyperparameters.values)
        epochs = None
        if "tuner/epochs" in values:  # Hyperband
            epochs = values["tuner/initial_epoch"], values["tuner/epochs"]
        objective = self.oracle.objective
        parts = getattr(objective, "objectives", None) or []
        pairs = [(part.name, part.direction) for part in parts]
        return Job(
            trial=trial.trial_id,
            seed=seed_of_attempt(self.oracle.seed, trial.trial_id, attempt),
            space=trial.hyperparameters.get_config(),
            values=values,
            objective=pairs or (objective.name, objective.direction),
            epochs=epochs,
            past=values.get("tuner/trial_id"),
            executions=self.executions,
            tensorboard=self.tensorboard,
            waits=self.engine.is_near and self.rules.stopping is not None,
        )
