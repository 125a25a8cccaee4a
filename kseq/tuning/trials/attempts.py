"""Attempts at trials, each in a folder of its own.

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
import time

from kseq.tuning.trials.job import MESSAGES, Exit, Lost
from kseq.tuning.trials.layout import AttemptDirectory

CLOSED = "closed-"
FAREWELL = 5  # seconds that processes have to end with the search
GO_ON, STOP = b"+", b"-"  # the answers to an epoch


class Attempt:
    """The search's side of an attempt.

    Args:
        engine: What starts its process, a `TrialServer` or an `ExecutorEngine`.
        search: The `SearchDirectory`, by an absolute path.
        job: The `Job` of the trial.

    Raises:
        SearchFailed: The engine takes no more.
    """

    def __init__(self, engine, search, job):
        self.search = search
        name = f"{job.trial}-{secrets.token_hex(8)}"
        self.files = AttemptDirectory(search.attempts / name)
        self.is_closed = False
        self._read = 0  # bytes of the messages
        folder = self.files.path / job.trial
        folder.mkdir(parents=True)
        trial = search.trial(job.trial)
        trial.path.mkdir(parents=True, exist_ok=True)
        move(trial, folder)
        job = dataclasses.replace(job, root=str(search.path), folder=str(folder))
        self.files.job.write_bytes(pickle.dumps((job, sys.path)))
        for file in (self.files.messages, self.files.answers, self.files.output):
            file.touch()
        self.future = engine.submit(str(self.files.path))

    def messages(self):
        """Returns the messages since the last call, at last an `Exit` or `Lost`."""
        is_done = self.future.done()  # looked at first: no message comes after
        messages = [] if self.is_closed else self._new_messages()
        if is_done and not any(isinstance(message, Exit) for message in messages):
            messages.append(self._end())
        if messages and isinstance(messages[-1], Exit | Lost):
            self.close()
        return messages

    def _new_messages(self):
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
            content["details"] = self.files.output.read_text("utf-8", "replace")[-2000:]
        yield MESSAGES[name](**content)

    def _end(self):
        """How the attempt ended, if its process has told of no end."""
        if self.is_closed:
            return Exit(None)
        if self.future.cancelled():
            return Lost("its task was cancelled")
        error = self.future.exception()
        if isinstance(error, NotADirectoryError):
            raise ValueError(
                "`directory` must be a folder that the workers of `executor` share. "
                f"Received: directory={str(self.search.path)!r}, which the host "
                f"{error} does not have. Name a folder on a disk that all hosts have "
                "under the same path."
            )
        if error is None or isinstance(error, FileExistsError):
            return Lost("its task began twice, or its worker was killed")
        return Lost(f"{type(error).__name__}: {error}")

    def answer(self, go_on):
        """Tells the process that has ended an epoch whether to go on."""
        if not self.is_closed:  # it may have ended by now
            with open(self.files.answers, "ab") as file:
                file.write(GO_ON if go_on else STOP)

    def kill(self):
        """Ends the attempt; its `Exit` will be heard when its process has ended."""
        self.close()
        self.future.cancel()

    def close(self):
        if not self.is_closed:
            self.is_closed = True
            close(self.search, self.files.path)


def hear(engine, attempts, seconds):
    """Returns pairs of an attempt and its message; none if all are silent for long."""
    deadline = time.monotonic() + seconds
    while True:
        engine.poll()
        heard = [(each, message) for each in attempts for message in each.messages()]
        if heard or time.monotonic() > deadline:
            return heard
        time.sleep(engine.breath)


def end(engine, attempts):
    """Kills attempts, and waits for the end of their processes."""
    for attempt in attempts:
        attempt.kill()
    deadline = time.monotonic() + FAREWELL
    while time.monotonic() < deadline:
        engine.poll()
        if all(attempt.future.done() for attempt in attempts):
            break
        time.sleep(engine.breath)


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
    """The process's side of an attempt.

    Args:
        files: The `AttemptDirectory`.
        waits: Whether to wait for the answer to each epoch.
    """

    breath = 0.01  # seconds between two looks for an answer

    def __init__(self, files, waits):
        self.files = files
        self.waits = waits
        self._asked = 0

    def send(self, message):
        content = type(message).__name__, dataclasses.asdict(message)
        with open(self.files.messages, "a", encoding="utf-8") as file:
            file.write(json.dumps(content, default=float) + "\n")

    def recv(self):
        """Whether to go on after an epoch. The answer may be late where none waits."""
        self._asked += 1
        while True:
            answers = self.files.answers.read_bytes()
            if STOP in answers or not self.waits or len(answers) >= self._asked:
                return STOP not in answers
            time.sleep(self.breath)
