"""What the process of one trial does: build the model, train it, say how it went."""

import contextlib
import inspect
import os
import shutil
import statistics
import sys
import traceback
from pathlib import Path

import keras
import keras_tuner
import numpy as np

from kseq.tuning.fingerprint import fingerprint, is_installed
from kseq.tuning.trials.files import replacing, write_json
from kseq.tuning.trials.oracles import hyperparameters_from, is_finite
from kseq.tuning.trials.resuming import (
    BEST,
    FailedTrial,
    FatalError,
    Fits,
    aligned,
    columns,
    derive,
    load_checkpoint,
)

BUILD_CONFIG = "build_config.json"
MODEL = "model.json"


def run(connection, load, job):
    """Runs one trial, or explores the space, and sends what came of it.

    Args:
        connection: Where messages go, each a tuple that begins with its kind: `epoch`
            (answered by whether to go on), `space`, `ended`, `failed` or `fatal`.
        load: Function of no arguments that returns the space and the arguments of fit.
        job: What to do, a dictionary: see `Search`.
    """
    redirect_output(job["output"])
    try:
        keras.utils.set_random_seed(job["seed"])
        if job["trial"] is None:
            connection.send(("space", explore(load()[0])))
        else:
            connection.send(("ended", train(load, job, connection)))
    except FailedTrial as error:
        connection.send(("failed", str(error), ""))
    except FatalError as error:
        connection.send(("fatal", str(error)))
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {error}"
        connection.send(("failed", reason, traceback.format_exc()))


def redirect_output(path):
    """Sends all that this process prints, TensorFlow's remarks too, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def explore(space):
    """Returns the hyperparameters of a space, those of every condition among them.

    A condition that no build has met hides what is behind it, so a model is built for
    each of them.
    """
    known = keras_tuner.HyperParameters()
    space.declare_hyperparameters(known)
    hp, met, unmet = known.copy(), [], []
    while True:
        require_model(space.build(hp))
        new = [h for h in hp.space if not known._exists(h.name, h.conditions)]
        known.merge(new)
        met += [c for c in hp.active_scopes if c not in met]
        unmet += [c for c in hp.inactive_scopes if c not in unmet]
        unmet = [c for c in unmet if c not in met]
        if not unmet:
            return known.get_config()
        met.append(unmet[0])  # once is enough, should it be impossible
        hp = known.copy()
        for condition in unmet[0]:
            hp.values[condition.name] = condition.values[0]
        hp.ensure_active_values()


def require_model(model):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "The space must build a compiled `keras.Model`. Received: "
            f"{model!r}, of type {type(model).__name__}."
        )
    return model


def train(load, job, connection):
    """Builds and fits the model of a trial; returns what the journal keeps of it."""
    given = load()
    directory = Path(job["directory"])
    objective = keras_tuner.Objective(*job["objective"])
    if job["metrics"]:
        objective = keras_tuner.oracles.RandomSearchOracle(
            [keras_tuner.Objective(*metric) for metric in job["metrics"]]
        ).objective
    forget_failure(directory, job["seed"])
    go_on_from(job["past"], directory)
    verdicts = []

    def report(epoch, logs):
        score = objective.get_value(logs) if objective.has_value(logs) else None
        connection.send(("epoch", epoch, score, logs))
        verdicts.append(connection.recv())
        return verdicts[-1]

    fits = Fits(
        directory,
        objective,
        job["seed"],
        report,
        epochs=job["epochs"],
        keep_state=job["keep_state"],
        extra_callbacks=tensorboard(job),
        several=job["executions"] > 1 or has_own_fit(given[0]),
    )
    if logs := fits.past_logs():
        connection.send(("resumed", logs))
    executions = []
    for number in range(job["executions"]):
        keras.utils.set_random_seed(derive(job["seed"], number))
        given = load() if number else given  # nothing that an earlier one has used
        executions.append(Execution(*given, job["space"], job["values"], fits))
        if verdicts[-1:] == [False]:
            break
    best = keep_weights(directory, executions, objective, job["keep_state"])
    first = executions[0]
    return {
        "score": statistics.fmean(execution.score for execution in executions),
        "epoch": best.epoch,
        "curves": aligned(fits.logs()) or first.curves,
        "stopped": verdicts[-1:] == [False],
        "parameters": first.parameters,
        "weights": (directory / BEST).exists(),
        "space": first.hp.get_config(),
    }


class Execution:
    """One training of a trial, by one call of the space's `fit`.

    Attributes:
        score: What it reached.
        call: The `FitCall` that its best weights come from, or None.
        epoch: The index of the best epoch among all epochs of the trial.
        curves: The metrics that `fit` of the space returned, where no call of `fit`
            reported any.
        model: The model with weights to keep that no call of `fit` knows, or None.
    """

    def __init__(self, space, arguments, config, values, fits):
        self.hp = hyperparameters_from(config)
        self.hp.values = dict(values)
        model = require_model(space.build(self.hp))
        before = weights_of(model) if fits.several else None
        positional, named = arguments
        if "callbacks" in inspect.signature(space.fit).parameters:
            named.setdefault("callbacks", [])  # as KerasTuner gives them, always
        begun = len(fits.calls)
        with fits:
            results = space.fit(self.hp, model, *positional, **named)
        calls = fits.calls[begun:]
        self.call = best_call(calls, results, model, fits.objective)
        self.score, self.curves = scored(results, self.call, fits.objective)
        self.epoch = 0
        if self.call is not None:
            earlier = fits.calls[: self.call.number]
            self.epoch = self.call.best[1] + sum(len(call.logs) for call in earlier)
        is_trained = before is not None and weights_of(model) != before
        is_trained |= getattr(space, "model", None) is model  # of a `Decoding`
        self.model = model if self.call is None and is_trained else None
        self.config = config_of(model)
        self.parameters = model.count_params() if model.built else None
        if self.parameters is None and self.call is not None:
            self.parameters = self.call.parameters


def config_of(model):
    """The model as JSON, or None if it has no config."""
    with contextlib.suppress(Exception):  # whatever a user's class may raise
        return model.to_json()


def has_own_fit(space):
    """Tell whether the user wrote `fit` of the space."""
    return not is_installed(type(space).fit.__module__)


def weights_of(model):
    return fingerprint(model.get_weights()) if model.built else None


def best_call(calls, results, model, objective):
    """The best call of `fit`, among those whose scores can be compared.

    That is with the one whose `History` was returned, or with the last one that trained
    such a model as the space has built.
    """
    scored = [call for call in calls if call.best is not None]
    shapes = [tuple(weight.shape) for weight in model.weights]
    fitting = [call for call in scored if not shapes or call.kind[1] == shapes]
    returned = [call for call in fitting if call.history() is results]
    if not fitting:
        return None
    kind = (returned or fitting)[-1].kind
    sign = 1 if objective.direction == "min" else -1
    alike = [call for call in fitting if call.kind == kind]
    return min(alike, key=lambda call: sign * call.best[0])


def keep_weights(directory, executions, objective, keep_state):
    """Keeps the best weights of all executions, and returns the one they are of."""
    sign = 1 if objective.direction == "min" else -1

    def rank(execution):
        score = execution.score if execution.call is None else execution.call.best[0]
        return sign * score

    best = min(executions, key=rank)
    if not keep_state:
        for path in directory.glob("checkpoint-*.npz"):
            path.unlink()
    if best.call is not None:
        with replacing(directory / BEST) as path:
            shutil.copyfile(best.call.weights, path)
        config = best.call.build_config
    elif best.model is not None:
        best.model.save_weights(directory / BEST)
        config = best.model.get_build_config() if best.model.built else None
    else:
        (directory / BEST).unlink(missing_ok=True)
        config = None
    if config is not None:
        # What a model that is built by its first batch needs to be built again.
        with contextlib.suppress(TypeError):
            write_json(directory / BUILD_CONFIG, config)
    if best.config is not None:
        with replacing(directory / MODEL) as path:
            Path(path).write_text(best.config, "utf-8")
    if not keep_state:
        for path in directory.glob("best-*.weights.h5"):
            path.unlink()
    return best


def forget_failure(directory, seed):
    """Removes the state of an earlier attempt, which had another seed."""
    for path in directory.glob("checkpoint-*.npz"):
        state = load_checkpoint(path)
        meta = state and state["meta"]
        if meta and meta["trial"] == directory.name and meta["seed"] != seed:
            path.unlink()


def go_on_from(past, directory):
    """Takes over the state of the trial that a round of Hyperband promotes."""
    if past is None or any(directory.glob("checkpoint-*.npz")):
        return
    for pattern in ("best-*.weights.h5", "checkpoint-*.npz"):
        for source in sorted(Path(past).glob(pattern)):
            with replacing(directory / source.name) as path:
                shutil.copyfile(source, path)


def scored(results, call, objective):
    """The score of an execution, and the curves of whatever `fit` returned."""
    if isinstance(results, keras.callbacks.History):
        if call is not None:
            return call.best[0], {}
        if not results.history:
            raise FailedTrial("it trained for no epoch")
        results = {name: row[-1] for name, row in results.history.items()}
    if isinstance(results, dict):
        if not objective.has_value(results):
            raise FatalError(
                "`objective` must be among the metrics that `fit` of the space "
                f"returns: {', '.join(results)}. Received: {objective.name!r}."
            )
        logs = {name: float(value) for name, value in results.items()}
        score = objective.get_value(logs)
        curves = columns([logs])
    elif isinstance(results, int | float | np.number):
        score = float(results)
        curves = {objective.name: [score]}
    else:
        raise FatalError(
            "`fit` of the space must return a History, a dictionary of metrics, or the "
            f"objective as a number. Received: {type(results).__name__}."
        )
    if not is_finite(score):
        raise FailedTrial(f"{objective.name} was {score}")
    return score, curves


def tensorboard(job):
    """Callbacks that write the curves and the hyperparameters for TensorBoard."""
    if job["tensorboard"] is None:
        return []
    from tensorboard.plugins.hparams import api

    values = {k: v for k, v in job["values"].items() if not k.startswith("tuner/")}
    return [
        keras.callbacks.TensorBoard(job["tensorboard"]),
        api.KerasCallback(job["tensorboard"], values, trial_id=job["trial"]),
    ]
