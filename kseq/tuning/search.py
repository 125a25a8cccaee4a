"""The call that searches a space, and what it makes of its arguments."""

import random

from kseq.executors import as_executor
from kseq.tuning.building import as_hypermodel
from kseq.tuning.results import Results
from kseq.tuning.trials.executor_engine import ExecutorEngine
from kseq.tuning.trials.files import read_json
from kseq.tuning.trials.identity import settings
from kseq.tuning.trials.layout import SearchDirectory
from kseq.tuning.trials.oracles import make_oracle
from kseq.tuning.trials.outcomes import Rules
from kseq.tuning.trials.running import Search
from kseq.tuning.trials.server import TrialServer
from kseq.tuning.validation import (
    as_directory,
    check_numbers,
    check_rules,
    checked_first,
    require_tensorboard,
)

ZERO = 2**31 - 1  # the seed 0, which KerasTuner takes for none


def search(
    space,
    data=None,
    *,
    tuner="random",
    objective="val_loss",
    first=(),
    max_trials=None,
    executions_per_trial=1,
    workers=1,
    executor=None,
    directory,
    overwrite=False,
    seed=None,
    stopping=None,
    retries=1,
    max_failures=5,
    trial_timeout=None,
    timeout=None,
    tensorboard=False,
    verbose=True,
    **fit_arguments,
):
    """Searches a space for the best model, every trial in a process of its own.

    What goes wrong in a trial is that trial's failure alone: a crash, an out-of-memory
    kill, a loss that is not finite. The same call in the same directory goes on where
    the last one was stopped or killed, in the middle of a trial too; with one worker
    the results are those of a search that nothing stopped. A finished search returns
    its results without another trial; with a larger `max_trials` it goes on.

    A script that calls this needs `if __name__ == "__main__":` around the call, since
    processes import it. Best leave all that makes models or tensors there as well: if
    the import runs nothing, trials are forked from it, and begin at once.

    Args:
        space: A `keras_tuner.HyperModel`, such as a `kseq.tuning.Space`, or a function
            from a `keras_tuner.HyperParameters` to a compiled model. Its `fit` may ask
            for further hyperparameters, and train in phases, folds or its own way. It
            must pickle; what has no name in a file, as in a notebook, goes by value.
        data: What `fit` takes as its data: arrays `(x, y)` or `(x, y, sample_weight)`,
            a `PyDataset`, or a function of no arguments that returns either, called in
            the process of each trial.
        tuner: `"random"`, `"bayesian"`, `"grid"`, `"hyperband"`, or a fresh Oracle of
            KerasTuner.
        objective: A metric that `fit` reports, such as `"val_loss"`; or that and its
            direction, `("val_exact_match", "max")`, or a `keras_tuner.Objective`. Of a
            list of these the score is the sum, in which what shall rise is subtracted.
        first: Values to try before those that the tuner proposes, such as what is known
            to be good: a list of dicts by name, in which what is missing has its
            default. `[{}]` tries the defaults. Not with the grid, which tries all.
        max_trials: How many trials to run. None leaves that to the oracle, of which
            the grid and Hyperband come to an end by themselves.
        executions_per_trial: How often each trial trains a model, each time from other
            first weights. The trial's score is the mean, its model the best of them.
        workers: How many trials run at once. On this host they share out the cores.
        executor: What runs the trials: None is this host; else a `distributed.Client`
            of Dask (`pip install kseq[dask]`), or any `concurrent.futures.Executor`.
            Its workers have kseq installed, and `directory` under the same path: the
            trials report through files there. A trial that its executor loses goes on
            in another task, from its last checkpoint. A `stopping` rule is heard some
            epochs later than here. Trials that run when this process is killed go on
            until the same call is made, or to their end.
        directory: Where the search keeps its files: a new, an empty, or this search's,
            which has the same space, data, objective, tuner and arguments of `fit`.
            Functions and classes of your own are the same while their code is, and that
            of the functions that it names. What a function returns or a data set reads
            from files is not looked at. A search that could not go on before any trial
            had a score makes way for another.
        overwrite: Whether to delete what an earlier search has left in the directory,
            once the new space has built a model. Files of others are refused.
        seed: Non-negative integer that all randomness follows from. None draws one,
            and keeps it in the directory.
        stopping: A rule that ends hopeless trials early: `MedianStopping()`,
            `SuccessiveHalving()`, or an object with such an `is_hopeless`.
        retries: How often a trial that failed runs again: from its last checkpoint if
            its process died, from the beginning with another seed if it did not.
        max_failures: The search stops after that many trials in a row have failed.
        trial_timeout: Seconds that a trial may take, after which it has failed.
        timeout: Seconds after which the search stops; the same call goes on.
        tensorboard: Whether to write curves and hyperparameters for TensorBoard, to
            `directory/tensorboard`.
        verbose: Whether to show the trials as they run.
        **fit_arguments: Further arguments of `fit`: `epochs`, `validation_data`,
            `callbacks`, `batch_size`, ...

    Returns:
        `Results`: the trials as a table, the best model, a report.

    Raises:
        ValueError: An argument does not make sense, or the directory holds something
            else, or `fit` reports no such metric.
        SearchFailed: The space builds no model, trials fail and fail, none has
            succeeded, or the executor takes no more.
        KeyboardInterrupt: After Ctrl-C; nothing is lost.
    """
    check_numbers(workers=workers, max_failures=max_failures)
    check_numbers(executions_per_trial=executions_per_trial)
    check_numbers(0, retries=retries, seed=0 if seed is None else seed)
    if max_trials is not None:
        check_numbers(max_trials=max_trials)
    if tensorboard:
        require_tensorboard()
    check_rules(stopping, trial_timeout=trial_timeout, timeout=timeout)
    directory = as_directory(directory)
    space = as_hypermodel(space)
    payload = space, FitArguments(data, fit_arguments)
    server = engine = TrialServer(payload, workers)
    if executor is not None:
        engine = ExecutorEngine(as_executor(executor, retries=0), payload, directory)
    epochs = fit_arguments.get("epochs")
    oracle = make_oracle(tuner, objective, seed_of(seed, directory, overwrite), epochs)
    running = Search(
        space=space,
        server=server,
        engine=engine,
        settings=settings(data, fit_arguments, executions_per_trial),
        oracle=oracle,
        first=checked_first(first, oracle),
        max_trials=max_trials,
        workers=workers,
        directory=directory,
        overwrite=overwrite,
        rules=Rules(stopping, retries, max_failures, trial_timeout, timeout),
        executions=executions_per_trial,
        tensorboard=tensorboard,
        verbose=verbose,
    )
    return Results(space, oracle.objective, running.run())


class FitArguments:
    """The arguments of `fit`, made in the process that needs them."""

    def __init__(self, data, named):
        self.data = data
        self.named = named

    def __iter__(self):
        data = self.data() if callable(self.data) else self.data
        if data is None:
            data = ()
        yield tuple(data[:2]) if isinstance(data, tuple | list) else (data,)
        named = dict(self.named)
        if isinstance(data, tuple | list) and len(data) == 3:
            named["sample_weight"] = data[2]
        yield named


def seed_of(seed, directory, overwrite):
    """The seed given, or that of the search in the directory, or a new one."""
    if seed is not None:
        return seed or ZERO
    found = {} if overwrite else read_json(SearchDirectory(directory).identity) or {}
    return found.get("seed") or random.SystemRandom().randrange(1, 2**31)
