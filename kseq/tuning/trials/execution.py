"""One training by the `fit` of a space: its score, and its best model."""

import contextlib
import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kseq.tuning.fingerprint import fingerprint, is_installed
from kseq.tuning.objectives import names_of
from kseq.tuning.trials.curves import columns
from kseq.tuning.trials.errors import FailedTrial, FatalError
from kseq.tuning.trials.fits import FitCall, Fits
from kseq.tuning.trials.oracles import hyperparameters_from


class Execution:
    """One training of a trial, by one call of the space's `fit`.

    Attributes:
        score: Its score.
        call: The `FitCall` that its best weights come from, or None.
        epoch: Index of the best epoch among all epochs of the trial.
        curves: The metrics returned by `fit` of the space, if no call of Keras' `fit`
            reported any.
        model: The trained model, if no call of Keras' `fit` has its weights. Or None.
    """

    def __init__(
        self,
        space: Any,
        arguments: Iterable[Any],
        config: dict[str, Any],
        values: Mapping[str, Any],
        fits: Fits,
    ) -> None:
        self.hp = hyperparameters_from(config)
        self.hp.values = dict(values)
        model = require_model(space.build(self.hp))
        before = weights_of(model) if fits.several else None
        positional, named = arguments
        if "callbacks" in inspect.signature(space.fit).parameters:
            named.setdefault("callbacks", [])  # KerasTuner always passes them
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


def config_of(model: Any) -> str | None:
    """Return the model as JSON, or None if it has no config."""
    with contextlib.suppress(Exception):  # a user's class may raise anything
        return model.to_json()
    return None


def has_own_fit(space: Any) -> bool:
    """Return whether the user wrote `fit` of the space."""
    return not is_installed(type(space).fit.__module__)


def weights_of(model: Any) -> str | None:
    return fingerprint(model.get_weights()) if model.built else None


def best_call(
    calls: Sequence[FitCall], results: Any, model: Any, objective: Any
) -> FitCall | None:
    """Return the best call of `fit`, among those whose scores can be compared.

    They are compared with the call whose `History` was returned, or with the last call
    that trained a model like the one that the space built.
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


def scored(
    results: Any, call: FitCall | None, objective: Any
) -> tuple[float, dict[str, list[float]]]:
    """Return the score of an execution, and the curves of other results of `fit`."""
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
                f"returns: {', '.join(results)}. Received: {names_of(objective)!r}."
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
    if not math.isfinite(score):
        raise FailedTrial(f"{objective.name} was {score}")
    return score, curves


def require_model(model: Any) -> Any:
    if not isinstance(model, keras.Model):
        raise TypeError(
            "The space must build a compiled `keras.Model`. Received: "
            f"{model!r}, of type {type(model).__name__}."
        )
    return model
