"""Series of numbers with a class each, such as daily power demand by season."""

import csv

import numpy as np

from kseq.datasets.columns import number
from kseq.datasets.files import Content, File, decoded, lines_of, not_empty, read_own
from kseq.typing import PathLike

ITALY = (
    "https://raw.githubusercontent.com/sktime/sktime/v1.2.0/"
    "sktime/datasets/data/ItalyPowerDemand/"
)


def read_series(path: PathLike) -> tuple[list[np.ndarray], list[str]]:
    """Read labelled series from a `.ts` or a CSV file in UTF-8.

    `.ts` is the format of the UCR and UEA archives. A line is `values:CLASS`, with one
    list of values for each feature. A line of a CSV file is the class, then the values
    of a single feature, separated by commas. A class that contains commas is quoted.

    Args:
        path: The file, which may be compressed with gzip: `.ts`, `.ts.gz`, or any other
            name for a CSV file.

    Returns:
        `(series, labels)`: a list of float64 arrays `(S, F)`, S steps of F features,
        and a list of strings.

    Raises:
        ValueError: The file cannot be read, is empty or is not in UTF-8; a line has no
            class, or values that are not finite numbers; or the number of features
            differs between lines.

    Example:

    >>> import pathlib, tempfile
    >>> from kseq.datasets import read_series
    >>> path = pathlib.Path(tempfile.mkdtemp(), "hands.ts")
    >>> size = path.write_text("1,2,3:4,5,6:left\\n7,8:9,10:right\\n", "utf-8")
    >>> series, labels = read_series(path)
    >>> labels, series[1].tolist()
    (['left', 'right'], [[7.0, 9.0], [8.0, 10.0]])
    """
    is_ts = str(path).removesuffix(".gz").endswith(".ts")
    return parse(read_own(path), path, is_ts)


def parse(
    text: str, where: PathLike, is_ts: bool = True
) -> tuple[list[np.ndarray], list[str]]:
    series, labels = [], []
    for place, line in lines_of(text):
        if is_ts and line[0] in "#@":
            continue
        if is_ts:
            *lists, label = line.split(":")
            features = [values.split(",") for values in lists]
        else:
            label, *cells = cells_of(line)
            features = [cells]
        try:
            numbers = [[number(cell) for cell in row] for row in features]
            steps = np.array(numbers, "float64").T  # NaN for cells without a number
        except ValueError:
            steps = np.array([])
        has_label = label.strip() and not (is_ts and "," in label)  # a list of values
        if not steps.size or not np.isfinite(steps).all() or not has_label:
            form = "numbers:CLASS" if is_ts else "CLASS,numbers"
            raise ValueError(
                f"A series must be a line of `{form}`, with commas between finite "
                f"numbers. Received: line {place} of {where}: {line[:60]!r}."
            )
        series.append(steps)  # S F
        labels.append(label.strip())
    sizes = {steps.shape[1] for steps in not_empty(series, "series", where)}
    if len(sizes) > 1:
        raise ValueError(
            "All series must have the same number of features. Received: "
            f"{where}, with {' and '.join(map(str, sorted(sizes)))}."
        )
    return series, labels


def cells_of(line: str) -> list[str]:
    """Return the cells of a CSV line, or the whole line if it cannot be parsed."""
    try:
        return next(csv.reader([line]))
    except csv.Error:  # a cell of more than 131,072 characters
        return [line]


def load_italy_power_demand(
    content: Content,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    def part(name):
        series, labels = parse(decoded(content(name), name), name)
        return np.stack(series)[..., 0], np.array(labels, "int64") - 1

    return {
        "train": part("ItalyPowerDemand_TRAIN.ts"),
        "test": part("ItalyPowerDemand_TEST.ts"),
    }


ITALY_FILES = tuple(
    File(name, (sha256,), ITALY + name)
    for name, sha256 in {
        "ItalyPowerDemand_TRAIN.ts": (
            "341269cb7e6cef96846b30e774580beec79addb93848ba360145219115a74b7c"
        ),
        "ItalyPowerDemand_TEST.ts": (
            "26122451f87dd0387ef90b18bc8a86c041371b8a1c068004922b939971247144"
        ),
    }.items()
)
