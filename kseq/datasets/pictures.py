"""Pictures, with a class or with a caption each."""

import io
import pathlib
import unicodedata
import warnings

import numpy as np

from kseq.datasets.files import File, not_empty, read_own

CAPTIONS = "captions.tsv"
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


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


def read_pictures(folder, size=32, at_least=1):
    """Reads a folder of your own: pictures of any size, and what each shows.

    The folder has a text file `captions.tsv`, in UTF-8, of lines `file TAB caption`,
    with the pictures beside it. Each picture is resized to a square, with a margin in
    white if it is none itself; what is transparent becomes white. A file may have
    several captions, a line each. Pictures without a line are left out with a warning.

    Grey pictures of more than 8 bits are scaled so that white is 1 where no number is
    above 1 and they are floats, 255 where none is above 255, and else 65,535.

    Args:
        folder: Path of the folder.
        size: Height and width of what is returned.
        at_least: Fewest lines that are enough, counted before a picture is read.

    Returns:
        `(pictures, captions)`: uint8 `(N, size, size, 3)`, and a list of strings.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: There is no such folder or no `captions.tsv`, a line has no TAB or
            no caption or stands there twice, there are too few, or a picture is
            missing, cannot be read, or would come out in one colour though it has
            several.

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
    rows = {}
    for number, line in enumerate(read_own(table).split("\n"), 1):
        if not line.strip():
            continue
        name, tab, caption = line.partition("\t")
        if not tab or not name.strip() or not caption.strip():
            raise ValueError(
                "A line must be `file TAB caption`. Received: line "
                f"{number} of {table}: {line!r}."
            )
        row = name.strip(), caption.strip()
        if row in rows:
            raise ValueError(
                "A line must stand there once. Received: line "
                f"{number} of {table}, the same as line {rows[row]}: {line!r}."
            )
        rows[row] = number
    not_empty(rows, "lines `file TAB caption`", table)
    if len(rows) < at_least:
        raise ValueError(
            f"{table} must have {at_least} lines or more. Received: {len(rows)}."
        )
    files = {
        normal(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
    }
    pictures = []
    for (name, _), number in rows.items():
        path = files.get(normal(pathlib.Path(name)), folder / name)
        if not path.is_file():
            raise ValueError(
                "A picture must lie in the folder. Received: line "
                f"{number} of {table}, which names {name!r}, and no such file."
            )
        pictures.append(read_picture(path, size))
    warn_of_others(folder, files, [name for name, _ in rows])
    return np.stack(pictures), [caption for _, caption in rows]


def normal(path):
    """A path as text in which equal letters are equal, however they are composed."""
    return unicodedata.normalize("NFC", path.as_posix())


def warn_of_others(folder, files, names):
    """Says how many pictures of a folder have no caption."""
    captioned = {normal(pathlib.Path(name)) for name in names}
    others = [name for name in files if name not in captioned]
    if others:
        warnings.warn(
            f"{len(others)} pictures of {folder} have no caption, such as {others[0]}, "
            "and are left out.",
            stacklevel=3,
        )


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
    if max(flat.size) > size * min(flat.size):
        raise ValueError(
            f"A picture must keep a row and a column when it is resized to {size} x "
            f"{size}. Received: {path}, of {flat.width} x {flat.height}. Cut it."
        )
    square = ImageOps.pad(flat, (size, size), color="white")
    if has_one_colour(square) and not has_one_colour(picture):
        raise ValueError(
            "A picture must show something when it is small and stands on white. "
            f"Received: {path}, which comes out in one colour though it has several. "
            "Leave it out, or put what it shows on another colour."
        )
    return np.asarray(square, "uint8")


def has_one_colour(picture):
    return all(low == high for low, high in picture.getextrema())


def eight_bits(image):
    """A grey picture of 16 bits, whole numbers or floats as one of 8 bits."""
    from PIL import Image

    numbers = np.asarray(image, "float64")
    lowest, highest = numbers.min(), numbers.max()
    if not 0 <= lowest <= highest <= 65535:  # nor where one is NaN
        raise ValueError(
            f"its numbers go from {lowest:g} to {highest:g}, not 0 to 65535"
        )
    most = 65535.0
    if image.mode == "F" and highest <= 1:
        most = 1.0
    elif image.mode in ("F", "I") and highest <= 255:
        most = 255.0
    if 0 < highest < most / 16:  # such as 12 bits in 16
        raise ValueError(f"it would be black, {highest:g} of {most:g} at its brightest")
    return Image.fromarray((255 * numbers / most).astype("uint8"))
