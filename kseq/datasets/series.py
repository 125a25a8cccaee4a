"""Series of numbers with a class each: was this day of power demand a winter's?"""

import csv

import numpy as np

from kseq.datasets.columns import number
from kseq.datasets.files import File, decoded, lines_of, not_empty, read_own

ITALY = (
    "https://raw.githubusercontent.com/sktime/sktime/v1.2.0/"
    "sktime/datasets/data/ItalyPowerDemand/"
)


def read_series(path):
    """Reads series with a class each, from a `.ts` or a CSV file in UTF-8.

    A `.ts` file is one of the UCR and UEA archives: a line is `values:CLASS`, with one
    list of values for each feature. A line of a CSV file is its class, then the values
    of its one feature, with commas between; a class that holds commas is quoted.

    Args:
        path: The file, which may be packed with gzip: `.ts`, `.ts.gz`, or another name
            for a CSV file.

    Returns:
        `(series, labels)`: a list of float64 arrays `(S, F)`, S steps of F features,
        and a list of strings.

    Raises:
        ValueError: The file cannot be read, is empty or in another encoding; a line has
            no class, or values that are not finite numbers; or the lines differ in the
            number of features.

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


def parse(text, where, is_ts=True):
    series, labels = [], []
    for place, line in lines_of(text):
        if is_ts and line[0] in "#@":
            continue
        if is_ts:
            *features, label = line.split(":")
            features = [feature.split(",") for feature in features]
        else:
            label, *values = cells_of(line)
            features = [values]
        try:
            features = [[number(cell) for cell in row] for row in features]
            steps = np.array(features, "float64").T  # NaN for what is no number
        except ValueError:
            steps = np.array([])
        has_label = label.strip() and not (is_ts and "," in label)  # which are values
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
            "All series must have one and the same number of features. Received: "
            f"{where}, with {' and '.join(map(str, sorted(sizes)))}."
        )
    return series, labels


def cells_of(line):
    try:
        return next(csv.reader([line]))
    except csv.Error:  # a cell of more than 131,072 characters
        return [line]


def load_italy_power_demand(content):
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
