"""The loop of a search: hands trials to workers, and takes in what they say."""

import dataclasses
import time

from kseq.tuning.trials.errors import SERVER_DIED, SearchFailed, TrialServerLost
from kseq.tuning.trials.job import Begun, Died, Ended, Epoch, Exit, Late, Lost, Resumed

MOST_RESTARTS = 3  # of the server, with nothing achieved in between
MOST_LOSSES = 5  # of an executor, for each worker, with no trial ended in between


@dataclasses.dataclass
class Run:
    """One attempt at a trial, running in the process of a worker."""

    trial: object
    began: float
    waits: bool = False  # in a queue, which takes none of its time
    curve: list = dataclasses.field(default_factory=list)
    logs: list = dataclasses.field(default_factory=list)
    answer: object = None  # what it said last: `Ended`, `Failed` or `Fatal`


class Loop:
    """Runs trials until there are no more.

    Args:
        server: The `TrialServer`, or an `ExecutorServer`.
        workers: Names of the workers.
        queue: The `TrialQueue` that trials come from.
        outcomes: The `Outcomes` that decide about them.
        table: The `LiveTable` to show them in.
        make_job: Function of a trial that returns its `Job`.
        deadline: When to stop, on the clock of `time.monotonic`, or None.
    """

    def __init__(self, server, workers, queue, outcomes, table, make_job, deadline):
        self.server = server
        self.workers = workers
        self.queue = queue
        self.outcomes = outcomes
        self.rules = outcomes.rules
        self.table = table
        self.make_job = make_job
        self.deadline = deadline
        self.running = {}  # worker -> Run
        self.losses = 0

    def run(self):
        restarts = 0
        try:
            while self._hand_out():
                try:
                    heard = self.server.hear(0.5)
                except TrialServerLost:
                    restarts += 1
                    self._recover_from_loss(restarts)
                    continue
                if heard is not None and self._listen(*heard):
                    restarts = self.losses = 0
                self._kill_the_late()
                self.table.update(self.running)
        except KeyboardInterrupt:
            self.table.say("stopped by Ctrl-C; the same call goes on from here")
            raise

    def _hand_out(self):
        """Gives trials to free workers. False when none runs and none will."""
        if self._is_out_of_time():
            return False
        for worker in self.workers:
            if worker in self.running:
                continue
            trial = self.queue.take(is_running=bool(self.running))
            if trial is not None:
                self._start(worker, trial)
        return bool(self.running)

    def _start(self, worker, trial):
        self.running[worker] = Run(trial, time.monotonic(), self.server.has_queue)
        try:
            self.server.start(worker, self.make_job(trial))
        except TrialServerLost:
            return  # heard of again at once, by the loop
        self.table.update(self.running)

    def _listen(self, worker, message):
        """Takes in a message. True when a trial ended."""
        run = self.running.get(worker)
        if run is None:
            return False
        match message:
            case Begun():
                run.began, run.waits = time.monotonic(), False
            case Epoch():
                run.curve.append(message.score)
                run.logs.append(message.logs)
                self.server.tell(worker, not self.outcomes.is_hopeless(run.curve))
            case Resumed():
                run.logs = list(message.logs)
                run.curve = self._curve(run.logs)
            case Lost():
                self._recover_from_lost_trial(worker, message.reason)
            case Exit():
                del self.running[worker]
                answer = run.answer or Died(message.reason(), message.details)
                return self.outcomes.conclude(run, answer)
            case _:
                run.answer = message
        return False

    def _curve(self, logs):
        objective = self.outcomes.oracle.objective
        return [
            objective.get_value(row) if objective.has_value(row) else None
            for row in logs
        ]

    def _recover_from_loss(self, restarts):
        """The server was killed: its trials go on in a new one."""
        if restarts > MOST_RESTARTS:
            raise SearchFailed(SERVER_DIED)
        self.table.say("the server of the trials' processes died and begins anew")
        self._give_back(self.workers)

    def _recover_from_lost_trial(self, worker, reason):
        self.losses += 1
        if self.losses > MOST_LOSSES * len(self.workers):
            raise SearchFailed(
                f"`executor` must run trials to their end. Received: {self.losses} "
                f"that it lost, with none ended in between, the last because {reason}. "
                "Look at what its workers have logged; the same call goes on."
            )
        trial_id = self.running[worker].trial.trial_id
        self.table.say(f"trial {trial_id} was lost and goes on: {reason}")
        self._give_back([worker])

    def _give_back(self, workers):
        """Takes back the trials of workers that are gone, to go on elsewhere."""
        for worker in workers:
            run = self.running.pop(worker, None)
            if run is None:
                continue
            if isinstance(run.answer, Ended):
                self.outcomes.record(run, run.answer)
            else:
                self.queue.put_back(run.trial)

    def _kill_the_late(self):
        limit = self.rules.trial_timeout
        for worker, run in self.running.items():
            if not limit or run.answer or run.waits:
                continue
            if time.monotonic() - run.began > limit:
                run.answer = Late(f"it took more than trial_timeout={limit} s")
                self.server.kill(worker)

    def _is_out_of_time(self):
        is_out = self.deadline is not None and time.monotonic() > self.deadline
        if is_out:
            limit = self.rules.timeout
            self.table.say(f"stopped after timeout={limit} s; the same call goes on")
        return is_out
