"""The work in a trial's process: build the model, train it, report the result."""

import os
import statistics
import sys
import traceback
from collections.abc import Callable
from typing import Any

import keras

from kseq.tuning.objectives import make_objective
from kseq.tuning.trials.curves import aligned
from kseq.tuning.trials.errors import FailedTrial, FatalError
from kseq.tuning.trials.execution import Execution, has_own_fit
from kseq.tuning.trials.exploration import explore
from kseq.tuning.trials.fits import Fits
from kseq.tuning.trials.job import Ended, Epoch, Explored, Failed, Fatal, Job, Resumed
from kseq.tuning.trials.layout import SearchDirectory
from kseq.tuning.trials.seeds import derive
from kseq.tuning.trials.weights import forget_failure, go_on_from, keep_weights
from kseq.typing import PathLike


def run(connection: Any, load: Callable[[], Any], job: Job) -> None:
    """Run one trial, or explore the space, and send the result.

    Args:
        connection: The connection for messages, which are those of `job.py`.
        load: Function without arguments that returns the space and the arguments of
            `fit`.
        job: The `Job`.
    """
    redirect_output(job.directory.output)
    try:
        keras.utils.set_random_seed(job.seed)
        if job.space is None:
            connection.send(Explored(explore(load()[0])))
        else:
            connection.send(train(load, job, connection))
    except FailedTrial as error:
        connection.send(Failed(str(error)))
    except FatalError as error:
        connection.send(Fatal(str(error)))
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        connection.send(Failed(reason, traceback.format_exc()))


def redirect_output(path: PathLike) -> None:
    """Redirect all output of this process, including TensorFlow's, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def train(load: Callable[[], Any], job: Job, connection: Any) -> Ended:
    """Build and fit the model of a trial, and return how it `Ended`."""
    given = load()
    objective = make_objective(job.objective)
    forget_failure(job.directory, job.seed)
    if job.past is not None:
        go_on_from(SearchDirectory(job.root).trial(job.past), job.directory)
    reporter = Reporter(connection, objective)
    fits = Fits(
        job.directory.path,
        objective,
        job.seed,
        reporter.report,
        epochs=job.epochs,
        keep_state=job.keeps_state,
        extra_callbacks=tensorboard(job),
        several=job.executions > 1 or has_own_fit(given[0]),
    )
    if logs := fits.past_logs():
        connection.send(Resumed(logs))
    executions = []
    for number in range(job.executions):
        keras.utils.set_random_seed(derive(job.seed, number))
        given = load() if number else given  # not shared with an earlier execution
        executions.append(Execution(given[0], given[1], job.space, job.values, fits))
        if reporter.is_stopped:
            break
    best = keep_weights(job.directory, executions, objective, job.keeps_state)
    first = executions[0]
    return Ended(
        score=statistics.fmean(execution.score for execution in executions),
        epoch=best.epoch,
        curves=aligned(fits.logs()) or first.curves,
        stopped=reporter.is_stopped,
        parameters=first.parameters,
        weights=job.directory.weights.exists(),
        space=first.hp.get_config(),
    )


class Reporter:
    """A reporter of epochs to the search, which receives whether to continue.

    Attributes:
        is_stopped: Whether the last answer was to stop.
    """

    def __init__(self, connection: Any, objective: Any) -> None:
        self.connection = connection
        self.objective = objective
        self.is_stopped = False

    def report(self, epoch: int, logs: dict[str, Any]) -> bool:
        found = self.objective.has_value(logs)
        score = self.objective.get_value(logs) if found else None
        self.connection.send(Epoch(score, logs))
        self.is_stopped = not self.connection.recv()
        return not self.is_stopped


def tensorboard(job: Job) -> list[Any]:
    """Return callbacks that write curves and hyperparameters for TensorBoard."""
    if not job.tensorboard:
        return []
    from tensorboard.plugins.hparams import api

    folder = str(SearchDirectory(job.root).tensorboard / job.trial)
    values = {k: v for k, v in job.values.items() if not k.startswith("tuner/")}
    return [
        keras.callbacks.TensorBoard(folder),
        api.KerasCallback(folder, values, trial_id=job.trial),
    ]
