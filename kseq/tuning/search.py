"""The function that searches a space, and the preparation of its arguments."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras_tuner

from kseq.executors import as_executor
from kseq.tuning.building import as_hypermodel
from kseq.tuning.results import Results
from kseq.tuning.trials.executor_engine import ExecutorEngine
from kseq.tuning.trials.files import read_json
from kseq.tuning.trials.identity import settings
from kseq.tuning.trials.journal import check_directory
from kseq.tuning.trials.layout import SearchDirectory
from kseq.tuning.trials.oracles import make_oracle
from kseq.tuning.trials.outcomes import Rules
from kseq.tuning.trials.running import Search
from kseq.tuning.trials.server import TrialServer
from kseq.tuning.trials.stopping import StoppingRule
from kseq.tuning.validation import (
    as_directory,
    check_numbers,
    check_rules,
    check_space,
    checked_first,
    require_tensorboard,
)
from kseq.typing import PathLike

ZERO = 2**31 - 1  # replaces the seed 0, which KerasTuner treats as no seed


def search(
    space: keras_tuner.HyperModel | Callable[[keras_tuner.HyperParameters], Any],
    data: Any = None,
    *,
    tuner: Literal["random", "bayesian", "grid", "hyperband"]
    | keras_tuner.Oracle = "random",
    objective: Any = "val_loss",
    first: Sequence[dict[str, Any]] = (),
    max_trials: int | None = None,
    executions_per_trial: int = 1,
    workers: int = 1,
    executor: Any = None,
    directory: PathLike,
    overwrite: bool = False,
    seed: int | None = None,
    stopping: StoppingRule | None = None,
    retries: int = 1,
    max_failures: int = 5,
    trial_timeout: float | None = None,
    timeout: float | None = None,
    tensorboard: bool = False,
    verbose: bool = True,
    **fit_arguments: Any,
) -> Results:
    """Search a space for the best model, running each trial in its own process.

    A problem in a trial, such as a crash, an out-of-memory kill or a loss that is not
    finite, fails only that trial. Repeat the same call with the same directory to
    continue a search that was stopped or killed, even in the middle of a trial. With
    one worker, the results equal those of an uninterrupted search. A finished search
    returns its results without further trials, or continues if `max_trials` is larger.

    A script that calls this needs `if __name__ == "__main__":` around the call, because
    processes import the script. Functions, classes and the space stay above it. Calls
    that create models or tensors belong under it: if the import runs nothing, trials
    are forked from it and start at once.

    Args:
        space: A `keras_tuner.HyperModel`, such as a `kseq.tuning.Space`, or a function
            from a `keras_tuner.HyperParameters` to a compiled model. Its `fit` may use
            further hyperparameters, and train in phases, folds or any other way. It
            must be picklable; objects without a name in a file, as in a notebook, are
            pickled by value.
        data: The data for `fit`: arrays `(x, y)` or `(x, y, sample_weight)`, a
            `PyDataset`, or a function without arguments that returns either and is
            called in the process of each trial.
        tuner: `"random"`, `"bayesian"`, `"grid"`, `"hyperband"`, or a new KerasTuner
            Oracle.
        objective: A metric that `fit` reports, such as `"val_loss"`; a metric and its
            direction, `("val_exact_match", "max")`; or a `keras_tuner.Objective`. For a
            list of these, the score is their sum, where metrics to be maximized are
            subtracted.
        first: Values to try before those that the tuner proposes, such as known good
            ones: a list of dicts by name. Missing values are defaults. `[{}]` tries the
            defaults. Not available for the grid, which tries all values.
        max_trials: Number of trials to run. None leaves it to the oracle; the grid and
            Hyperband end by themselves.
        executions_per_trial: Number of trainings per trial, each with other initial
            weights. The score of the trial is their mean; its model is the best one.
        workers: Number of trials that run at once. On this host they share the cores.
        executor: The executor that runs the trials. None for this host. Or a
            `distributed.Client` of Dask (`pip install kseq[dask]`), or any
            `concurrent.futures.Executor`. Its workers need kseq, and `directory` under
            the same path, because trials report through files there. A trial that is
            lost by its executor continues in another task from its last checkpoint. A
            `stopping` rule takes effect some epochs later than on this host. Trials
            that run when this process is killed continue until the same call is made,
            or to their end.
        directory: Directory for the files of the search: new, empty, or from this
            search, with the same space, data, objective, tuner and arguments of `fit`.
            Your functions and classes count as the same if their code, and the code of
            the functions they name, is the same. Return values of functions, and files
            read by data sets, are not compared. A search that failed before any trial
            had a score is replaced.
        overwrite: Whether to delete an earlier search in the directory, once the new
            space has built a model. A directory with other files is rejected.
        seed: Non-negative integer that determines all randomness. None for a random
            one, which is saved in the directory.
        stopping: A rule that stops hopeless trials early: `MedianStopping()`,
            `SuccessiveHalving()`, or an object with the same `is_hopeless` method.
        retries: Number of times to rerun a failed trial: from its last checkpoint if
            its process died, otherwise from the beginning with another seed.
        max_failures: Number of consecutive failed trials that ends the search.
        trial_timeout: Seconds after which a trial fails.
        timeout: Seconds after which the search stops. The same call continues it.
        tensorboard: Whether to write curves and hyperparameters for TensorBoard to
            `directory/tensorboard`.
        verbose: Whether to show the progress of trials.
        **fit_arguments: Further arguments of `fit`: `epochs`, `validation_data`,
            `callbacks`, `batch_size`, ...

    Returns:
        `Results`: the trials as a table, the best model, a report.

    Raises:
        ValueError: An argument is invalid, the directory contains something else, or
            `fit` does not report the metric.
        SearchFailed: The space builds no model, too many trials in a row fail, no trial
            succeeds, or the executor accepts no more tasks.
        KeyboardInterrupt: After Ctrl-C. Nothing is lost.
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
    check_directory(directory)
    space = as_hypermodel(space)
    check_space(space)
    payload = space, FitArguments(data, fit_arguments)
    server = TrialServer(payload, workers)
    engine: TrialServer | ExecutorEngine = server
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
        first=checked_first(first, oracle, space),
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
    """The arguments of `fit`, created in the process that uses them."""

    def __init__(self, data: Any, named: Mapping[str, Any]) -> None:
        self.data = data
        self.named = named

    def __iter__(self) -> Iterator[Any]:
        data = self.data() if callable(self.data) else self.data
        if data is None:
            data = ()
        yield tuple(data[:2]) if isinstance(data, tuple | list) else (data,)
        named = dict(self.named)
        if isinstance(data, tuple | list) and len(data) == 3:
            named["sample_weight"] = data[2]
        yield named


def seed_of(seed: int | None, directory: Path, overwrite: bool) -> int:
    """Return the given seed, the one of the search in the directory, or a new one."""
    if seed is not None:
        return seed or ZERO
    found = {} if overwrite else read_json(SearchDirectory(directory).identity) or {}
    return found.get("seed") or random.SystemRandom().randrange(1, 2**31)
