"""Saving and reading back a model and its vocabularies, as one file."""

import functools
import inspect
import os
import pathlib
import zipfile

import keras

from kseq.layers.saving import WholeFiles


class Loadable(WholeFiles):
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
        try:
            whole = keras.saving.load_model(path, compile=False)
        except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"`path` must be a file that a {cls.__name__} was saved in. "
                f"Received: {path}, which cannot be read: {_problem(path, error)}"
            ) from error
        if not isinstance(whole, cls):
            raise ValueError(
                f"`path` must be a file that a {cls.__name__} was saved in. "
                f"Received: {path}, with a {type(whole).__name__}."
            )
        return whole

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        check_class_weight(self, keras.Model.fit, args, kwargs)
        return super().fit(*args, **kwargs)

    @functools.wraps(keras.Model.train_on_batch)
    def train_on_batch(self, *args, **kwargs):
        check_class_weight(self, keras.Model.train_on_batch, args, kwargs)
        return super().train_on_batch(*args, **kwargs)


def check_class_weight(pipeline, method, args, kwargs):
    """Raises if a method of Keras would weigh labels of steps by the class of one."""
    given = inspect.signature(method).bind_partial(pipeline, *args, **kwargs).arguments
    class_weight = given.get("class_weight")
    has_one_label = len(getattr(pipeline.model, "output_shape", ())) == 2
    if class_weight is not None and not has_one_label:
        raise ValueError(
            "`class_weight` must be None where steps have labels, as Keras would weigh "
            f"whole rows. Received: class_weight={class_weight!r} with "
            f"{pipeline.name}. Give it to `kseq.training.batches`, or "
            "`teacher_forcing` for a model that writes, which weigh each label."
        )


def _problem(path, error):
    is_path = isinstance(path, (str, os.PathLike))
    if is_path and os.path.isfile(path) and not zipfile.is_zipfile(path):
        return "it is another kind of file, or ends too early."  # Keras: "not found"
    return error
