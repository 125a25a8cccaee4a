"""Running a search: hands the oracle's trials to processes, and survives anything.

The parent owns the oracle and the journal, and never builds a model. What the process
of a trial does stands in `trial.py`, how it comes to be in `server.py`.
"""

import collections
import dataclasses
import signal
import tempfile
import time
import zlib

import keras_tuner

from kseq.tuning.results import Results
from kseq.tuning.trials import hosts
from kseq.tuning.trials.identity import identity
from kseq.tuning.trials.journal import Journal
from kseq.tuning.trials.oracles import Proposer, hyperparameters_from
from kseq.tuning.trials.resuming import aligned
from kseq.tuning.trials.server import TrialServerLost
from kseq.tuning.trials.stopping import any_value, filled
from kseq.tuning.trials.table import LiveTable
from kseq.tuning.trials.trial import has_own_fit

MOST_RESTARTS = 3  # of the server, with nothing achieved in between
EXPLORER = "explorer"
SERVER_DIED = (
    "The server of the trials' processes died time and again, with no trial ended in "
    "between. Is there memory enough for the data?"
)


class SearchFailed(RuntimeError):
    """A search that cannot go on, for the reason given; what it has is kept."""


@dataclasses.dataclass
class Rules:
    """What a search makes of slow, hopeless and failing trials."""

    stopping: object
    retries: int
    max_failures: int
    trial_timeout: float | None
    timeout: float | None


@dataclasses.dataclass
class Run:
    """One attempt at a trial, running in the process of a worker."""

    trial: object
    began: float
    curve: list = dataclasses.field(default_factory=list)
    logs: list = dataclasses.field(default_factory=list)
    answer: tuple | None = None  # what it said last: ended, failed or fatal


class Search:
    """One call of `search`: the loop over trials and what it knows."""

    def __init__(
        self,
        space,
        server,
        settings,
        oracle,
        first,
        max_trials,
        workers,
        chief,
        directory,
        overwrite,
        rules,
        executions,
        tensorboard,
        verbose,
    ):
        self.space = space
        self.server = server
        self.settings = settings
        self.max_trials = max_trials or oracle.max_trials
        self.oracle = oracle
        self.first = first
        self.workers = self.own_workers = workers
        self.chief = chief
        self.directory = directory
        self.overwrite = overwrite
        self.rules = rules
        self.executions = executions
        self.tensorboard = tensorboard
        self.table = LiveTable(verbose, oracle.objective)
        self.running = {}  # worker -> Run
        self.waiting = collections.deque()  # trials to go on with, or to run again
        self.exhausted = False
        self.idle = False

    def run(self):
        """Runs trials until there are no more, and returns the results."""
        self.began = time.monotonic()
        try:
            known = self._explore()
            self.first = [complete(values, self.space, known) for values in self.first]
            parts = self.space, known, self.oracle, self.first, self.settings
            self.journal = Journal(self.directory, identity(*parts), self.overwrite)
            try:
                if self.chief is not None:
                    self.server = hosts.Crew(self.server, self.chief, self.directory)
                self._replay(known)
                with self.table:
                    self._loop()
                self._check_success()
                return Results(self.space, self.oracle.objective, self.journal)
            finally:
                self.journal.close()
        finally:
            self.server.close()

    def _check_success(self):
        ended = [event for event in self.journal.events if event["event"] == "ended"]
        reasons = [event["reason"] for event in ended if event["reason"]]
        if reasons and len(reasons) == len(ended):
            raise SearchFailed(
                f"All {len(ended)} trials have failed, the last with: {reasons[-1]}\n"
                f"{ended[-1]['details'] or ''}"
            )

    def _explore(self):
        """The hyperparameters of the space, found by a process of their own."""
        answer = self._ask_explorer()
        if answer[0] == "space":
            hp = hyperparameters_from(answer[1])
            self.is_unknown = not is_searchable(hp)  # until a `fit` has asked for some
            if self.is_unknown and not has_own_fit(self.space):
                self._refuse_space()
            return hp
        details = f"\n{answer[2]}" if len(answer) > 2 and answer[2] else ""
        raise SearchFailed(
            "`space` must build a model before any trial can run. Received: "
            f"{self.space!r}, which failed with {answer[1]}{details}"
        )

    def _refuse_space(self):
        raise ValueError(
            "`space` must have a hyperparameter to search over. Received: "
            f"{self.space!r}, which has none with more than one value."
        )

    def _ask_explorer(self):
        with tempfile.TemporaryDirectory() as folder:
            output = f"{folder}/output.txt"
            job = {"trial": None, "seed": self.oracle.seed, "output": output}
            answer = None
            try:
                self.server.start(EXPLORER, job)
                while True:
                    heard = self.server.hear(60)
                    if heard and heard[1][0] == "exit":
                        return answer or ("failed", ending(heard[1][1]))
                    answer = heard[1] if heard else answer
            except TrialServerLost:
                raise SearchFailed(
                    "The server of the trials' processes ended before any trial. A "
                    'script that searches needs `if __name__ == "__main__":` around '
                    "the call, and its messages stand above."
                ) from None

    def _replay(self, known):
        self.proposer = Proposer(self.oracle, known)
        self.proposer.replay(self.journal.events)
        self.is_unknown = not is_searchable(self.oracle.hyperparameters)
        ended = {e["trial"]: e for e in self.journal.events if e["event"] == "ended"}
        self.curves = {t: e["curve"] for t, e in ended.items() if e["curve"]}
        for trial in self.oracle.trials.values():
            if trial.trial_id not in ended:
                self.waiting.append(trial)
        self.failures = 0  # in a row; a new call is a new chance
        self.table.show_past(list(ended.values()), self.max_trials)

    def _loop(self):
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
                    restarts = 0
                self._kill_the_late()
                self.table.update(self.running)
        except KeyboardInterrupt:
            self.table.say("stopped by Ctrl-C; the same call goes on from here")
            raise

    def _hand_out(self):
        """Gives trials to free workers. False when none runs and none will."""
        if self._out_of_time():
            return False
        for worker in self.workers:
            if worker in self.running:
                continue
            if self.waiting:
                trial = self.waiting.popleft()
            else:
                trial = self._propose()
            if trial is not None:
                self._start(worker, trial)
        return bool(self.running)

    def _propose(self):
        """A new trial, or None: there are enough, or some must end first."""
        if self.exhausted or self.idle:
            return None
        if self.max_trials and len(self.oracle.trials) >= self.max_trials:
            return None
        if self.is_unknown and self.running:
            return None
        trial = self.proposer.create()
        if trial.status == "RUNNING":
            values = trial.hyperparameters.values
            created = len(self.oracle.start_order) - 1
            if created < len(self.first):
                rounds = {k: v for k, v in values.items() if k.startswith("tuner/")}
                values = {**self.first[created], **rounds}
                trial.hyperparameters.values = values
            self.journal.append("created", trial.trial_id, values=values)
            return trial
        if trial.status == "STOPPED" or not self.running:
            self.exhausted = True
        else:
            self.idle = True  # until a trial ends
            self.journal.append("idle")
        return None

    def _start(self, worker, trial):
        self.running[worker] = Run(trial, time.monotonic())
        try:
            self.server.start(worker, self._job(trial))
        except TrialServerLost:
            return  # heard of again at once, by the loop
        self.table.update(self.running)

    def _job(self, trial):
        # A trial whose process died goes on; one that failed begins with another seed.
        attempt = self._failures_of(trial.trial_id).count("failed")
        values = dict(trial.hyperparameters.values)
        directory = self.journal.trial_directory(trial.trial_id)
        past = values.get("tuner/trial_id")
        rounds = "tuner/epochs" in values
        objective = self.oracle.objective
        parts = getattr(objective, "objectives", [])
        boards = self.journal.directory / "tensorboard" / trial.trial_id
        return {
            "trial": trial.trial_id,
            "root": str(self.journal.directory),
            "seed": derive_seed(self.oracle.seed, trial.trial_id, attempt),
            "directory": str(directory),
            "output": str(directory / "output.txt"),
            "space": trial.hyperparameters.get_config(),
            "values": values,
            "objective": (objective.name, objective.direction),
            "metrics": [(part.name, part.direction) for part in parts],
            "epochs": (values["tuner/initial_epoch"], values["tuner/epochs"])
            if rounds
            else None,
            "past": past and str(self.journal.trial_directory(past)),
            "keep_state": rounds,
            "executions": self.executions,
            "tensorboard": str(boards) if self.tensorboard else None,
        }

    def _listen(self, worker, message):
        """Takes in a message. True when a trial ended."""
        kind, *content = message
        if kind in ("joined", "left"):
            self._change_crew(kind, *content)
        run = self.running.get(worker)
        if run is None:
            return False
        if kind == "epoch":
            _, score, logs = content
            run.curve.append(score)
            run.logs.append(logs)
            self.server.tell(worker, not self._is_hopeless(run))
        elif kind == "resumed":
            run.logs = list(content[0])
            objective = self.oracle.objective
            run.curve = [
                objective.get_value(logs) if objective.has_value(logs) else None
                for logs in run.logs
            ]
        elif kind == "exit":
            del self.running[worker]
            return self._conclude(run, run.answer or ("died", ending(*content)))
        else:
            run.answer = message
        return False

    def _is_hopeless(self, run):
        rule, direction = self.rules.stopping, self.oracle.objective.direction
        if rule is None or run.curve[-1] is None:  # an epoch without the objective
            return False
        others = [filled(curve) for curve in self.curves.values() if any_value(curve)]
        return rule.is_hopeless(filled(run.curve), others, direction)

    def _conclude(self, run, answer):
        """Decides what becomes of a trial whose process has ended; True if it ended."""
        kind, trial_id = answer[0], run.trial.trial_id
        if kind == "fatal":
            raise ValueError(answer[1])
        if kind == "ended":
            self._record(run, answer[1])
            return True
        _, reason, *details = answer
        tried = len(self._failures_of(trial_id))
        if kind != "late" and tried < self.rules.retries:
            self.journal.append("failed", trial_id, kind=kind, reason=reason)
            self.table.say(f"trial {trial_id} runs again: {reason}")
            self.waiting.append(run.trial)
            return False
        self._record(run, {"score": None}, reason, "".join(details))
        return True

    def _record(self, run, found, reason=None, details=None):
        trial_id = run.trial.trial_id
        space = found.get("space")
        if space is not None and not self._has_news(space):
            space = None
        facts = {
            "score": found["score"],
            "epoch": found.get("epoch", 0),
            "stopped": found.get("stopped", False),
            "parameters": found.get("parameters"),
            "curve": run.curve,
            "weights": found.get("weights", False),
            "curves": found.get("curves") or aligned(run.logs),
            "space": space,
            "reason": reason,
            "details": details,
            "seconds": round(time.monotonic() - run.began, 3),
        }
        self.journal.append("ended", trial_id, **facts)
        self.proposer.end(trial_id, facts["score"], facts["epoch"], space)
        self.is_unknown = not is_searchable(self.oracle.hyperparameters)
        if self.is_unknown and reason is None:
            self._refuse_space()
        self.curves[trial_id] = run.curve
        self.idle = False
        self.table.show_end(self.journal.events[-1])
        self.failures = 0 if reason is None else self.failures + 1
        if self.failures >= self.rules.max_failures:
            raise SearchFailed(
                f"{self.failures} trials in a row have failed (max_failures="
                f"{self.rules.max_failures}), the last, {trial_id}, with: {reason}\n"
                f"{details or ''}The same call goes on after the trials that failed."
            )

    def _has_news(self, space):
        known = self.oracle.hyperparameters
        found = hyperparameters_from(space)
        return any(not known._exists(h.name, h.conditions) for h in found.space)

    def _failures_of(self, trial_id):
        events = self.journal.of_trial(trial_id)
        return [event["kind"] for event in events if event["event"] == "failed"]

    def _recover_from_loss(self, restarts):
        """The server was killed: its trials go on in a new one."""
        if restarts > MOST_RESTARTS:
            raise SearchFailed(SERVER_DIED)
        self.table.say("the server of the trials' processes died and begins anew")
        self._give_back(self.own_workers)

    def _change_crew(self, kind, names):
        """Counts in workers of another host, or does without them."""
        host = names[0].rpartition("/")[0]
        self.table.say(f"{host} {kind}, with {len(names)} of the workers")
        if kind == "joined":
            self.workers = [*self.workers, *names]
            return
        self.workers = [name for name in self.workers if name not in names]
        self._give_back(names)

    def _give_back(self, workers):
        """Takes back the trials of workers that are gone, to go on elsewhere."""
        for worker in workers:
            run = self.running.pop(worker, None)
            if run is None:
                continue
            if run.answer and run.answer[0] == "ended":
                self._record(run, run.answer[1])
            else:
                self.waiting.append(run.trial)

    def _kill_the_late(self):
        limit = self.rules.trial_timeout
        for worker, run in self.running.items():
            if limit and not run.answer and time.monotonic() - run.began > limit:
                run.answer = ("late", f"it took more than trial_timeout={limit} s")
                self.server.kill(worker)

    def _out_of_time(self):
        limit = self.rules.timeout
        out = limit is not None and time.monotonic() - self.began > limit
        if out:
            self.table.say(f"stopped after timeout={limit} s; the same call goes on")
        return out


def complete(values, space, known):
    """Values with the defaults of what is missing.

    Raises:
        ValueError: A value has no hyperparameter, or one that does not count.
    """
    if hasattr(space, "checked_values"):
        space.checked_values(values)
    hp = keras_tuner.HyperParameters()
    for parameter in known.space:
        hp.merge([parameter])
        if hp.is_active(parameter):
            hp.values[parameter.name] = values.get(parameter.name, parameter.default)
    if unknown := [name for name in values if name not in hp.values]:
        raise ValueError(
            "`first` must hold values of hyperparameters that count: "
            f"{list(hp.values)}. Received: {unknown}."
        )
    return dict(hp.values)


def derive_seed(seed, trial_id, attempt):
    return zlib.crc32(f"{seed}/{trial_id}/{attempt}".encode()) % 2**31


def is_searchable(hyperparameters):
    return any(count_values(hp) > 1 for hp in hyperparameters.space)


def count_values(hp):
    """How many values a hyperparameter can take; 2 stands for any number above 1."""
    if isinstance(hp, keras_tuner.engine.hyperparameters.Fixed):
        return 1
    if isinstance(hp, keras_tuner.engine.hyperparameters.Choice):
        return len(hp.values)
    low, high = getattr(hp, "min_value", 0), getattr(hp, "max_value", 1)
    return 1 if low == high else 2


def ending(exit_code):
    """Says how a process ended that should not have."""
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
        return f"its process was killed by {name}{hint}"
    return f"its process ended with exit code {exit_code}"
