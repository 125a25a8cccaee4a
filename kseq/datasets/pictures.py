"""Pictures, with a class or with a caption each."""

import io
import pathlib

import numpy as np

from kseq.datasets.files import File, not_empty, read_own

CAPTIONS = "captions.tsv"


def load_mnist(content):
    with np.load(io.BytesIO(content("mnist.npz")), allow_pickle=False) as arrays:
        return {
            part: (arrays[f"x_{part}"], arrays[f"y_{part}"].astype("int64"))
            for part in ("train", "test")
        }


MNIST_FILES = (
    File(
        "mnist.npz",
        (
            # As Keras serves it, and packed anew from rasbt/mnist-pngs, by digit.
            "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
            "c3b4aadaefe08c5229d60a6d5e39187df38c4f0952536322357dcf401a6a3008",
        ),
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    ),
)


def read_pictures(folder, size=32):
    """Reads a folder of your own: pictures of any size, and what each shows.

    The folder has a text file `captions.tsv`, in UTF-8, of lines `file TAB caption`,
    with the pictures beside it. Each picture is resized to a square, with a margin in
    white if it is none itself; what is transparent becomes white.

    Args:
        folder: Path of the folder.
        size: Height and width of what is returned.

    Returns:
        `(pictures, captions)`: uint8 `(N, size, size, 3)`, and a list of strings.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: There is no such folder or no `captions.tsv`, a line has no TAB or
            no caption, or a picture is missing or cannot be read.

    Example: `pictures, captions = read_pictures("my_pictures", size=32)`
    """
    folder = pathlib.Path(folder)
    table = folder / CAPTIONS
    if not table.is_file():
        raise ValueError(
            f"A folder of pictures must have a file {CAPTIONS}, of lines `file TAB "
            f"caption`. Received: {folder}, without one. Write one line for each "
            "picture there, such as `heart.png TAB a red heart`."
        )
    names, captions = [], []
    for number, line in enumerate(read_own(table).split("\n"), 1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        if not tab or not name.strip() or not caption.strip():
            raise ValueError(
                "A line must be `file TAB caption`. Received: line "
                f"{number} of {table}: {line!r}."
            )
        names.append(name.strip())
        captions.append(caption.strip())
    not_empty(names, "lines `file TAB caption`", table)
    return np.stack([read_picture(folder / name, size) for name in names]), captions


def read_picture(path, size):
    """One picture as uint8 `(size, size, 3)`, or a `ValueError` that names the file."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError(
            "Pictures are read by Pillow. Install it with `pip install kseq[plots]`."
        ) from error
    try:
        with Image.open(path) as image:
            picture = ImageOps.exif_transpose(image)
            if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
                picture = eight_bits(picture)
            picture = picture.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"A picture must be a file that can be read. Received: {path}: {error}."
        ) from error
    white = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(white, picture).convert("RGB")
    return np.asarray(ImageOps.pad(flat, (size, size), color="white"), "uint8")


def eight_bits(image):
    """A grey picture of 16 bits, whole numbers or floats as one of 8 bits."""
    from PIL import Image

    numbers = np.asarray(image, "float64")
    most = 1.0 if image.mode == "F" and numbers.max() <= 1 else 65535.0
    if image.mode == "I" and numbers.max() <= 255:
        most = 255.0
    return Image.fromarray(np.clip(255 * numbers / most, 0, 255).astype("uint8"))
