"""The task of `benchmarks/repeated_symbols.py`, a quick run and a trained model."""

import re

import numpy as np
import pytest


@pytest.fixture
def benchmark(load):
    return load("repeated_symbols")


def test_sequences_have_four_kinds_of_symbols_and_all_lengths(benchmark):
    rows = benchmark.sequences(np.random.default_rng(0), 500, 4, 16)
    assert {len(row) for row in rows} == set(range(4, 17))
    assert {symbol for row in rows for symbol in row} == {4, 5, 6, 7}


def shares(printed):
    """Return the share of sequences of each length that the last epoch copied."""
    line = printed.splitlines()[-1]
    return [int(share) for share in re.findall(r"(\d+)% of those", line)]


@pytest.mark.parametrize(
    "attention",
    [
        "location",
        *(
            pytest.param(name, marks=pytest.mark.thorough)
            for name in ("bahdanau", "luong", "coverage", "monotonic")
        ),
    ],
)
def test_quick_run_copies_nothing(benchmark, attention, capsys):
    benchmark.main(["--quick", "--attention", attention, "--width", "6"])
    printed = capsys.readouterr().out
    assert f"{attention}, " in printed and "epoch  1   loss " in printed
    assert shares(printed) == [0, 0]


@pytest.mark.thorough
def test_location_aware_attention_copies_longer_sequences_than_it_has_seen(
    benchmark, capsys
):
    benchmark.main(["--attention", "location", "--epochs", "3"])
    seen, longer = shares(capsys.readouterr().out)
    assert seen >= 95 and longer >= 60


@pytest.mark.thorough
def test_additive_attention_copies_no_sequence_longer_than_it_has_seen(
    benchmark, capsys
):
    benchmark.main(["--attention", "bahdanau", "--epochs", "3"])
    assert shares(capsys.readouterr().out)[1] <= 10
