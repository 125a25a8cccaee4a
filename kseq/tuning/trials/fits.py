"""`fit` that goes on where it was killed, and then ends as if it had not been."""

import contextlib
import inspect
import weakref

import keras

from kseq.tuning.fingerprint import fingerprint
from kseq.tuning.trials.checkpoint_callback import CheckpointCallback
from kseq.tuning.trials.checkpoints import load_checkpoint
from kseq.tuning.trials.curves import columns
from kseq.tuning.trials.layout import TrialDirectory
from kseq.tuning.trials.seeds import derive
from kseq.tuning.trials.shuffling import shuffle_by_epoch


class Fits:
    """All calls of `fit` of one trial, of any model: exact, resumable and observed.

    Within its context, `keras.Model.fit` is another. What an epoch does depends on the
    seed, the number of the call, that of the epoch and the state of the model alone:
    the random numbers of Python and NumPy begin anew in each epoch and after each call,
    arrays are shuffled by the seed and the number of the epoch, and a `PyDataset` lives
    through the ends of the epochs before. The checkpoint of a call holds the variables
    of the model and the optimizer, the states of the seed generators, the logs, and the
    plain attributes of the callbacks. So a trial killed in any epoch of any call ends
    with the same weights as one that was not: calls that had ended give back what they
    gave. A generator or a `tf.data.Dataset` begins anew where `fit` resumes.

    Args:
        directory: Where the checkpoints and the best weights of each call lie.
        objective: The `keras_tuner.Objective` that decides which weights are the best.
        seed: Non-negative integer.
        report: Function of an epoch's number and logs, called after each; returns
            False to stop the training. None where nobody listens.
        epochs: `(first, end)`, where they are not the user's to choose (Hyperband).
        keep_state: Whether the state at the end is needed, to go on from it.
        extra_callbacks: Callbacks for every call.
        several: Whether there may be several calls, by a `fit` of the user's. It may
            then measure the objective itself.
    """

    def __init__(
        self,
        directory,
        objective,
        seed,
        report=None,
        epochs=None,
        keep_state=False,
        extra_callbacks=(),
        several=False,
    ):
        self.directory = TrialDirectory(directory)
        self.objective = objective
        self.seed = seed
        self.report = report or (lambda epoch, logs: True)
        self.epochs = epochs
        self.keep_state = keep_state
        self.extra_callbacks = list(extra_callbacks)
        self.several = several
        self.calls = []
        self._is_inside = False

    def __enter__(self):
        self._before = vars(keras.Model).get("fit")
        original = keras.Model.fit

        def fit(model, *args, **kwargs):
            if self._is_inside:  # in a callback of another
                return original(model, *args, **kwargs)
            return self._watch(original, model, args, kwargs)

        keras.Model.fit = fit
        return self

    def __exit__(self, *error):
        if self._before is None:
            del keras.Model.fit
        else:
            keras.Model.fit = self._before

    def past_logs(self):
        """The logs of all epochs in the checkpoints of an earlier process."""
        logs, number = [], 0
        while past := load_checkpoint(self.directory.checkpoint(number)):
            logs += past["meta"]["logs"]
            number += 1
        return logs

    def logs(self):
        return [row for call in self.calls for row in call.logs]

    def _watch(self, original, model, args, kwargs):
        call = FitCall(self, model, len(self.calls))
        self.calls.append(call)
        self._is_inside = True
        try:
            history = call.run(original, args, kwargs)
        finally:
            self._is_inside = False
        # What follows, such as the weights of the next model, is the same after a call
        # that was resumed.
        keras.utils.set_random_seed(derive(self.seed, len(self.calls)))
        return history


class FitCall:
    """One call of `fit`, numbered within its trial.

    Attributes:
        logs: A dictionary for each epoch.
        best: The best score and the index of its epoch, or None.
        kind: What it trained: the loss and the shapes of the weights. Scores of two
            calls can be compared where these are the same.
        history: A weak reference to what it returned.
    """

    def __init__(self, owner, model, number):
        self.owner = owner
        self.model = model
        self.number = number
        self.seed = derive(owner.seed, number) if number else owner.seed
        self.checkpoint = owner.directory.checkpoint(number)
        self.weights = owner.directory.weights_of_call(number)
        self.past = load_checkpoint(self.checkpoint)
        self.logs = []
        self.best = None
        self.kind = self.history = self.build_config = None

    def run(self, original, args, kwargs):
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
        self.history = weakref.ref(history)  # which holds the model
        shapes = [tuple(weight.shape) for weight in self.model.weights]
        self.kind = fingerprint(self.model.loss), shapes
        self.parameters = self.model.count_params()
        with contextlib.suppress(NotImplementedError, TypeError):
            self.build_config = self.model.get_build_config()
        self.model = self.past = None
        return history

    def _first_epoch(self, given):
        """The epoch to go on with, by the checkpoint."""
        if not self.past:
            return given["initial_epoch"]
        meta = self.past["meta"]  # perhaps of the trial that this one goes on from
        is_own = meta["trial"] == self.owner.directory.path.name
        first = given["epochs"] if meta["stopped"] and is_own else meta["next_epoch"]
        return max(first, given["initial_epoch"])
