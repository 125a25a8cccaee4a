"""Save and load pipelines: a model and its vocabularies in one file."""

import os
import pathlib
import zipfile
from typing import Any, NoReturn, Self

import keras

from kseq.layers.saving import WholeFiles
from kseq.layers.step_labels import StepLabels
from kseq.typing import PathLike, wraps


class Loadable(StepLabels, WholeFiles):
    """A mixin of pipelines that are saved in, and loaded from, one file."""

    @wraps(keras.Model.save)
    def save(
        self,
        filepath: PathLike,
        overwrite: bool = True,
        zipped: bool | None = None,
        **kwargs: Any,
    ) -> None:
        path = str(filepath)
        if path.endswith((".h5", ".hdf5")):
            raise ValueError(
                "`filepath` must be a `.keras` file, as HDF5 saves no vocabularies. "
                f"Received: filepath={path!r}. Use "
                f"{pathlib.Path(path).with_suffix('.keras').name!r}."
            )
        return super().save(filepath, overwrite, zipped, **kwargs)

    def export(self, filepath: PathLike, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise an error that names the method to use, since Keras exports no texts."""
        is_labelling = hasattr(self, "export_labels")
        method = "export_labels" if is_labelling else "export_generation"
        raise ValueError(
            "A pipeline is exported with its tokenizer. Received: a call of `export` "
            f"with filepath={str(filepath)!r}. Use `{method}(path)`."
        )

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Load a saved pipeline, including its vocabularies.

        It is ready to use; to train it further, compile its model again.

        Args:
            path: The `.keras` file.

        Returns:
            The pipeline.

        Raises:
            ValueError: The file does not exist, cannot be read, or does not hold a
                pipeline of this class.

        Example: `kseq.text.TextToText.load("translator.keras")`
        """
        return _loaded(path, cls)


def load(path: PathLike) -> Any:
    """Load a saved pipeline of any kind, including its vocabularies.

    Args:
        path: The `.keras` file.

    Returns:
        A `TextToText`, `TextToLabels`, `TextWriter` or `TextToImage`.

    Raises:
        ValueError: The file does not exist, cannot be read, or does not hold a
            pipeline.

    Example: `kseq.text.load("translator.keras")`
    """
    return _loaded(path, Loadable, "pipeline of `kseq.text`")


def _loaded(path: PathLike, kind: type, name: str | None = None) -> Any:
    name = name or kind.__name__
    try:
        whole = keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"`path` must be a file that a {name} was saved in. "
            f"Received: {path}, which cannot be read: {_problem(path, error)}"
        ) from error
    if not isinstance(whole, kind):
        found = type(whole).__name__
        found = f"{'an' if found[0] in 'AEIOU' else 'a'} {found}"
        raise ValueError(
            f"`path` must be a file that a {name} was saved in. "
            f"Received: {path}, with {found}."
        )
    return whole


def _problem(path: PathLike, error: Exception) -> object:
    is_path = isinstance(path, (str, os.PathLike))
    if is_path and os.path.isfile(path) and not zipfile.is_zipfile(path):
        return "it is another kind of file, or is truncated."  # Keras: "not found"
    return error
