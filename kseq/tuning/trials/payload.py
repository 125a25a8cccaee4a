"""The space and the data: packed once, and unpacked by the process of each trial."""

import contextlib
import os
import pickle
import sys

import cloudpickle

from kseq.tuning.trials.files import replacing


def pack(payload, by_value=False):
    """The payload as bytes, and its arrays apart, so that nothing copies them again.

    Functions and classes go by their names, and where that cannot be, by value: those
    of a notebook or another prompt, those without a name, and, `by_value`, those of
    the program.
    """
    by_value = by_value or is_prompt()
    ways = [cloudpickle.dumps] if by_value else [pickle.dumps, cloudpickle.dumps]
    for dumps in ways:
        buffers = []
        try:
            data = dumps(payload, protocol=5, buffer_callback=buffers.append)
            return [data, *(buffer.raw() for buffer in buffers)]
        except Exception as error:
            failure = error
    raise ValueError(
        "The space and the data must pickle, since every trial has a process of its "
        f"own. Received: {type(failure).__name__}: {failure}. Open files, locks and "
        "models in the process of the trial: in the space's `build` or `fit`, or in a "
        "function that makes the data."
    ) from failure


def is_prompt():
    """Tell whether no process can import what this one runs: typed or piped in."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    is_file = getattr(main, "__spec__", None) or (file and os.path.exists(file))
    return hasattr(sys, "ps1") or not is_file


@contextlib.contextmanager
def hidden_prompt():
    """Keeps new processes from importing a program that is no file."""
    main, hidden = sys.modules["__main__"], {}
    if is_prompt():
        hidden = {k: v for k, v in vars(main).items() if k in ("__file__", "__spec__")}
    vars(main).update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        vars(main).update(hidden)


def send_packed(connection, parts):
    connection.send(len(parts))
    for part in parts:
        connection.send_bytes(part)


def receive_packed(connection):
    return [connection.recv_bytes() for _ in range(connection.recv())]


def write_packed(path, parts):
    with replacing(path) as temporary, open(temporary, "wb") as file:
        pickle.dump([pickle.PickleBuffer(part) for part in parts], file, protocol=5)


def read_packed(path):
    with open(path, "rb") as file:
        return pickle.load(file)


class Loader:
    """Unpacks a payload when it is called, each time anew.

    Unpacking may start a runtime's threads, so it is left to the trials.
    """

    def __init__(self, parts):
        self.parts = [parts[0], *map(bytearray, parts[1:])]

    def __call__(self):
        return pickle.loads(self.parts[0], buffers=self.parts[1:])
