"""Safe saving of models: a failed save leaves an existing file intact."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import keras

from kseq.typing import PathLike, wraps

ENDINGS = (".keras", ".h5", ".hdf5")


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
