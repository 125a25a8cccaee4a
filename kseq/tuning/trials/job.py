"""The job of a trial's process, and all messages between it and the search."""

import dataclasses
import signal
from typing import Any, ClassVar

from kseq.tuning.trials.layout import TrialDirectory


@dataclasses.dataclass(frozen=True)
class Job:
    """The task of a process: train one trial, or explore the space.

    Attributes:
        trial: The trial's number.
        seed: Non-negative integer that determines all randomness of the process.
        space: The config of the trial's `keras_tuner.HyperParameters`, or None to
            explore.
        values: The values of the hyperparameters, by name.
        objective: Name and direction, or a list of such pairs.
        epochs: `(first, end)`, if the user does not choose them (Hyperband).
        past: The number of the trial that this one continues, or None.
        executions: Number of times to train a model.
        tensorboard: Whether to write curves for TensorBoard.
        waits: Whether to wait after each epoch for the answer whether to continue.
        root: The directory of the search. Set by the attempt.
        folder: The directory for the files of the process. Set by the attempt.
    """

    trial: str
    seed: int
    space: Any = None
    values: Any = None
    objective: Any = None
    epochs: tuple[int, int] | None = None
    past: str | None = None
    executions: int = 1
    tensorboard: bool = False
    waits: bool = False
    root: Any = None
    folder: Any = None

    @property
    def directory(self) -> TrialDirectory:
        """The directory for the files of the process."""
        return TrialDirectory(self.folder)

    @property
    def keeps_state(self) -> bool:
        """True if another trial may continue this one."""
        return self.epochs is not None


# Messages from a process.


@dataclasses.dataclass(frozen=True)
class Begun:
    """The trial no longer waits in a queue."""


@dataclasses.dataclass(frozen=True)
class Explored:
    """The hyperparameters of the space were found; `space` is their config."""

    space: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Resumed:
    """The trial continues after epochs with these logs."""

    logs: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Epoch:
    """An epoch has ended. The answer is whether to continue."""

    score: float | None
    logs: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Ended:
    """The trial has ended with a score, or as `outcomes.NO_RESULT` without one.

    Attributes:
        score: The objective, as the mean of all executions.
        epoch: The index of the best epoch.
        curves: All metrics, `{name: [value of each epoch]}`.
        stopped: Whether it was stopped early.
        parameters: The number of weights of the model, or None.
        weights: Whether it has left weights.
        space: The config of its hyperparameters, including those that `fit` added.
    """

    score: float | None
    epoch: int
    curves: dict[str, list[Any]]
    stopped: bool
    parameters: int | None
    weights: bool
    space: dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Failed:
    """The trial is unusable. Another attempt starts over, with another seed."""

    reason: str
    details: str = ""
    kind: ClassVar[str] = "failed"  # its name in the journal


@dataclasses.dataclass(frozen=True)
class Fatal:
    """No trial of this search can succeed."""

    reason: str


# Findings about a process that reports nothing.


@dataclasses.dataclass(frozen=True)
class Died(Failed):
    """The process ended without a report. Another attempt continues where it was."""

    kind: ClassVar[str] = "died"


@dataclasses.dataclass(frozen=True)
class Late(Failed):
    """The process took too long. There is no other attempt."""

    kind: ClassVar[str] = "late"


@dataclasses.dataclass(frozen=True)
class Exit:
    """The process has ended. No further messages follow."""

    code: int | None
    details: str = ""

    def reason(self) -> str:
        """Describe the unexpected end of a process."""
        if self.code is not None and self.code < 0:
            name = signal.Signals(-self.code).name
            hint = ", perhaps because memory ran out" if name == "SIGKILL" else ""
            return f"its process was killed by {name}{hint}"
        return f"its process ended with exit code {self.code}"


@dataclasses.dataclass(frozen=True)
class Lost:
    """The process was lost, through no fault of the trial."""

    reason: str


KINDS = Begun, Explored, Resumed, Epoch, Ended, Failed, Fatal, Exit
MESSAGES = {kind.__name__: kind for kind in KINDS}  # messages in files
