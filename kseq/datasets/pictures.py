"""Pictures with a class or a caption each."""

import io
import pathlib
import unicodedata
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from kseq.datasets.files import Content, File, not_empty, read_own
from kseq.typing import PathLike

if TYPE_CHECKING:
    from PIL.Image import Image

CAPTIONS = "captions.tsv"
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def load_mnist(content: Content) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    with np.load(io.BytesIO(content("mnist.npz")), allow_pickle=False) as arrays:
        return {
            part: (arrays[f"x_{part}"], arrays[f"y_{part}"].astype("int64"))
            for part in ("train", "test")
        }


MNIST_FILES = (
    File(
        "mnist.npz",
        (
            # The file of Keras, and one made from rasbt/mnist-pngs, sorted by digit.
            "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
            "c3b4aadaefe08c5229d60a6d5e39187df38c4f0952536322357dcf401a6a3008",
        ),
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    ),
)


def read_pictures(
    folder: PathLike, size: int = 32, at_least: int = 1
) -> tuple[np.ndarray, list[str]]:
    """Read your own folder of pictures of any size, with captions.

    The folder must have a text file `captions.tsv` in UTF-8 next to the pictures, with
    lines of `file TAB caption`. Each picture is resized to a square, with white margins
    if it is not square. Transparent areas become white. A file may have several
    captions, one on each line. Pictures without a caption are left out with a warning.

    Grey pictures of more than 8 bits are scaled. White is 1 for floats up to 1, 255 if
    no value is above 255, and 65,535 otherwise.

    Args:
        folder: Path of the folder.
        size: Height and width of the returned pictures.
        at_least: Minimum number of lines, checked before any picture is read.

    Returns:
        `(pictures, captions)`: uint8 `(N, size, size, 3)`, and a list of strings.

    Raises:
        ImportError: Pillow is not installed.
        ValueError: The folder or `captions.tsv` does not exist; a line has no TAB or no
            caption, or occurs twice; there are too few lines; or a picture is missing,
            cannot be read, or would become a single colour although it has several.

    Example: `pictures, captions = read_pictures("my_pictures", size=32)`
    """
    folder = pathlib.Path(folder)
    table = folder / CAPTIONS
    if not table.is_file():
        raise ValueError(
            f"A folder of pictures must have a file {CAPTIONS} with lines of `file TAB "
            f"caption`. Received: {folder}, without one. Write one line for each "
            "picture, such as `heart.png TAB a red heart`."
        )
    rows: dict[tuple[str, str], int] = {}
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
                "A line must not occur twice. Received: line "
                f"{number} of {table}, the same as line {rows[row]}: {line!r}."
            )
        rows[row] = number
    not_empty(rows, "lines of `file TAB caption`", table)
    if len(rows) < at_least:
        raise ValueError(
            f"{table} must have at least {at_least} lines. Received: {len(rows)}."
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
                "Each picture must be in the folder. Received: line "
                f"{number} of {table} with {name!r}, but there is no such file."
            )
        pictures.append(read_picture(path, size))
    warn_of_others(folder, files, [name for name, _ in rows])
    return np.stack(pictures), [caption for _, caption in rows]


def normal(path: pathlib.Path) -> str:
    """Return a path as text in Unicode's composed form, NFC."""
    return unicodedata.normalize("NFC", path.as_posix())


def warn_of_others(
    folder: pathlib.Path, files: Iterable[str], names: Iterable[str]
) -> None:
    """Warn if pictures of a folder have no caption."""
    captioned = {normal(pathlib.Path(name)) for name in names}
    others = [name for name in files if name not in captioned]
    if others:
        warnings.warn(
            f"{len(others)} pictures of {folder} have no caption, such as {others[0]}, "
            "and are left out.",
            stacklevel=3,
        )


def read_picture(path: pathlib.Path, size: int) -> np.ndarray:
    """Return a picture as uint8 `(size, size, 3)`. An error names the file."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError(
            "Pictures need Pillow. Install it with `pip install kseq[plots]`."
        ) from error
    try:
        with Image.open(path) as image:
            picture: Image.Image = ImageOps.exif_transpose(image)
            if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
                picture = eight_bits(picture)
            picture = picture.convert("RGBA")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"A picture must be a readable file. Received: {path}: {error}."
        ) from error
    white = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(white, picture).convert("RGB")
    if max(flat.size) > size * min(flat.size):
        raise ValueError(
            f"A picture must not be too long or too wide to be resized to {size} x "
            f"{size}. Received: {path}, of {flat.width} x {flat.height}. Crop it."
        )
    square = ImageOps.pad(flat, (size, size), color="white")
    if has_one_colour(square) and not has_one_colour(picture):
        raise ValueError(
            "A picture must be visible at the small size, on a white background. "
            f"Received: {path}, which becomes a single colour although it has several. "
            "Leave it out, or give it a background of another colour."
        )
    return np.asarray(square, "uint8")


def has_one_colour(picture: "Image") -> bool:
    """Return True if all pixels of an RGB or RGBA picture are equal."""
    extrema: Any = picture.getextrema()  # a pair for each channel
    return all(low == high for low, high in extrema)


def eight_bits(image: "Image") -> "Image":
    """Return a grey picture of 16 bits, integers or floats as one of 8 bits."""
    from PIL import Image

    numbers = np.asarray(image, "float64")
    lowest, highest = numbers.min(), numbers.max()
    if not 0 <= lowest <= highest <= 65535:  # also True for NaN
        raise ValueError(
            f"its values range from {lowest:g} to {highest:g}, not 0 to 65535"
        )
    most = 65535.0
    if image.mode == "F" and highest <= 1:
        most = 1.0
    elif image.mode in ("F", "I") and highest <= 255:
        most = 255.0
    if 0 < highest < most / 16:  # such as 12 bits in 16
        raise ValueError(
            f"it would be black, with a maximum of {highest:g} of {most:g}"
        )
    return Image.fromarray((255 * numbers / most).astype("uint8"))
