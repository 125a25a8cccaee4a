"""The space and the data: packed once, and unpacked in the process of each trial."""

import contextlib
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import cloudpickle

from kseq.tuning.trials.files import replacing
from kseq.typing import PathLike


def pack(payload: Any, by_value: bool = False) -> list[Any]:
    """Pickle the payload, with its arrays in separate buffers to avoid copies.

    Functions and classes are pickled by name where possible. By value are those of a
    notebook or another prompt, those without a name and, with `by_value`, those of the
    main program.
    """
    by_value = by_value or is_prompt()
    ways = [cloudpickle.dumps] if by_value else [pickle.dumps, cloudpickle.dumps]
    for dumps in ways:
        buffers: list[pickle.PickleBuffer] = []
        try:
            data = dumps(payload, protocol=5, buffer_callback=buffers.append)
            return [data, *(buffer.raw() for buffer in buffers)]
        except Exception as error:
            failure = error
    raise ValueError(
        "The space and the data must be picklable, because every trial is a separate "
        f"process. Received: {type(failure).__name__}: {failure}. Open files, locks "
        "and models in the process of the trial: in the space's `build` or `fit`, or "
        "in a function that makes the data."
    ) from failure


def is_prompt() -> bool:
    """Return whether other processes cannot import this program: typed or piped in."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    is_file = getattr(main, "__spec__", None) or (file and os.path.exists(file))
    return hasattr(sys, "ps1") or not is_file


@contextlib.contextmanager
def hidden_prompt() -> Iterator[None]:
    """Keep new processes from importing a program that is not a file."""
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {}
    if is_prompt():
        hidden = {k: v for k, v in vars(main).items() if k in ("__file__", "__spec__")}
    vars(main).update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        vars(main).update(hidden)


def send_packed(connection: Any, parts: Sequence[Any]) -> None:
    connection.send(len(parts))
    for part in parts:
        connection.send_bytes(part)


def receive_packed(connection: Any) -> list[bytes]:
    return [connection.recv_bytes() for _ in range(connection.recv())]


def write_packed(path: PathLike, parts: Sequence[Any]) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        pickle.dump([pickle.PickleBuffer(part) for part in parts], file, protocol=5)


def read_packed(path: PathLike) -> Any:
    with open(path, "rb") as file:
        return pickle.load(file)


class Loader:
    """A function that unpacks a payload anew at each call.

    Unpacking may start a runtime's threads, so it happens in the trials.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = [parts[0], *map(bytearray, parts[1:])]

    def __call__(self) -> Any:
        return pickle.loads(self.parts[0], buffers=self.parts[1:])
