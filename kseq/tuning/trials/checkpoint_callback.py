"""The callback that saves checkpoints and the best weights of a training."""

import math
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import keras
import numpy as np

from kseq.training.states import plain_attributes
from kseq.tuning.budget import validates
from kseq.tuning.objectives import names_of
from kseq.tuning.trials.checkpoints import (
    restore_attributes,
    restore_variables,
    save_checkpoint,
    variables,
)
from kseq.tuning.trials.errors import FailedTrial, FatalError
from kseq.tuning.trials.files import replacing
from kseq.tuning.trials.layout import WEIGHTS
from kseq.tuning.trials.seeds import derive

if TYPE_CHECKING:
    from kseq.tuning.trials.fits import FitCall

SHARE_OF_TIME = 0.05  # maximum fraction of the time for checkpoints


class CheckpointCallback(keras.callbacks.Callback):
    """The last of the callbacks, which sees and saves what the others did."""

    def __init__(
        self,
        call: "FitCall",
        others: Sequence[Any],
        epochs: int,
        validation_freq: Any,
    ) -> None:
        super().__init__()
        self.call = call
        self.owner = call.owner
        self.others = others
        self.last_epoch = epochs - 1
        self.validation_freq = validation_freq
        self._saved = time.monotonic()
        self._cost = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        past = self.call.past
        if past is None:
            return
        restore_variables(self.model, past["arrays"])
        for number, callback in enumerate(self.others):
            restore_attributes(callback, number, past)
        self.call.logs = past["meta"]["logs"]
        self.call.best = past["meta"]["best"]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        seed = derive(self.call.seed, epoch)
        random.seed(seed)
        np.random.seed(seed)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {n: float(v) for n, v in (logs or {}).items() if np.ndim(v) == 0}
        self.call.logs.append(logs)
        score = self._score(epoch, logs)
        best, better = self.call.best, self.owner.objective.better_than
        if score is not None and (best is None or better(score, best[0])):
            self.call.best = [score, len(self.call.logs) - 1]
            with replacing(self.call.weights, WEIGHTS) as path:
                self.model.save_weights(path)
        if not self.owner.report(epoch, logs):
            self.model.stop_training = True
        last = self.model.stop_training or epoch == self.last_epoch
        is_needed = self.owner.keep_state or self.owner.several
        rested = time.monotonic() - self._saved
        if (last and is_needed) or rested > self._cost / SHARE_OF_TIME:
            self._save(epoch)
        if last and self.call.best is None and not self.owner.several:
            self._refuse_objective(logs)

    def _score(self, epoch: int, logs: dict[str, Any]) -> float | None:
        """Return the score of an epoch, or None if it was not validated."""
        objective, score = self.owner.objective, None
        if objective.has_value(logs):
            score = objective.get_value(logs)
        elif self.call.best is None and self._is_complete(epoch):
            self._refuse_objective(logs)
        for name, value in ((objective.name, score), ("loss", logs.get("loss", 0.0))):
            if value is not None and not math.isfinite(value):
                raise FailedTrial(f"{name} was {value} in epoch {epoch + 1}")
        return score

    def _is_complete(self, epoch: int) -> bool:
        """Return whether no later epoch can report more metrics than this one."""
        is_known = all(map(reports_nothing, self.others))
        is_validated = validates(epoch, self.validation_freq)
        return is_known and is_validated and not self.owner.several

    def _refuse_objective(self, logs: dict[str, Any]) -> NoReturn:
        raise FatalError(
            "`objective` must be a metric that `fit` reports: one of "
            f"{', '.join(sorted(logs))}. Received: objective="
            f"{names_of(self.owner.objective)!r}. Add it to the metrics of `compile`; "
            "names that begin with val_ also need `validation_data`."
        )

    def _save(self, epoch: int) -> None:
        began = time.monotonic()
        states = [plain_attributes(callback) for callback in self.others]
        arrays = {
            f"callback/{number}/{name}/{i}": array
            for number, state in enumerate(states)
            for name, value in state["arrays"].items()
            for i, array in enumerate(value)
        }
        meta = {
            "trial": self.owner.directory.path.name,
            "seed": self.owner.seed,
            "next_epoch": epoch + 1,
            "stopped": bool(self.model.stop_training),
            "logs": self.call.logs,
            "best": self.call.best,
            "callbacks": [state["values"] for state in states],
        }
        arrays |= variables(self.model)
        save_checkpoint(self.call.checkpoint, meta, arrays)
        self._saved = time.monotonic()
        self._cost = self._saved - began


def reports_nothing(callback: Any) -> bool:
    """Return whether a callback adds nothing to the logs, or does so in each epoch."""
    known = type(callback).__module__.partition(".")[0] in ("keras", "kseq")
    return known and not isinstance(callback, keras.callbacks.LambdaCallback)
