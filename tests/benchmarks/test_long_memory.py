"""Tasks of `benchmarks/long_memory.py`: their data, their judge and a quick run."""

import numpy as np
import pytest


@pytest.fixture
def benchmark(load):
    return load("long_memory")


def test_adding_marks_a_number_in_each_half_and_returns_the_sum(benchmark):
    inputs, sums = benchmark.adding(np.random.default_rng(0), 5000, 12)
    numbers, marks = inputs[..., 0], inputs[..., 1]
    assert (marks[:, :6].sum(axis=1) == 1).all() and (marks.sum(axis=1) == 2).all()
    assert (marks.sum(axis=0) > 0).all()
    np.testing.assert_allclose(sums[:, 0], (numbers * marks).sum(axis=1), rtol=1e-5)
    assert np.square(sums - 1).mean() == pytest.approx(1 / 6, rel=0.1)


def test_copying_puts_blanks_between_the_symbols_and_the_answers(benchmark):
    token_ids, symbols = benchmark.copying(np.random.default_rng(0), 500, 12)
    assert token_ids.shape == (500, 32) and symbols.shape == (500, 10)
    assert (token_ids[:, :10] == symbols + 1).all()
    assert (token_ids[:, 10:22] == benchmark.BLANK).all()
    assert (token_ids[:, 22:] == benchmark.ANSWER).all()
    assert np.unique(symbols).tolist() == list(range(8))


def test_judge_tells_whether_a_task_is_solved(benchmark):
    sums = np.array([[0.5], [1.5]])
    assert benchmark.judge("adding", sums + 0.09, sums)[0]
    assert not benchmark.judge("adding", sums + 0.11, sums)[0]
    assert "answering 1: 0.2500" in benchmark.judge("adding", sums, sums)[1]
    symbols = np.random.default_rng(0).integers(0, 8, (50, 10))
    logits = np.eye(8)[symbols]
    assert benchmark.judge("copying", logits, symbols)[0]
    wrong = logits.copy()
    wrong[0, 3] = np.roll(wrong[0, 3], 1)
    is_solved, figures = benchmark.judge("copying", wrong, symbols)
    assert not is_solved and "99.8%" in figures and "all ten 98.0%" in figures


@pytest.mark.parametrize(
    ("layer", "task"),
    [
        ("mingru", "adding"),
        ("conv", "copying"),
        *(
            pytest.param(layer, task, marks=pytest.mark.thorough)
            for layer, task in [
                ("mingru", "copying"),
                ("conv", "adding"),
                ("gru", "adding"),
                ("lstm", "copying"),
                ("transformer", "adding"),
                ("transformer", "copying"),
            ]
        ),
    ],
)
def test_quick_run_reports_that_it_has_not_solved_the_task(
    benchmark, layer, task, capsys
):
    assert benchmark.main(["--quick", "--layer", layer, "--task", task]) is None
    printed = capsys.readouterr().out
    assert f"{layer}, " in printed and f"{task} over 20 steps" in printed
    assert "2 batches   loss" in printed and "Not solved" in printed


def test_convolutions_reach_back_to_the_first_step(benchmark):
    for steps in (20, 1000):
        options = benchmark.parse_arguments(["--layer", "conv", "--steps", str(steps)])
        encoder = benchmark.build_encoder(options)
        assert encoder.causal and encoder.receptive_field >= steps + 20
