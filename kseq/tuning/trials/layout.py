"""The layout of a search directory: the name of every file that a search writes.

search.json             the identity of the search
journal.json            the identity, and all events
lock                    held by the process that searches
payload.pickle          the space and the data, while an executor runs trials
attempts/NUMBER/        an attempt at a trial, while it runs:
    job.pickle          what it has to do
    messages.jsonl      what its process says
    answers             whether to go on, a byte for each epoch
    output              what its process prints before it begins
    taken               there when a task of an executor begins
    TRIAL/              the other files of the trial, as long
tensorboard/TRIAL/      curves, if they are wanted
trials/TRIAL/
    trial.json          the events of the trial, with all its curves
    output.txt          what its processes have printed
    checkpoint-N.npz    the state of its call of `fit` number N, while it may go on
    best-N.weights.h5   the best weights of that call, as long
    best.weights.h5     the best weights of the trial, when it has ended
    build_config.json   what a model needs that is built by its first batch
    model.json          the config of the model, if it has one
"""

from pathlib import Path

CHECKPOINT, WEIGHTS = ".npz", ".weights.h5"  # endings that their writers insist on


class SearchDirectory:
    """The paths of a search, of which nothing need exist."""

    def __init__(self, path):
        self.path = Path(path)
        self.identity = self.path / "search.json"
        self.journal = self.path / "journal.json"
        self.lock = self.path / "lock"
        self.payload = self.path / "payload.pickle"
        self.attempts = self.path / "attempts"
        self.trials = self.path / "trials"
        self.tensorboard = self.path / "tensorboard"

    def trial(self, trial_id):
        return TrialDirectory(self.trials / trial_id)

    def holds_search(self):
        return any(path.exists() for path in (self.identity, self.journal, self.trials))


class AttemptDirectory:
    """The paths of an attempt. `supervision.py` knows these and `taken` by name."""

    def __init__(self, path):
        self.path = Path(path)
        self.job = self.path / "job.pickle"
        self.messages = self.path / "messages.jsonl"
        self.answers = self.path / "answers"
        self.output = self.path / "output"


class TrialDirectory:
    """The paths of a trial, of which nothing need exist."""

    def __init__(self, path):
        self.path = Path(path)
        self.events = self.path / "trial.json"
        self.output = self.path / "output.txt"
        self.weights = self.path / f"best{WEIGHTS}"
        self.build_config = self.path / "build_config.json"
        self.model = self.path / "model.json"

    def checkpoint(self, call):
        """The checkpoint of a call of `fit`, by its number in the trial."""
        return self.path / f"checkpoint-{call}{CHECKPOINT}"

    def weights_of_call(self, call):
        return self.path / f"best-{call}{WEIGHTS}"

    def checkpoints(self):
        return sorted(self.path.glob(f"checkpoint-*{CHECKPOINT}"))

    def weights_of_calls(self):
        return sorted(self.path.glob(f"best-*{WEIGHTS}"))
