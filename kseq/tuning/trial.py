"""What the process of one trial does: build the model, train it, say how it went."""

import contextlib
import os
import shutil
import sys
import traceback
from pathlib import Path

import keras
import keras_tuner
import numpy as np

from kseq.tuning.files import write_json
from kseq.tuning.oracles import hyperparameters_from, is_finite
from kseq.tuning.resuming import (
    BEST,
    CHECKPOINT,
    FailedTrial,
    FatalError,
    ResumableFit,
    columns,
    load_checkpoint,
)

BUILD_CONFIG = "build_config.json"


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
        space, arguments = load()
        keras.utils.set_random_seed(job["seed"])
        if job["trial"] is None:
            connection.send(("space", explore(space)))
        else:
            connection.send(("ended", train(space, arguments, job, connection)))
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


def train(space, arguments, job, connection):
    """Builds and fits the model of a trial; returns what the journal keeps of it."""
    directory = Path(job["directory"])
    objective = keras_tuner.Objective(*job["objective"])
    if job["metrics"]:
        objective = keras_tuner.oracles.RandomSearchOracle(
            [keras_tuner.Objective(*metric) for metric in job["metrics"]]
        ).objective
    forget_failure(directory, job["seed"])
    go_on_from(job["past"], directory)
    hp = hyperparameters_from(job["space"])
    hp.values = dict(job["values"])
    model = require_model(space.build(hp))
    verdicts = []

    def report(epoch, logs):
        score = objective.get_value(logs)
        connection.send(("epoch", epoch, score, logs))
        verdicts.append(connection.recv())
        return verdicts[-1]

    resumable = ResumableFit(
        model,
        directory,
        objective,
        job["seed"],
        report,
        epochs=job["epochs"],
        keep_state=job["keep_state"],
        extra_callbacks=tensorboard(job),
    )
    if resumable.past:
        connection.send(("resumed", resumable.past["meta"]["logs"]))
    positional, named = arguments
    results = space.fit(hp, model, *positional, **named)
    with contextlib.suppress(NotImplementedError, TypeError):
        # What a model that is built by its first batch needs to be built again.
        write_json(directory / BUILD_CONFIG, model.get_build_config())
    if not (directory / BEST).exists():
        model.save_weights(directory / BEST)
    if not job["keep_state"]:
        (directory / CHECKPOINT).unlink(missing_ok=True)
    score, epoch, curves = scored(results, objective)
    return {
        "score": score,
        "epoch": epoch,
        "curves": curves,
        "stopped": verdicts[-1:] == [False],
        "parameters": model.count_params() if model.built else None,
        "space": hp.get_config(),
    }


def forget_failure(directory, seed):
    """Removes the state of an earlier attempt, which had another seed."""
    state = load_checkpoint(directory / CHECKPOINT)
    meta = state and state["meta"]
    if meta and meta["trial"] == directory.name and meta["seed"] != seed:
        (directory / CHECKPOINT).unlink()


def go_on_from(past, directory):
    """Takes over the state of the trial that a round of Hyperband promotes."""
    if past is None or (directory / CHECKPOINT).exists():
        return
    for name in (BEST, CHECKPOINT):
        source = Path(past) / name
        if source.exists():
            shutil.copyfile(source, directory / f"{name}.part")
            os.replace(directory / f"{name}.part", directory / name)


def scored(results, objective):
    """The score, its epoch and the learning curves of whatever `fit` returned."""
    if isinstance(results, keras.callbacks.History):
        curves = results.history
        logs = [
            dict(zip(curves, row, strict=True))
            for row in zip(*curves.values(), strict=True)
        ]
        if not logs:
            raise FailedTrial("it trained for no epoch")
        scores = [objective.get_value(row) for row in logs]
        best = (min if objective.direction == "min" else max)(scores)
        return best, scores.index(best), curves
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
    return score, 0, curves


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
