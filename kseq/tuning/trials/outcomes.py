"""Decisions about trials: stop one, run it again, record it, or end the search."""

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kseq.tuning.trials.curves import aligned, any_value, filled
from kseq.tuning.trials.errors import SearchFailed
from kseq.tuning.trials.events import ENDED, FAILED, Event, of_kind, trials
from kseq.tuning.trials.exploration import is_searchable, refuse_space
from kseq.tuning.trials.job import Ended, Failed, Fatal, Late
from kseq.tuning.trials.journal import Journal
from kseq.tuning.trials.oracles import hyperparameters_from
from kseq.tuning.trials.stopping import StoppingRule
from kseq.tuning.trials.table import LiveTable
from kseq.tuning.trials.trial_queue import TrialQueue

if TYPE_CHECKING:
    from kseq.tuning.trials.loop import Run

NO_RESULT = Ended(
    score=None,
    epoch=0,
    curves={},
    stopped=False,
    parameters=None,
    weights=False,
    space=None,
)


@dataclasses.dataclass
class Rules:
    """Rules for slow, hopeless and failing trials."""

    stopping: StoppingRule | None
    retries: int
    max_failures: int
    trial_timeout: float | None
    timeout: float | None


class Outcomes:
    """Decisions about trials, which are recorded in the journal.

    Args:
        space: The `keras_tuner.HyperModel` that is searched.
        oracle: The Oracle of KerasTuner.
        journal: The `Journal`.
        queue: The `TrialQueue`, to which trials return that run again.
        rules: The `Rules`.
        table: The `LiveTable` that shows the outcomes.
    """

    def __init__(
        self,
        space: Any,
        oracle: Any,
        journal: Journal,
        queue: TrialQueue,
        rules: Rules,
        table: LiveTable,
    ) -> None:
        self.space = space
        self.oracle = oracle
        self.journal = journal
        self.queue = queue
        self.rules = rules
        self.table = table
        ended = of_kind(journal.events, ENDED)
        self.curves = {e["trial"]: e["curve"] for e in ended if e["curve"]}
        self.failures = 0  # consecutive ones; a new call starts at 0

    def is_hopeless(self, curve: Sequence[float | None]) -> bool:
        """Return whether a trial should stop, from its objective in each epoch."""
        rule, direction = self.rules.stopping, self.oracle.objective.direction
        if rule is None or curve[-1] is None:  # an epoch without the objective
            return False
        others = [filled(curve) for curve in self.curves.values() if any_value(curve)]
        return rule.is_hopeless(filled(curve), others, direction)

    def conclude(self, run: "Run", answer: Ended | Failed | Fatal) -> bool:
        """Decide about a trial whose process has ended. Return whether it is over.

        Args:
            run: The `Run`.
            answer: Its result: `Ended`, `Failed`, `Died`, `Late` or `Fatal`.

        Raises:
            ValueError: It was `Fatal`, or has shown that there is nothing to search.
            SearchFailed: Too many trials in a row have failed.
        """
        if isinstance(answer, Fatal):
            raise ValueError(answer.reason)
        if isinstance(answer, Ended):
            self.record(run, answer)
            return True
        trial_id = run.trial.trial_id
        tried = len(self.journal.failures_of(trial_id))
        if isinstance(answer, Late) or tried >= self.rules.retries:
            self.record(run, NO_RESULT, answer.reason, answer.details)
            return True
        facts = {"kind": answer.kind, "reason": answer.reason}
        self.journal.append(FAILED, trial_id, **facts)
        self.table.say(f"trial {trial_id} runs again: {answer.reason}")
        self.queue.put_back(run.trial)
        return False

    def record(
        self,
        run: "Run",
        result: Ended,
        reason: str | None = None,
        details: str | None = None,
    ) -> None:
        """Record how a trial `Ended`, and report it to the oracle."""
        trial_id = run.trial.trial_id
        space = result.space if self._is_news(result.space) else None
        self.journal.append(
            ENDED,
            trial_id,
            score=result.score,
            epoch=result.epoch,
            stopped=result.stopped,
            parameters=result.parameters,
            curve=run.curve,
            weights=result.weights,
            curves=result.curves or aligned(run.logs),
            space=space,
            reason=reason,
            details=details,
            seconds=round(time.monotonic() - run.began, 3),
        )
        self.queue.end(trial_id, result.score, result.epoch, space)
        if reason is None and not is_searchable(self.oracle.hyperparameters):
            refuse_space(self.space)
        self.curves[trial_id] = run.curve
        self.table.show_end(self.journal.events[-1])
        self._count_failures(trial_id, reason, details)

    def _is_news(self, space: dict[str, Any] | None) -> bool:
        """Return whether `fit` used hyperparameters that were unknown before."""
        if space is None:
            return False
        known = self.oracle.hyperparameters
        found = hyperparameters_from(space)
        return any(not known._exists(h.name, h.conditions) for h in found.space)

    def _count_failures(
        self, trial_id: str, reason: str | None, details: str | None
    ) -> None:
        self.failures = 0 if reason is None else self.failures + 1
        if self.failures >= self.rules.max_failures:
            raise SearchFailed(
                f"{trials(self.failures)} in a row failed (max_failures="
                f"{self.rules.max_failures}), the last, {trial_id}, with: {reason}\n"
                f"{details or ''}The same call continues after the failed trials."
            )


def check_success(events: Sequence[Event]) -> None:
    """Raise if trials have ended and all of them have failed."""
    ended = of_kind(events, ENDED)
    reasons = [event["reason"] for event in ended if event["reason"]]
    if reasons and len(reasons) == len(ended):
        raise SearchFailed(
            f"All trials have failed ({trials(len(ended))}), the last with: "
            f"{reasons[-1]}\n"
            f"{ended[-1]['details'] or ''}"
        )
