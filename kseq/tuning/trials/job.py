"""The job of a trial's process, and every message between it and the search."""

import dataclasses
import signal
from typing import ClassVar

from kseq.tuning.trials.layout import TrialDirectory


@dataclasses.dataclass(frozen=True)
class Job:
    """What a process has to do: train one trial, or explore the space.

    Attributes:
        trial: The trial's number.
        seed: Non-negative integer that all randomness of the process follows from.
        space: The config of the trial's `keras_tuner.HyperParameters`, or None to
            explore.
        values: Their values, by name.
        objective: Name and direction, or a list of such pairs.
        epochs: `(first, end)`, where they are not the user's to choose (Hyperband).
        past: The number of the trial that this one goes on from, or None.
        executions: How often to train a model.
        tensorboard: Whether to write curves for TensorBoard.
        waits: Whether to wait after each epoch for the answer whether to go on.
        root: The directory of the search; its attempt fills this in.
        folder: Where the process keeps its files; as `root`.
    """

    trial: str
    seed: int
    space: dict | None = None
    values: dict | None = None
    objective: tuple | list | None = None
    epochs: tuple | None = None
    past: str | None = None
    executions: int = 1
    tensorboard: bool = False
    waits: bool = False
    root: str | None = None
    folder: str | None = None

    @property
    def directory(self):
        """Where the process keeps its files."""
        return TrialDirectory(self.folder)

    @property
    def keeps_state(self):
        """Whether another trial may go on from this one."""
        return self.epochs is not None


# What a process says, in the end or on its way.


@dataclasses.dataclass(frozen=True)
class Begun:
    """The trial waits in no queue any more."""


@dataclasses.dataclass(frozen=True)
class Explored:
    """The hyperparameters of the space were found; `space` is their config."""

    space: dict


@dataclasses.dataclass(frozen=True)
class Resumed:
    """The trial goes on, after epochs with these logs."""

    logs: list


@dataclasses.dataclass(frozen=True)
class Epoch:
    """An epoch is over. It is answered by whether to go on."""

    score: float | None
    logs: dict


@dataclasses.dataclass(frozen=True)
class Ended:
    """The trial is over, and has a score.

    Attributes:
        score: The objective, the mean of all executions.
        epoch: The index of the best epoch.
        curves: All metrics, `{name: [number of each epoch]}`.
        stopped: Whether it was stopped early.
        parameters: The number of weights of the model, or None.
        weights: Whether it has left weights.
        space: The config of its hyperparameters, those that `fit` asked for among them.
    """

    score: float
    epoch: int
    curves: dict
    stopped: bool
    parameters: int | None
    weights: bool
    space: dict


@dataclasses.dataclass(frozen=True)
class Failed:
    """The trial is no use; another attempt begins anew, with another seed."""

    reason: str
    details: str = ""
    kind: ClassVar[str] = "failed"  # what the journal calls it


@dataclasses.dataclass(frozen=True)
class Fatal:
    """No trial of this search can be of use."""

    reason: str


# What is found out about a process that says nothing.


@dataclasses.dataclass(frozen=True)
class Died(Failed):
    """The process ended without a word; another attempt goes on where it was."""

    kind: ClassVar[str] = "died"


@dataclasses.dataclass(frozen=True)
class Late(Failed):
    """The process took too long; there is no other attempt."""

    kind: ClassVar[str] = "late"


@dataclasses.dataclass(frozen=True)
class Exit:
    """The process has ended, and nothing more will come from it."""

    code: int | None
    details: str = ""

    def reason(self):
        """Says how a process ended that should not have."""
        if self.code is not None and self.code < 0:
            name = signal.Signals(-self.code).name
            hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
            return f"its process was killed by {name}{hint}"
        return f"its process ended with exit code {self.code}"


@dataclasses.dataclass(frozen=True)
class Lost:
    """The process was lost, through no fault of the trial."""

    reason: str


KINDS = Begun, Explored, Resumed, Epoch, Ended, Failed, Fatal, Exit
MESSAGES = {kind.__name__: kind for kind in KINDS}  # that a file can hold
