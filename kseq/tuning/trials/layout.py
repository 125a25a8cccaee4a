"""The layout of a search directory: all files that a search writes.

search.json             the identity of the search
journal.json            the identity, and all events
lock                    held by the searching process
payload.pickle          the space and the data, while an executor runs trials
attempts/NUMBER/        an attempt at a trial, while it runs:
    job.pickle          its job
    messages.jsonl      the messages of its process
    answers             whether to continue, one byte per epoch
    output              the output of its process before it begins
    taken               created when a task of an executor begins
    TRIAL/              the other files of the trial, meanwhile
tensorboard/TRIAL/      curves for TensorBoard, if requested
trials/TRIAL/
    trial.json          the events of the trial, with all its curves
    output.txt          the output of its processes
    checkpoint-N.npz    the state of its call of `fit` number N, while it may continue
    best-N.weights.h5   the best weights of that call, meanwhile
    best.weights.h5     the best weights of the trial, after its end
    build_config.json   needed to build a model that is built by its first batch
    model.json          the config of the model, if it has one
"""

from pathlib import Path

from kseq.typing import PathLike

CHECKPOINT, WEIGHTS = ".npz", ".weights.h5"  # endings that their writers require


class SearchDirectory:
    """The paths of a search, which may or may not exist."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self.identity = self.path / "search.json"
        self.journal = self.path / "journal.json"
        self.lock = self.path / "lock"
        self.payload = self.path / "payload.pickle"
        self.attempts = self.path / "attempts"
        self.trials = self.path / "trials"
        self.tensorboard = self.path / "tensorboard"

    def trial(self, trial_id: str) -> "TrialDirectory":
        return TrialDirectory(self.trials / trial_id)

    def holds_search(self) -> bool:
        return any(path.exists() for path in (self.identity, self.journal, self.trials))


class AttemptDirectory:
    """The paths of an attempt. `supervision.py` repeats some names, and `taken`."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self.job = self.path / "job.pickle"
        self.messages = self.path / "messages.jsonl"
        self.answers = self.path / "answers"
        self.output = self.path / "output"


class TrialDirectory:
    """The paths of a trial, which may or may not exist."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self.events = self.path / "trial.json"
        self.output = self.path / "output.txt"
        self.weights = self.path / f"best{WEIGHTS}"
        self.build_config = self.path / "build_config.json"
        self.model = self.path / "model.json"

    def checkpoint(self, call: int) -> Path:
        """Return the checkpoint of a call of `fit`, by its number in the trial."""
        return self.path / f"checkpoint-{call}{CHECKPOINT}"

    def weights_of_call(self, call: int) -> Path:
        return self.path / f"best-{call}{WEIGHTS}"

    def checkpoints(self) -> list[Path]:
        return sorted(self.path.glob(f"checkpoint-*{CHECKPOINT}"))

    def weights_of_calls(self) -> list[Path]:
        return sorted(self.path.glob(f"best-*{WEIGHTS}"))
