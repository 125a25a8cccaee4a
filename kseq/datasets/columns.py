"""Tables of numbers, with one column for each series and one line for each step."""

import csv
import io
import unicodedata
from collections.abc import Sequence

import numpy as np

from kseq.datasets.files import Content, decoded, pinned, read_own
from kseq.typing import PathLike

MONTH = 30 * 24  # hours
LARGEST = 1e18  # its square, and so a variance, fits into float32
MISSING = {"na", "n/a", "null", "none", "-", "?"}


def read_columns(path: PathLike) -> tuple[np.ndarray, list[str]]:
    """Read several series with common time steps from a CSV file in UTF-8.

    Columns are separated by commas, and numbers must not contain commas. The first line
    holds the names of the columns, and each further line is a step. The first column is
    left out if it has no name, such as an index, or holds no numbers at all, such as
    dates. If it holds numbers with units or commas, or only marks for missing values
    such as `NA`, it counts as a series, and an error is raised.

    Args:
        path: The file, which may be compressed with gzip.

    Returns:
        `(values, names)`: float64 `(N, C)`, N steps of C columns, and a list of C
        strings.

    Raises:
        ValueError: The file cannot be read, is empty or is not in UTF-8; it has no line
            of names or no commas; or a step has too few or too many numbers, a number
            with commas, or a number whose square is too large for float32.

    Example:

    >>> import pathlib, tempfile
    >>> from kseq.datasets import read_columns
    >>> path = pathlib.Path(tempfile.mkdtemp(), "weather.csv")
    >>> size = path.write_text("day,sun,rain\\nMonday,8,0.5\\nTuesday,3,9\\n", "utf-8")
    >>> values, names = read_columns(path)
    >>> names, values.tolist()
    (['sun', 'rain'], [[8.0, 0.5], [3.0, 9.0]])
    """
    return parse(read_own(path), path)


def parse(text: str, where: PathLike) -> tuple[np.ndarray, list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise ValueError(
            f"A table must be a CSV file. Received: line {reader.line_num} of {where}: "
            f"{error}."
        ) from error
    if len(rows) < 2:
        raise ValueError(
            "A table must have a line of names, then lines of numbers. Received: "
            f"{where}, with {len(rows)} lines."
        )
    (_, header), *lines = rows
    first = int(is_left_out(header[0], [row[0] for _, row in lines]))
    names, steps = [name.strip() for name in header[first:]], []
    if not names or not all(names) or None not in map(number, names):
        raise ValueError(
            "The first line must name the columns with commas between them. "
            f"Received: {where}, which begins with {','.join(header)[:60]!r}, "
            f"{','.join(lines[0][1])[:60]!r}."
        )
    given = text.split("\n")
    for line, row in lines:
        steps.append([number(cell) for cell in row[first:]])
        if None in steps[-1] or len(steps[-1]) != len(names):
            raise ValueError(
                f"Each row must have {len(names)} numbers, none larger than "
                f"{LARGEST:g} in absolute value, and without commas or units. "
                f"Received: line {line} of {where}: {given[line - 1][:60]!r}."
            )
    return np.array(steps, "float64"), names


def is_left_out(name: str, cells: Sequence[str]) -> bool:
    """Return True if a first column is not a series: an index without a name, or dates.

    Numbers with commas or units, and a column of marks for missing values, count as a
    series.
    """
    marks = {cell.strip().lower() for cell in cells} - {""}
    was_meant = (marks and marks <= MISSING) or any(map(was_meant_as_number, cells))
    return not name.strip() or not was_meant


def was_meant_as_number(cell: str) -> bool:
    """Return True if a cell is a number, apart from commas and units."""
    bare = "".join(x for x in cell if not is_unit(x))
    try:
        float(bare.replace("\N{MINUS SIGN}", "-"))
    except ValueError:
        return False
    return True


def is_unit(character: str) -> bool:
    """Return True for a currency sign, a space, or a mark in or around numbers."""
    return unicodedata.category(character) in ("Sc", "Zs") or character in ",'%()"


def number(text: str) -> float | None:
    """Return a text as a number, or None if it is not a number or too large."""
    try:
        value = None if "_" in text else float(text)
    except ValueError:
        return None
    return value if value is not None and abs(value) <= LARGEST else None


def load_ett(content: Content) -> dict[str, tuple[np.ndarray, list[str]]]:
    values, names = parse(decoded(content("ETTh1.csv"), "ETTh1.csv"), "ETTh1.csv")
    train, validation, test = 12 * MONTH, 16 * MONTH, 20 * MONTH
    return {
        "train": (values[:train], names),
        "validation": (values[train:validation], names),
        "test": (values[validation:test], names),
    }


ETT_FILES = pinned(
    "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066  ETTh1.csv",
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/"
    "1d16c8f4f943005d613b5bc962e9eeb06058cf07/ETT-small/{}",
)
