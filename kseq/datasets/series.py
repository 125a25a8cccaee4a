"""Series of continuous values: one long table, or one row and a label each."""

import io

import numpy as np

from kseq.datasets.files import File, Source, github

ETT_COMMIT = "1d16c8f4f943005d613b5bc962e9eeb06058cf07"
MONTH = 30 * 24  # hours
ETT_MONTHS = {"train": (0, 12), "validation": (12, 16), "test": (16, 20)}
ITALY = "ItalyPowerDemand"


def read_ett(content, split=True):
    table = content("ETTh1.csv").decode("ascii")
    columns = table.split("\n", 1)[0].split(",")[1:]  # after the date
    values = np.loadtxt(
        io.StringIO(table), delimiter=",", skiprows=1, usecols=range(1, 8)
    )
    if not split:
        return {"all": (values, columns)}
    return {
        part: (values[begin * MONTH : end * MONTH], columns)
        for part, (begin, end) in ETT_MONTHS.items()
    }


def read_italy_power_demand(content):
    return {
        part: _series_and_labels(content(f"{ITALY}_{part.upper()}.ts"))
        for part in ("train", "test")
    }


def _series_and_labels(data):
    """Reads lines of `value,value,...:label` below a header of `#` and `@` lines."""
    lines = [line for line in data.decode("ascii").split("\n") if line]
    rows = [line.split(":") for line in lines if line[0] not in "#@"]
    series = np.array([row.split(",") for row, _ in rows], "float64")
    return series, np.array([int(label) - 1 for _, label in rows], "int32")


SOURCES = (
    Source(
        name="ett",
        summary=(
            "ETTh1, load and oil temperature of a transformer station, hour by hour; "
            "8,640 hours to train, 2,880 and 2,880"
        ),
        licence="CC BY-ND 4.0",
        citation=(
            "Zhou et al., 2021, Informer: Beyond Efficient Transformer for Long "
            "Sequence Time-Series Forecasting"
        ),
        files=(
            File(
                "ETTh1.csv",
                github("zhouhaoyi/ETDataset", ETT_COMMIT, "ETT-small/ETTh1.csv"),
                "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
            ),
        ),
        read=read_ett,
    ),
    Source(
        name="italy_power_demand",
        summary="days of demand for power by time of year, 67 to train and 1,029",
        licence="BSD-3-Clause (that of sktime)",
        citation=(
            "Keogh et al., 2006, Intelligent Icons: Integrating Lite-Weight Data "
            "Mining and Visualization into GUI Operating Systems"
        ),
        files=(
            File(
                f"{ITALY}_TRAIN.ts",
                None,
                "341269cb7e6cef96846b30e774580beec79addb93848ba360145219115a74b7c",
            ),
            File(
                f"{ITALY}_TEST.ts",
                None,
                "26122451f87dd0387ef90b18bc8a86c041371b8a1c068004922b939971247144",
            ),
        ),
        read=read_italy_power_demand,
        labels=("1", "2"),
        package=f"sktime/datasets/data/{ITALY}",
        how=(
            "Install the package that carries it: `pip install --no-deps "
            "sktime==1.2.0`."
        ),
    ),
)
