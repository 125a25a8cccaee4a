"""Attempts at trials, each in its own folder.

The process of an attempt reports through files. It writes only in its folder, to which
the files of the trial are moved while it runs. Every attempt has a new folder name. An
attempt is closed by renaming its folder: a process that is still running somewhere can
then report nothing more, and ends.
"""

import dataclasses
import json
import pickle
import secrets
import shutil
import sys
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from kseq.tuning.trials.job import MESSAGES, Exit, Job, Lost
from kseq.tuning.trials.layout import AttemptDirectory, SearchDirectory, TrialDirectory

CLOSED = "closed-"
FAREWELL = 5  # seconds to wait for the end of processes when the search ends
GO_ON, STOP = b"+", b"-"  # answers to an epoch


class Engine(Protocol):
    """A starter of attempts: a `TrialServer` or an `ExecutorEngine`."""

    breath: float
    is_near: bool

    def submit(self, folder: str) -> "Future[Any]": ...

    def poll(self) -> None: ...


class Attempt:
    """The search's side of an attempt.

    Args:
        engine: The engine that starts its process.
        search: The `SearchDirectory`, with an absolute path.
        job: The `Job` of the trial.

    Raises:
        SearchFailed: The engine accepts no more tasks.
    """

    def __init__(self, engine: Engine, search: SearchDirectory, job: Job) -> None:
        self.search = search
        name = f"{job.trial}-{secrets.token_hex(8)}"
        self.files = AttemptDirectory(search.attempts / name)
        self.is_closed = False
        self._read = 0  # bytes of messages read so far
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

    def messages(self) -> list[Any]:
        """Return the new messages; the last ever is an `Exit` or `Lost`."""
        is_done = self.future.done()  # checked first: no message comes afterwards
        messages = [] if self.is_closed else self._new_messages()
        if is_done and not any(isinstance(message, Exit) for message in messages):
            messages.append(self._end())
        if messages and isinstance(messages[-1], Exit | Lost):
            self.close()
        return messages

    def _new_messages(self) -> list[Any]:
        with open(self.files.messages, "rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]  # the last line may be incomplete
        self._read += len(new)
        return [message for line in new.splitlines() for message in self._parse(line)]

    def _parse(self, line: bytes) -> Iterator[Any]:
        try:
            name, content = json.loads(line)
        except ValueError:  # empty, or cut off by a kill
            return
        if name == "Exit" and content["code"]:
            content["details"] = self.files.output.read_text("utf-8", "replace")[-2000:]
        yield MESSAGES[name](**content)

    def _end(self) -> Exit | Lost:
        """Return how the attempt ended, if its process has not reported it."""
        if self.is_closed:
            return Exit(None)
        if self.future.cancelled():
            return Lost("its task was cancelled")
        error = self.future.exception()
        if isinstance(error, NotADirectoryError):
            raise ValueError(
                "`directory` must be a folder that the workers of `executor` share. "
                f"Received: directory={str(self.search.path)!r}, which the host "
                f"{error} does not have. Use a folder on a disk that all hosts mount "
                "under the same path."
            )
        if error is None or isinstance(error, FileExistsError):
            return Lost("its task began twice, or its worker was killed")
        return Lost(f"{type(error).__name__}: {error}")

    def answer(self, go_on: bool) -> None:
        """Tell the process after an epoch whether to continue."""
        if not self.is_closed:  # it may have ended meanwhile
            with open(self.files.answers, "ab") as file:
                file.write(GO_ON if go_on else STOP)

    def kill(self) -> None:
        """End the attempt. Its `Exit` is received when its process has ended."""
        self.close()
        self.future.cancel()

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            close(self.search, self.files.path)


def hear(
    engine: Engine, attempts: Collection[Attempt], seconds: float
) -> list[tuple[Attempt, Any]]:
    """Return pairs of an attempt and its message, or none after a silence.

    Args:
        engine: The engine of the attempts.
        attempts: The attempts.
        seconds: Maximum time to wait for a message.
    """
    deadline = time.monotonic() + seconds
    while True:
        engine.poll()
        heard = [(each, message) for each in attempts for message in each.messages()]
        if heard or time.monotonic() > deadline:
            return heard
        time.sleep(engine.breath)


def end(engine: Engine, attempts: Collection[Attempt]) -> None:
    """Kill attempts, and wait for the end of their processes."""
    for attempt in attempts:
        attempt.kill()
    deadline = time.monotonic() + FAREWELL
    while time.monotonic() < deadline:
        engine.poll()
        if all(attempt.future.done() for attempt in attempts):
            break
        time.sleep(engine.breath)


def close(search: SearchDirectory, folder: Path) -> None:
    """End an attempt, and move the files of the trial back."""
    closed = folder.with_name(f"{CLOSED}{folder.name}")
    folder.rename(closed)
    for path in closed.iterdir():
        home = search.trial(path.name)
        if path.is_dir() and home.path.is_dir():
            move(type(home)(path), home.path)
    shutil.rmtree(closed, ignore_errors=True)


def close_all(search: SearchDirectory) -> None:
    """End the attempts that a killed search has left."""
    if search.attempts.is_dir():
        for folder in search.attempts.iterdir():
            close(search, folder)
        shutil.rmtree(search.attempts, ignore_errors=True)
    search.payload.unlink(missing_ok=True)


def move(trial: TrialDirectory, folder: Path) -> None:
    """Move the files of a trial, except for its events, to another folder."""
    for path in trial.path.iterdir():
        if path != trial.events and ".tmp" not in path.name:
            path.replace(folder / path.name)


class FileLink:
    """The process's side of an attempt.

    Args:
        files: The `AttemptDirectory`.
        waits: Whether to wait for the answer to each epoch.
    """

    breath = 0.01  # seconds between checks for an answer

    def __init__(self, files: AttemptDirectory, waits: bool) -> None:
        self.files = files
        self.waits = waits
        self._asked = 0

    def send(self, message: Any) -> None:
        content = type(message).__name__, dataclasses.asdict(message)
        with open(self.files.messages, "a", encoding="utf-8") as file:
            file.write(json.dumps(content, default=float) + "\n")

    def recv(self) -> bool:
        """Return whether to continue. Without waiting, a stop may arrive late."""
        self._asked += 1
        while True:
            answers = self.files.answers.read_bytes()
            if STOP in answers or not self.waits or len(answers) >= self._asked:
                return STOP not in answers
            time.sleep(self.breath)
