"""Reading back what was saved: a model and its vocabularies, from one file."""

import os
import zipfile

import keras


class Loadable:
    """What every pipeline can: be read from the file that `save` has written."""

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


def _problem(path, error):
    if os.path.isfile(path) and not zipfile.is_zipfile(path):  # Keras: "not found"
        return "it is another kind of file, or ends too early."
    return error
