"""Safe writing of files and folders: a failure leaves what was there intact."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import keras

from kseq.typing import PathLike, wraps

ENDINGS = (".keras", ".h5", ".hdf5")
SAVED_MODEL_FILE = "saved_model.pb"  # which every SavedModel has
SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}  # of exports that are files


class WholeFiles:
    """Mixin for models that saves files as a whole.

    `save` and `save_weights` write to a temporary file and rename it. If saving fails,
    for example because the disk is full or a config is missing, the old file is kept.
    """

    @wraps(keras.Model.save)
    def save(
        self,
        filepath: PathLike,
        overwrite: bool = True,
        zipped: bool | None = None,
        **kwargs: Any,
    ) -> None:
        with replaced(filepath, overwrite) as path:
            return super().save(path, overwrite, zipped, **kwargs)  # type: ignore[misc]

    @wraps(keras.Model.save_weights)
    def save_weights(
        self, filepath: PathLike, overwrite: bool = True, **kwargs: Any
    ) -> None:
        with replaced(filepath, overwrite) as path:
            return super().save_weights(path, overwrite, **kwargs)  # type: ignore[misc]


@contextlib.contextmanager
def replaced(filepath: PathLike, overwrite: bool = True) -> Iterator[PathLike]:
    """Yield a temporary path in the same folder; rename it to `filepath` at the end.

    The path is yielded unchanged if it is not a file on this machine, or if Keras will
    ask whether it may be overwritten.
    """
    name = str(filepath)
    is_asked = os.path.exists(name) and not overwrite
    is_file = name.endswith(ENDINGS) and "://" not in name and not os.path.isdir(name)
    if is_asked or not is_file:
        yield filepath
        return
    with replaced_file(name) as temporary:
        yield temporary


@contextlib.contextmanager
def replaced_file(name: str) -> Iterator[str]:
    """Yield a temporary path in the same folder; rename it to `name` at the end."""
    path = pathlib.Path(os.path.realpath(name))
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield str(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is not None:
            error.filename = name
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replaced_folder(name: PathLike, mark: str) -> Iterator[str]:
    """Yield a new folder, which at the end replaces the one of an earlier export.

    A path that is not on this machine is yielded unchanged.

    Args:
        name: The folder. It is new, empty, or has the file `mark`.
        mark: Name of a file that every such export has.

    Raises:
        ValueError: The folder holds other files.
    """
    if "://" in str(name):
        yield str(name)
        return
    path = pathlib.Path(os.path.realpath(name))
    is_free = not path.exists() or path.is_dir() and not any(path.iterdir())
    if not str(name) or not is_free and not (path / mark).is_file():
        raise ValueError(
            "`path` must be a new folder, or one of an earlier export in this format. "
            f"Received: path={str(name)!r}, which is or holds something else."
        )
    new, old = (
        path.with_name(f".{os.getpid()}-{s}-{path.name}") for s in ("new", "old")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    new.mkdir()
    try:
        yield str(new)
        if path.exists():
            path.rename(old)
        new.rename(path)
    finally:
        if old.exists() and not path.exists():  # interrupted between the two
            old.rename(path)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)
