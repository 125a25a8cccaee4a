"""Series of numbers: measured hour by hour, or one series for each class."""

import csv

import numpy as np

from kseq.datasets.files import File, decoded, lines_of, pinned

MONTH = 30 * 24  # hours
ITALY = (
    "https://raw.githubusercontent.com/sktime/sktime/v1.2.0/"
    "sktime/datasets/data/ItalyPowerDemand/"
)


def load_ett(content):
    header, *rows = csv.reader(decoded(content("ETTh1.csv"), "ETTh1.csv").splitlines())
    values = np.array([row[1:] for row in rows], "float64")  # hours columns
    columns = header[1:]
    train, validation, test = 12 * MONTH, 16 * MONTH, 20 * MONTH
    return {
        "train": (values[:train], columns),
        "validation": (values[train:validation], columns),
        "test": (values[validation:test], columns),
    }


def load_italy_power_demand(content):
    def part(name):
        lines = [
            line
            for _, line in lines_of(decoded(content(name), name))
            if line[0] not in "#@"
        ]
        series = [line.split(":")[0].split(",") for line in lines]
        labels = [line.split(":")[1] for line in lines]
        return np.array(series, "float64"), np.array(labels, "int64") - 1

    return {
        "train": part("ItalyPowerDemand_TRAIN.ts"),
        "test": part("ItalyPowerDemand_TEST.ts"),
    }


ETT_FILES = pinned(
    "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066  ETTh1.csv",
    "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/"
    "1d16c8f4f943005d613b5bc962e9eeb06058cf07/ETT-small/{}",
)
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
