"""An engine that runs trials as tasks of an executor, on this host or on others."""

from pathlib import Path
from typing import Any

import keras

from kseq.tuning.trials import supervision
from kseq.tuning.trials.errors import SearchFailed
from kseq.tuning.trials.layout import SearchDirectory
from kseq.tuning.trials.payload import pack, write_packed
from kseq.typing import PathLike

SUPERVISION = Path(supervision.__file__).read_text("utf-8")


class ExecutorEngine:
    """A starter of trials elsewhere, with the interface of a `TrialServer`.

    Args:
        executor: A `concurrent.futures.Executor`, of which only `submit` is used.
        payload: The input of each trial, such as a space and its data.
        directory: The directory of the search, which the workers share.

    Raises:
        ValueError: The payload cannot be pickled.
    """

    breath = 0.1
    is_near = False

    def __init__(self, executor: Any, payload: Any, directory: PathLike) -> None:
        self.executor = executor
        self._packed = pack(payload, by_value=True)
        self._payload = SearchDirectory(directory).payload
        self.environment = {
            "KERAS_BACKEND": keras.config.backend(),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        }

    def submit(self, folder: str) -> Any:
        if not self._payload.exists():
            write_packed(self._payload, self._packed)
        program = f"{SUPERVISION}\nsupervise{(folder, self.environment)}\n"
        try:
            return self.executor.submit(exec, program, {})
        except Exception as error:  # executors may raise anything
            raise SearchFailed(
                "`executor` must accept tasks until the search ends. Received: "
                f"{type(error).__name__}: {error}. Make the same call with a new one; "
                "it goes on from here."
            ) from error

    def poll(self) -> None:
        """Do nothing: the executor updates the futures."""
