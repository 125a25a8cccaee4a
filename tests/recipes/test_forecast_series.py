import importlib.util
import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "forecast_series.py"
SMALL = "--horizon 3 --context 14 --patch 7 --width 11 --batch-size 16".split()


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("forecast_series", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def values():
    """Return two waves, one of them far from zero."""
    steps = np.arange(240)
    return np.stack([np.sin(steps * 2 * np.pi / 7), 100 + 20 * np.cos(steps * 2)], 1)


@pytest.fixture(scope="module")
def series(values, tmp_path_factory):
    lines = [f"2026-01-{i},{a:.6f},{b:.6f}" for i, (a, b) in enumerate(values)]
    path = tmp_path_factory.mktemp("series") / "waves.csv"
    path.write_text("\n".join(["date,sine,größer", *lines, ""]), "utf-8")
    return path


@pytest.fixture(scope="module")
def trained(recipe, series, tmp_path_factory):
    output = tmp_path_factory.mktemp("forecast")
    arguments = ["--series", str(series), "--output", str(output), *SMALL]
    with recipe.console.capture() as printed:
        recipe.main([*arguments, "--epochs", "5", "--learning-rate", "0.02"])
    return output, printed.get()


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, RECIPE, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # A process started in the background would ignore Ctrl-C, and pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def printed_errors(printed, name):
    line = next(line for line in printed.splitlines() if name in line)
    return [float(cell) for cell in line.split("│")[2:4]]


def test_saves_a_model_and_two_plots(trained):
    output, printed = trained
    names = sorted(path.name for path in output.iterdir())
    assert names == ["forecasts.png", "model.keras", "training.png"]
    for picture in output.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert "2 series: 144 steps for training, 48 for validation" in printed


def test_learns_to_forecast_better_than_the_last_value(trained):
    squared, _ = printed_errors(trained[1], "this model")
    assert squared < 0.5 * printed_errors(trained[1], "repeated")[0]


def test_errors_are_means_over_all_test_windows_in_scaled_units(trained, values):
    train, test = values[:144], values[192:]
    scaled = (values - train.mean(0)) / train.std(0)
    squared, absolute = [], []
    for first in range(192, 192 + len(test) - 3 + 1):
        for column in (0, 1):
            for step in range(first, first + 3):
                error = scaled[first - 1, column] - scaled[step, column]
                squared.append(error**2)
                absolute.append(abs(error))
    expected = np.mean(squared), np.mean(absolute)
    np.testing.assert_allclose(
        printed_errors(trained[1], "repeated"), expected, atol=1e-4
    )


def test_splits_forecast_no_common_step(recipe):
    options = recipe.parse_arguments(SMALL)
    parts = np.split(np.arange(90.0)[:, None], [50, 70])
    targets = []
    for part in recipe.add_past(parts, options.context):
        batches = recipe.make_windows(part, options)
        targets.append({float(y) for _, truth in batches for y in np.ravel(truth)})
    assert targets == [set(range(14, 50)), set(range(50, 70)), set(range(70, 90))]


def test_a_window_holds_past_steps_and_the_next_ones(recipe):
    options = recipe.parse_arguments(SMALL)
    batches = recipe.make_windows(np.arange(40.0)[:, None], options)
    [(seen, truth), *_] = batches
    np.testing.assert_array_equal(seen[2, :, 0], np.arange(2, 16))
    np.testing.assert_array_equal(truth[2, :, 0], np.arange(16, 19))
    assert sum(len(truth) for _, truth in batches) == 40 - 17 + 1


def test_the_saved_model_forecasts_in_the_units_of_the_data(trained, values):
    model = keras.saving.load_model(trained[0] / "model.keras", compile=False)
    forecast = model.predict(values[None, -14:], verbose=0)
    assert forecast.shape == (1, 3, 2)
    assert abs(forecast[..., 1] - 100).max() < 40
    # A shift of the series shifts the forecast by the same amount.
    moved = model.predict(values[None, -14:] + 7, verbose=0)
    np.testing.assert_allclose(moved, forecast + 7, rtol=1e-4)
    # Each series is forecast only from its own past.
    values = values.copy()
    values[:, 1] *= 1.3
    changed = model.predict(values[None, -14:], verbose=0)
    np.testing.assert_allclose(changed[..., 0], forecast[..., 0], rtol=1e-4, atol=1e-5)
    assert abs(changed[..., 1] - forecast[..., 1]).min() > 1


@pytest.mark.thorough
def test_a_second_process_forecasts_beyond_the_end_of_the_file(
    trained, series, values, tmp_path
):
    model = trained[0] / "model.keras"
    process = start("--load", model, "--series", series, "--output", tmp_path)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "The next 3 steps" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["next.csv", "next.png"]
    head, *lines = (tmp_path / "next.csv").read_text("utf-8").splitlines()
    assert head == "sine,größer"
    forecast = [[float(number) for number in line.split(",")] for line in lines]
    loaded = keras.saving.load_model(model, compile=False)
    expected = loaded.predict(values[None, -14:], verbose=0)[0]
    np.testing.assert_allclose(forecast, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"a,b\n1,2\n3,x\n", "Each row must have 2 numbers, .* Received: line 3 of"),
        (b"a,b\n1,2\n3\n", "line 3"),
        (b"a,b\n1,2\n3,nan\n", "line 3"),
        (b"a,b\n", "line of names, then lines"),
        (b"", "line of names, then lines"),
        (b"caf\xe9\n1\n", "UTF-8"),
        (b"a,b\n1,2\n3,4\n", "need .* steps for training, .* Received: "),
    ],
)
def test_error_names_an_invalid_file_before_training(
    recipe, tmp_path, content, complaint
):
    path = tmp_path / "series.csv"
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=complaint):
        recipe.main(["--series", str(path), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_error_names_a_missing_file(recipe):
    with pytest.raises(SystemExit, match="nowhere.csv"):
        recipe.main(["--series", "nowhere.csv"])


def test_rejects_missing_damaged_and_foreign_models(recipe, tmp_path, series):
    path = tmp_path / "model.keras"
    with pytest.raises(SystemExit, match="must be a model of this recipe"):
        recipe.main(["--load", str(path), "--series", str(series)])
    path.write_bytes(b"not a model")
    with pytest.raises(SystemExit, match="must be a model of this recipe"):
        recipe.main(["--load", str(path), "--series", str(series)])
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(SystemExit, match="must be a model of this recipe"):
        recipe.main(["--load", str(path), "--series", str(series)])


def test_rejects_a_file_with_another_number_of_series(recipe, trained, tmp_path):
    (tmp_path / "one.csv").write_text("a\n" + "1\n" * 30)
    arguments = ["--load", trained[0] / "model.keras", "--series", tmp_path / "one.csv"]
    with pytest.raises(SystemExit, match="14 steps of 2 series. Received: 30 steps of"):
        recipe.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("arguments", [["--context", "15"], ["--epochs", "0"]])
def test_rejects_invalid_arguments(recipe, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main([*SMALL, *arguments])
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize("encoder", ["lstm", "transformer"])
def test_other_encoders_can_be_built(recipe, encoder):
    model = recipe.build(recipe.parse_arguments([*SMALL, "--encoder", encoder]), 2)
    assert model.output_shape == (None, 3, 2)


@pytest.mark.thorough
def test_control_c_ends_training_and_keeps_the_best_model(series, tmp_path):
    process = start("--series", series, "--output", tmp_path, *SMALL, "--epochs=100000")
    printed = ""
    while "Epoch 3/" not in printed:
        printed += process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "this model" in rest
    assert (tmp_path / "model.keras").exists()


def test_the_published_split_gives_the_published_baseline_errors(recipe, data_set):
    folder = data_set("ett")
    options = recipe.parse_arguments(["--data", str(folder.parent)])
    names, parts = recipe.load_splits(options)
    assert names[-1] == "OT" and [len(part) for part in parts] == [8640, 2880, 2880]
    mean, deviation = parts[0].mean(axis=0), parts[0].std(axis=0)
    scaled = [(part - mean) / deviation for part in parts]
    test = recipe.add_past(scaled, options.context)[2]
    errors = [
        truth - seen[:, -1:] for seen, truth in recipe.make_windows(test, options)
    ]
    errors = np.concatenate(errors)
    assert len(errors) == 2785
    assert np.mean(errors**2) == pytest.approx(1.295, abs=2e-3)
    assert np.mean(np.abs(errors)) == pytest.approx(0.713, abs=1e-3)


@pytest.mark.thorough
@pytest.mark.slow
def test_quick_runs_on_real_data(recipe, data_set, tmp_path):
    folder = data_set("ett").parent
    with recipe.console.capture() as printed:
        recipe.main(["--data", str(folder), "--quick", "--output", str(tmp_path)])
    assert "this model" in printed.get()
    assert (tmp_path / "model.keras").exists()


SEQ2SEQ = "--model seq2seq --horizon 4 --context 14 --patch 2 --width 11".split()


@pytest.fixture(scope="module")
def trained_seq2seq(recipe, series, tmp_path_factory):
    output = tmp_path_factory.mktemp("fans")
    arguments = ["--series", str(series), "--output", str(output), *SEQ2SEQ]
    more = ["--epochs", "5", "--learning-rate", "0.02", "--draws", "20"]
    with recipe.console.capture() as printed:
        recipe.main([*arguments, *more, "--batch-size", "16", "--dropout", "0.1"])
    return output, printed.get()


def test_seq2seq_prints_scores_of_its_distribution(trained_seq2seq):
    output, printed = trained_seq2seq
    names = sorted(path.name for path in output.iterdir())
    assert names == ["forecasts.png", "model.keras", "training.png"]
    rows = {}
    for line in printed.splitlines():
        cells = [cell.strip() for cell in line.split("│")]
        if len(cells) == 4 and cells[2][0].isdigit():
            rows[cells[1]] = float(cells[2].removesuffix(" %"))
    assert rows["mean squared error of the mean"] < 1
    assert 0 < rows["CRPS"] < rows["mean absolute error of the mean"]
    assert rows["in the interval of 90 %"] > 50


def test_samples_are_in_the_units_of_the_data(recipe, trained_seq2seq, values):
    model = keras.saving.load_model(trained_seq2seq[0] / "model.keras")
    options = recipe.parse_arguments([*SEQ2SEQ, "--draws", "20"])
    seen = np.stack([values[:14], values[50:64]])  # B L C
    draws = recipe.sample_forecasts(model, seen, options)
    assert draws.shape == (2, 20, 4, 2)
    assert abs(draws[..., 1] - 100).max() < 200
    moved = recipe.sample_forecasts(model, 3 * seen + 7, options)
    np.testing.assert_allclose(moved, 3 * draws + 7, rtol=1e-3, atol=1e-2)


def test_training_rows_are_all_windows_in_patches(recipe):
    options = recipe.parse_arguments(SEQ2SEQ)
    values = np.arange(60.0).reshape(30, 2)
    past, future = recipe.training_patches(values, options)
    assert past.shape == (26, 7, 2) and future.shape == (26, 2, 2)
    whole = np.concatenate([past[5].ravel(), future[5].ravel()])
    size = np.mean(np.arange(14) * 2)
    np.testing.assert_allclose(whole, (np.arange(18) - 13) * 2 / size, rtol=1e-5)


@pytest.mark.thorough
def test_seq2seq_forecasts_beyond_the_end_of_the_file(
    recipe, trained_seq2seq, series, tmp_path
):
    arguments = ["--load", str(trained_seq2seq[0] / "model.keras"), *SEQ2SEQ]
    recipe.main([*arguments, "--series", str(series), "--output", str(tmp_path)])
    head, *lines = (tmp_path / "next.csv").read_text("utf-8").splitlines()
    assert head == "sine mean,größer mean,sine 5 %,größer 5 %,sine 95 %,größer 95 %"
    steps = np.array([line.split(",") for line in lines], float)
    assert steps.shape == (4, 6)
    assert (steps[:, 2:4] <= steps[:, 4:]).all()


@pytest.mark.parametrize("encoder", ["lstm", "transformer"])
def test_other_encoders_can_be_built_for_seq2seq(recipe, encoder):
    arguments = [*SEQ2SEQ, "--encoder", encoder, "--width", "12"]
    model = recipe.build_seq2seq(recipe.parse_arguments(arguments))
    assert model.output_shape == (None, None, 2, 2)
