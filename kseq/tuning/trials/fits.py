"""A resumable `fit`: after a kill, it continues and ends as if uninterrupted."""

import contextlib
import inspect
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import keras

from kseq.tuning.fingerprint import fingerprint
from kseq.tuning.trials.checkpoint_callback import CheckpointCallback
from kseq.tuning.trials.checkpoints import load_checkpoint
from kseq.tuning.trials.curves import columns
from kseq.tuning.trials.layout import TrialDirectory
from kseq.tuning.trials.seeds import derive
from kseq.tuning.trials.shuffling import shuffle_by_epoch
from kseq.typing import PathLike


class Fits:
    """All calls of `fit` of one trial, of any model: deterministic and resumable.

    Within its context, `keras.Model.fit` is replaced. An epoch depends only on the
    seed, the number of the call, the number of the epoch and the state of the model:
    the random generators of Python and NumPy are seeded in each epoch and after each
    call, arrays are shuffled by the seed and the number of the epoch, and a `PyDataset`
    gets the epoch ends of earlier epochs. The checkpoint of a call contains the
    variables of the model and the optimizer, the states of the seed generators, the
    logs, and the plain attributes of the callbacks. So a trial that is killed in any
    epoch of any call ends with the same weights as an uninterrupted one; calls that had
    ended return the same results. A generator or a `tf.data.Dataset` starts over where
    `fit` resumes.

    Args:
        directory: Directory of the checkpoints and the best weights of each call.
        objective: The `keras_tuner.Objective` that determines the best weights.
        seed: Non-negative integer.
        report: Function of an epoch's number and logs that is called after each epoch
            and returns False to stop the training. None for no reports.
        epochs: `(first, end)`, if the user does not choose them (Hyperband).
        keep_state: Whether the final state is needed to continue from it.
        extra_callbacks: Callbacks for every call.
        several: Whether there may be several calls, by a custom `fit`. It may then
            compute the objective itself.
    """

    def __init__(
        self,
        directory: PathLike,
        objective: Any,
        seed: int,
        report: Callable[[int, dict[str, Any]], bool] | None = None,
        epochs: tuple[int, int] | None = None,
        keep_state: bool = False,
        extra_callbacks: Iterable[Any] = (),
        several: bool = False,
    ) -> None:
        self.directory = TrialDirectory(directory)
        self.objective = objective
        self.seed = seed
        self.report = report or (lambda epoch, logs: True)
        self.epochs = epochs
        self.keep_state = keep_state
        self.extra_callbacks = list(extra_callbacks)
        self.several = several
        self.calls: list[FitCall] = []
        self._is_inside = False

    def __enter__(self) -> Self:
        self._before = vars(keras.Model).get("fit")
        original = keras.Model.fit

        def fit(model, *args, **kwargs):
            if self._is_inside:  # called by a callback of another `fit`
                return original(model, *args, **kwargs)
            return self._watch(original, model, args, kwargs)

        keras.Model.fit = fit
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is None:
            del keras.Model.fit
        else:
            keras.Model.fit = self._before

    def past_logs(self) -> list[dict[str, Any]]:
        """Return the logs of all epochs in the checkpoints of an earlier process."""
        logs: list[dict[str, Any]] = []
        number = 0
        while past := load_checkpoint(self.directory.checkpoint(number)):
            logs += past["meta"]["logs"]
            number += 1
        return logs

    def logs(self) -> list[dict[str, Any]]:
        return [row for call in self.calls for row in call.logs]

    def _watch(
        self,
        original: Callable[..., Any],
        model: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        call = FitCall(self, model, len(self.calls))
        self.calls.append(call)
        self._is_inside = True
        try:
            history = call.run(original, args, kwargs)
        finally:
            self._is_inside = False
        # What follows, such as the weights of the next model, must not depend on
        # whether the call was resumed.
        keras.utils.set_random_seed(derive(self.seed, len(self.calls)))
        return history


class FitCall:
    """One call of `fit`, numbered within its trial.

    Attributes:
        logs: A dictionary for each epoch.
        best: The best score and the index of its epoch, or None.
        kind: The loss and the shapes of the weights. Scores of two calls can be
            compared if these are equal.
        history: A weak reference to the returned `History`.
    """

    def __init__(self, owner: Fits, model: Any, number: int) -> None:
        self.owner = owner
        self.model = model
        self.number = number
        self.seed = derive(owner.seed, number) if number else owner.seed
        self.checkpoint = owner.directory.checkpoint(number)
        self.weights = owner.directory.weights_of_call(number)
        self.past = load_checkpoint(self.checkpoint)
        self.logs: list[dict[str, Any]] = []
        self.best: Any = None
        self.kind: Any = None
        self.history: Any = None
        self.build_config: Any = None

    def run(
        self,
        original: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        bound = inspect.signature(original).bind(self.model, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        if self.owner.epochs:
            given["initial_epoch"], given["epochs"] = self.owner.epochs
        given["verbose"] = 0
        shuffle_by_epoch(given, self.seed)
        first = given["initial_epoch"] = self._first_epoch(given)
        if isinstance(given["x"], keras.utils.PyDataset):
            for _ in range(first):
                given["x"].on_epoch_begin()
                given["x"].on_epoch_end()
        others = [*(given["callbacks"] or []), *self.owner.extra_callbacks]
        counts = given["epochs"], given["validation_freq"]
        checkpoints = CheckpointCallback(self, others, *counts)
        given["callbacks"] = [*others, checkpoints]
        history = original(**given)
        history.history = columns(self.logs)
        history.epoch = list(range(len(self.logs)))
        self.history = weakref.ref(history)  # which refers to the model
        shapes = [tuple(weight.shape) for weight in self.model.weights]
        self.kind = fingerprint(self.model.loss), shapes
        self.parameters = self.model.count_params()
        with contextlib.suppress(NotImplementedError, TypeError):
            self.build_config = self.model.get_build_config()
        self.model = self.past = None
        return history

    def _first_epoch(self, given: dict[str, Any]) -> int:
        """Return the epoch to continue with, according to the checkpoint."""
        if not self.past:
            return given["initial_epoch"]
        meta = self.past["meta"]  # perhaps of the trial that this one continues
        is_own = meta["trial"] == self.owner.directory.path.name
        first = given["epochs"] if meta["stopped"] and is_own else meta["next_epoch"]
        return max(first, given["initial_epoch"])
