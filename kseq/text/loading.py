"""Saving and reading back a model and its vocabularies, as one file."""

import functools
import os
import pathlib
import zipfile

import keras

from kseq.layers.saving import WholeFiles
from kseq.layers.step_labels import StepLabels


class Loadable(StepLabels, WholeFiles):
    """What every pipeline can: be saved in one file, and read from it."""

    @functools.wraps(keras.Model.save)
    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        path = str(filepath)
        if path.endswith((".h5", ".hdf5")):
            raise ValueError(
                "`filepath` must be a `.keras` file, as HDF5 keeps no vocabulary. "
                f"Received: filepath={path!r}. Name it "
                f"{pathlib.Path(path).with_suffix('.keras').name!r}."
            )
        return super().save(filepath, overwrite, zipped, **kwargs)

    @classmethod
    def load(cls, path):
        """Reads a pipeline that was saved, vocabularies and all.

        It is ready to use; to train it further, compile its model again.

        Args:
            path: The `.keras` file.

        Returns:
            The pipeline.

        Raises:
            ValueError: There is no such file, it cannot be read, or it holds something
                else.

        Example: `kseq.text.TextToText.load("translator.keras")`
        """
        return _loaded(path, cls)


def load(path):
    """Reads a pipeline of any kind that was saved, vocabularies and all.

    Args:
        path: The `.keras` file.

    Returns:
        A `TextToText`, `TextToLabels`, `TextWriter` or `TextToImage`.

    Raises:
        ValueError: There is no such file, it cannot be read, or it holds something
            else.

    Example: `kseq.text.load("translator.keras")`
    """
    return _loaded(path, Loadable, "pipeline of `kseq.text`")


def _loaded(path, kind, name=None):
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


def _problem(path, error):
    is_path = isinstance(path, (str, os.PathLike))
    if is_path and os.path.isfile(path) and not zipfile.is_zipfile(path):
        return "it is another kind of file, or ends too early."  # Keras: "not found"
    return error
