"""The loop of a search: starts trials and receives their messages."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from kseq.tuning.trials.attempts import Attempt, Engine, end, hear
from kseq.tuning.trials.errors import SearchFailed
from kseq.tuning.trials.job import (
    Begun,
    Died,
    Ended,
    Epoch,
    Exit,
    Failed,
    Fatal,
    Late,
    Lost,
    Resumed,
)
from kseq.tuning.trials.outcomes import Outcomes
from kseq.tuning.trials.table import LiveTable
from kseq.tuning.trials.trial_queue import TrialQueue

MOST_LOSSES = 5  # per worker, without a trial that ended in between


@dataclasses.dataclass
class Run:
    """The known state of an attempt at a trial."""

    trial: Any
    began: float
    waits: bool = True  # in a queue, which does not count as its time
    curve: list[float | None] = dataclasses.field(default_factory=list)
    logs: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    answer: Ended | Failed | Fatal | None = None  # its last result message


class Loop:
    """The loop that runs trials until there are no more.

    Args:
        engine: The engine that starts their processes.
        workers: Number of trials that run at once.
        queue: The `TrialQueue` of trials.
        outcomes: The `Outcomes` that decides about them.
        table: The `LiveTable` that shows them.
        start: Function from a trial to a new `Attempt` at it.
        deadline: Time to stop, on the clock of `time.monotonic`, or None.
    """

    def __init__(
        self,
        engine: Engine,
        workers: int,
        queue: TrialQueue,
        outcomes: Outcomes,
        table: LiveTable,
        start: Callable[[Any], Attempt],
        deadline: float | None,
    ) -> None:
        self.engine = engine
        self.workers = workers
        self.queue = queue
        self.outcomes = outcomes
        self.rules = outcomes.rules
        self.table = table
        self.start = start
        self.deadline = deadline
        self.running: dict[Attempt, Run] = {}
        self.losses = 0

    def run(self) -> None:
        try:
            while self._hand_out():
                for attempt, message in hear(self.engine, self.running, 0.5):
                    self._listen(attempt, message)
                self._kill_the_late()
                self.table.update(self.running)
        except KeyboardInterrupt:
            self.table.say("stopped by Ctrl-C; the same call continues from here")
            raise
        finally:
            end(self.engine, self.running)

    def _hand_out(self) -> bool:
        """Start as many trials as may run. Return False if none runs and none will."""
        if self._is_out_of_time():
            return False
        while len(self.running) < self.workers:
            trial = self.queue.take(is_running=bool(self.running))
            if trial is None:
                break
            self.running[self.start(trial)] = Run(trial, time.monotonic())
            self.table.update(self.running)
        return bool(self.running)

    def _listen(self, attempt: Attempt, message: Any) -> None:
        run = self.running[attempt]
        match message:
            case Begun():
                run.began, run.waits = time.monotonic(), False
            case Epoch():
                run.curve.append(message.score)
                run.logs.append(message.logs)
                attempt.answer(not self.outcomes.is_hopeless(run.curve))
            case Resumed():
                run.logs = list(message.logs)
                run.curve = self._curve(run.logs)
            case Lost():
                del self.running[attempt]
                self._recover(run, message.reason)
            case Exit():
                del self.running[attempt]
                answer = run.answer or Died(message.reason(), message.details)
                if self.outcomes.conclude(run, answer):
                    self.losses = 0
            case _:
                run.answer = message

    def _curve(self, logs: list[dict[str, Any]]) -> list[float | None]:
        objective = self.outcomes.oracle.objective
        return [
            objective.get_value(row) if objective.has_value(row) else None
            for row in logs
        ]

    def _recover(self, run: Run, reason: str) -> None:
        """Return the trial of a lost process to the queue."""
        if isinstance(run.answer, Ended):
            self.outcomes.record(run, run.answer)
            return
        self.losses += 1
        if self.losses > MOST_LOSSES * self.workers:
            raise SearchFailed(
                f"Trials must run to their end. Received: {self.losses} that were "
                f"lost, with none ended in between, the last because {reason}. "
                "Look at the logs of the executor's workers, or at the memory of this "
                "host; the same call continues."
            )
        self.table.say(f"trial {run.trial.trial_id} was lost and continues: {reason}")
        self.queue.put_back(run.trial)

    def _kill_the_late(self) -> None:
        limit = self.rules.trial_timeout
        for attempt, run in self.running.items():
            if not limit or run.answer or run.waits:
                continue
            if time.monotonic() - run.began > limit:
                run.answer = Late(f"it took more than trial_timeout={limit} s")
                attempt.kill()

    def _is_out_of_time(self) -> bool:
        is_out = self.deadline is not None and time.monotonic() > self.deadline
        if is_out:
            limit = self.rules.timeout
            self.table.say(f"stopped after timeout={limit} s; the same call continues")
        return is_out
