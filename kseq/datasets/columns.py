"""Tables of numbers: a column for each series, a line for each step."""

import csv
import io
import unicodedata

import numpy as np

from kseq.datasets.files import decoded, pinned, read_own

MONTH = 30 * 24  # hours
LARGEST = 1e18  # of which float32 can hold the square, and so the variance
MISSING = {"na", "n/a", "null", "none", "-", "?"}


def read_columns(path):
    """Reads series of one and the same time from a CSV file in UTF-8.

    Commas stand between columns, and a number has none inside. The first line names the
    columns, and each other line is a step. A first column is left out if it has no
    name, as an index, or holds no number at all, as one of dates; one of numbers with
    units or commas, or of marks as `NA`, is not left out but refused.

    Args:
        path: The file, which may be packed with gzip.

    Returns:
        `(values, names)`: float64 `(N, C)`, N steps of C columns, and a list of C
        strings.

    Raises:
        ValueError: The file cannot be read, is empty or in another encoding, has no
            line of names or no commas, or a step lacks a number, has one too many, one
            with commas inside, or one that is too large for float32 to square.

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


def parse(text, where):
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
            "A table must have a line of names and lines of numbers. Received: "
            f"{where}, with {len(rows)} lines."
        )
    (_, header), *lines = rows
    first = int(is_left_out(header[0], [row[0] for _, row in lines]))
    names, steps = [name.strip() for name in header[first:]], []
    if not names or not all(names) or None not in map(number, names):
        raise ValueError(
            "The first line must name the columns of numbers, commas between them. "
            f"Received: {where}, which begins with {','.join(header)[:60]!r}, "
            f"{','.join(lines[0][1])[:60]!r}."
        )
    given = text.split("\n")
    for line, row in lines:
        steps.append([number(cell) for cell in row[first:]])
        if None in steps[-1] or len(steps[-1]) != len(names):
            raise ValueError(
                f"Each step must be {len(names)} numbers of at most {LARGEST:g}, "
                f"without commas or units. Received: line {line} of {where}: "
                f"{given[line - 1][:60]!r}."
            )
    return np.array(steps, "float64"), names


def is_left_out(name, cells):
    """Tell whether a first column is no series: an index without a name, or dates.

    What is a number but for its commas and units was meant as a number, and a column
    of marks for missing ones as one of them.
    """
    marks = {cell.strip().lower() for cell in cells} - {""}
    was_meant = (marks and marks <= MISSING) or any(map(was_meant_as_number, cells))
    return not name.strip() or not was_meant


def was_meant_as_number(cell):
    bare = "".join(x for x in cell if not is_unit(x))
    try:
        float(bare.replace("\N{MINUS SIGN}", "-"))
    except ValueError:
        return False
    return True


def is_unit(character):
    """Tell whether a character is a sign of money, a space or a mark around numbers."""
    return unicodedata.category(character) in ("Sc", "Zs") or character in ",'%()"


def number(text):
    """The number that a text is, or None if it is no number, or too large a one."""
    try:
        value = None if "_" in text else float(text)
    except ValueError:
        return None
    return value if value is not None and abs(value) <= LARGEST else None


def load_ett(content):
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
