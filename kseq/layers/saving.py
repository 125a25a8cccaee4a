"""Files of models, written whole."""

import contextlib
import functools
import os
import pathlib

import keras

ENDINGS = (".keras", ".h5", ".hdf5")


class WholeFiles:
    """A base of models that are saved in whole files.

    `save` and `save_weights` write beside the file and rename, so that what fails, for
    want of room or of a config, leaves the file that was there.
    """

    @functools.wraps(keras.Model.save)
    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        with replaced(filepath, overwrite) as path:
            return super().save(path, overwrite, zipped, **kwargs)

    @functools.wraps(keras.Model.save_weights)
    def save_weights(self, filepath, overwrite=True, **kwargs):
        with replaced(filepath, overwrite) as path:
            return super().save_weights(path, overwrite, **kwargs)


@contextlib.contextmanager
def replaced(filepath, overwrite=True):
    """Gives the path of a file beside, which takes the place of the file at the end.

    A path that is no file on this machine, and one for which Keras asks whether it may
    be overwritten, is given as it is.
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
