"""The loop of a search: starts trials, and takes in what they say."""

import dataclasses
import time

from kseq.tuning.trials.attempts import end, hear
from kseq.tuning.trials.errors import SearchFailed
from kseq.tuning.trials.job import Begun, Died, Ended, Epoch, Exit, Late, Lost, Resumed

MOST_LOSSES = 5  # for each worker, with no trial ended in between


@dataclasses.dataclass
class Run:
    """What is known of an attempt at a trial."""

    trial: object
    began: float
    waits: bool = True  # in a queue, which takes none of its time
    curve: list = dataclasses.field(default_factory=list)
    logs: list = dataclasses.field(default_factory=list)
    answer: object = None  # what it said last: `Ended`, `Failed` or `Fatal`


class Loop:
    """Runs trials until there are no more.

    Args:
        engine: What starts their processes, a `TrialServer` or an `ExecutorEngine`.
        workers: How many trials run at once.
        queue: The `TrialQueue` that trials come from.
        outcomes: The `Outcomes` that decide about them.
        table: The `LiveTable` to show them in.
        start: Function of a trial that returns a new `Attempt` at it.
        deadline: When to stop, on the clock of `time.monotonic`, or None.
    """

    def __init__(self, engine, workers, queue, outcomes, table, start, deadline):
        self.engine = engine
        self.workers = workers
        self.queue = queue
        self.outcomes = outcomes
        self.rules = outcomes.rules
        self.table = table
        self.start = start
        self.deadline = deadline
        self.running = {}  # Attempt -> Run
        self.losses = 0

    def run(self):
        try:
            while self._hand_out():
                for attempt, message in hear(self.engine, self.running, 0.5):
                    self._listen(attempt, message)
                self._kill_the_late()
                self.table.update(self.running)
        except KeyboardInterrupt:
            self.table.say("stopped by Ctrl-C; the same call goes on from here")
            raise
        finally:
            end(self.engine, self.running)

    def _hand_out(self):
        """Starts as many trials as may run. False when none runs and none will."""
        if self._is_out_of_time():
            return False
        while len(self.running) < self.workers:
            trial = self.queue.take(is_running=bool(self.running))
            if trial is None:
                break
            self.running[self.start(trial)] = Run(trial, time.monotonic())
            self.table.update(self.running)
        return bool(self.running)

    def _listen(self, attempt, message):
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

    def _curve(self, logs):
        objective = self.outcomes.oracle.objective
        return [
            objective.get_value(row) if objective.has_value(row) else None
            for row in logs
        ]

    def _recover(self, run, reason):
        """Takes back the trial of a process that was lost, to go on in another."""
        if isinstance(run.answer, Ended):
            return self.outcomes.record(run, run.answer)
        self.losses += 1
        if self.losses > MOST_LOSSES * self.workers:
            raise SearchFailed(
                f"Trials must run to their end. Received: {self.losses} that were "
                f"lost, with none ended in between, the last because {reason}. Look at "
                "what the workers of the executor have logged, or at the memory of "
                "this host; the same call goes on."
            )
        self.table.say(f"trial {run.trial.trial_id} was lost and goes on: {reason}")
        self.queue.put_back(run.trial)

    def _kill_the_late(self):
        limit = self.rules.trial_timeout
        for attempt, run in self.running.items():
            if not limit or run.answer or run.waits:
                continue
            if time.monotonic() - run.began > limit:
                run.answer = Late(f"it took more than trial_timeout={limit} s")
                attempt.kill()

    def _is_out_of_time(self):
        is_out = self.deadline is not None and time.monotonic() > self.deadline
        if is_out:
            limit = self.rules.timeout
            self.table.say(f"stopped after timeout={limit} s; the same call goes on")
        return is_out
