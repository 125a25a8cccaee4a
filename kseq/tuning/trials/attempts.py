"""Attempts at trials that an executor runs, each in a folder of its own.

The process of an attempt reports through files, and writes nothing outside its folder,
to which the files of the trial move while it runs. No two attempts have a folder of one
name. An attempt is closed by renaming it: a process that still runs somewhere finds its
folder gone, can report no more, and ends.
"""

import dataclasses
import json
import pickle
import secrets
import shutil
import sys

from kseq.tuning.trials.job import MESSAGES
from kseq.tuning.trials.layout import AttemptDirectory, SearchDirectory

CLOSED = "closed-"


class Attempt:
    """The search's side of an attempt.

    Args:
        directory: The absolute path of the search.
        job: The `Job` of the trial.
    """

    def __init__(self, directory, job):
        self.search = SearchDirectory(directory)
        number = f"{job.trial}-{secrets.token_hex(8)}"
        self.files = AttemptDirectory(self.search.attempts / number)
        self.is_closed = False
        self._read = 0  # bytes of the messages
        folder = self.files.path / job.trial
        folder.mkdir(parents=True)
        move(self.search.trial(job.trial), folder)
        job = dataclasses.replace(job, root=str(directory), folder=str(folder))
        self.files.job.write_bytes(pickle.dumps((job, sys.path)))
        self.files.messages.touch()

    def messages(self):
        """Returns the messages that have come since the last call."""
        if self.is_closed:
            return []
        with open(self.files.messages, "rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]  # the last may not be whole
        self._read += len(new)
        return [message for line in new.splitlines() for message in self._parse(line)]

    def _parse(self, line):
        try:
            name, content = json.loads(line)
        except ValueError:  # empty, or cut off by a kill
            return
        if name == "Exit" and content["code"]:
            content["details"] = self._output()
        yield MESSAGES[name](**content)

    def stop(self):
        if not self.is_closed:
            self.files.stop.touch()

    def _output(self):
        """Returns the end of what the process printed that said nothing else."""
        return self.files.output.read_text("utf-8", "replace")[-2000:]

    def close(self):
        if not self.is_closed:
            self.is_closed = True
            close(self.search, self.files.path)


def close(search, folder):
    """Ends an attempt, and brings the files of the trial back."""
    closed = folder.with_name(f"{CLOSED}{folder.name}")
    folder.rename(closed)
    for path in closed.iterdir():
        home = search.trial(path.name)
        if path.is_dir() and home.path.is_dir():
            move(type(home)(path), home.path)
    shutil.rmtree(closed, ignore_errors=True)


def close_all(search):
    """Ends the attempts that a search which was killed has left."""
    if search.attempts.is_dir():
        for folder in search.attempts.iterdir():
            close(search, folder)
        shutil.rmtree(search.attempts, ignore_errors=True)
    search.payload.unlink(missing_ok=True)


def move(trial, folder):
    """Moves the files of a trial, all but its events, to another folder."""
    for path in trial.path.iterdir():
        if path != trial.events and ".tmp" not in path.name:
            path.replace(folder / path.name)


class FileLink:
    """The process's side of an attempt, in place of a connection."""

    def __init__(self, files):
        self.files = files

    def send(self, message):
        content = type(message).__name__, dataclasses.asdict(message)
        with open(self.files.messages, "a", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")

    def recv(self):
        """Whether to go on. The answer may come some epochs late."""
        return not self.files.stop.exists()
