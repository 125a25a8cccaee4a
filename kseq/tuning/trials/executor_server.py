"""Trials as tasks of an executor, on this host or on others."""

import collections
import contextlib
import os
import time
from pathlib import Path

import keras

from kseq.tuning.trials import supervision
from kseq.tuning.trials.attempts import Attempt, close_all
from kseq.tuning.trials.errors import SearchFailed
from kseq.tuning.trials.job import Exit, Lost
from kseq.tuning.trials.layout import SearchDirectory
from kseq.tuning.trials.payload import pack, write_packed

SUPERVISION = Path(supervision.__file__).read_text("utf-8")
BREATH = 0.1  # seconds between two looks at the messages
FAREWELL = 5  # seconds that trials have to end with the search


class ExecutorServer:
    """Is used like a `TrialServer`; the directory is shared with the workers.

    Args:
        executor: A `concurrent.futures.Executor`, of which `submit` alone is used.
        payload: What each trial gets, such as a space and its data.
        directory: The directory of the search.

    Raises:
        ValueError: The payload does not pickle.
    """

    has_queue = True

    def __init__(self, executor, payload, directory):
        self.executor = executor
        self._packed = pack(payload, by_value=True)
        self.files = SearchDirectory(os.path.abspath(directory))
        self.running = {}  # name of a worker -> Attempt, future
        self.news = collections.deque()
        self.environment = {
            "KERAS_BACKEND": keras.config.backend(),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        }

    def open(self):
        write_packed(self.files.payload, self._packed)

    def start(self, name, job):
        attempt = Attempt(self.files.path, job)
        arguments = str(attempt.files.path), self.environment
        program = f"{SUPERVISION}\nsupervise{arguments}\n"
        try:
            future = self.executor.submit(exec, program, {})
        except Exception as error:  # whatever an engine may raise
            attempt.close()
            raise SearchFailed(
                "`executor` must take tasks until the search ends. Received: "
                f"{type(error).__name__}: {error}. Make the same call with a new one; "
                "it goes on from here."
            ) from error
        self.running[name] = attempt, future

    def tell(self, name, go_on):
        if not go_on and name in self.running:  # its task may be done by now
            self.running[name][0].stop()

    def kill(self, name):
        """Ends an attempt; its `exit` will be heard when its task is done."""
        attempt, future = self.running[name]
        attempt.close()
        future.cancel()

    def hear(self, seconds):
        """As that of a `TrialServer`."""
        deadline = time.monotonic() + seconds
        while True:
            for name in list(self.running):
                self._look(name)
            if self.news or time.monotonic() > deadline:
                return self.news.popleft() if self.news else None
            time.sleep(BREATH)

    def _look(self, name):
        attempt, future = self.running[name]
        is_done = future.done()  # looked at first: no message comes after
        messages = attempt.messages()
        if is_done and not any(isinstance(message, Exit) for message in messages):
            messages.append(self._end_of(attempt, future))
        self.news.extend((name, message) for message in messages)
        if any(isinstance(message, Exit | Lost) for message in messages):
            del self.running[name]
            attempt.close()

    def _end_of(self, attempt, future):
        """How a task ended that has told of no end of its process."""
        if attempt.is_closed:
            return Exit(None)
        if future.cancelled():
            return Lost("its task was cancelled")
        error = future.exception()
        if isinstance(error, NotADirectoryError):
            raise ValueError(
                "`directory` must be a folder that the workers of `executor` share. "
                f"Received: directory={str(self.files.path)!r}, which the host "
                f"{error} does not have. Name a folder on a disk that all hosts have "
                "under the same path."
            )
        if error is None or isinstance(error, FileExistsError):
            return Lost("its task began twice, or its worker was killed")
        return Lost(f"{type(error).__name__}: {error}")

    def close(self):
        """Ends all attempts, and the trials with them."""
        for attempt, future in self.running.values():
            attempt.close()
            future.cancel()
        deadline = time.monotonic() + FAREWELL
        while time.monotonic() < deadline:
            if all(future.done() for _, future in self.running.values()):
                break
            time.sleep(BREATH)
        self.running.clear()
        with contextlib.suppress(OSError):
            close_all(self.files)
