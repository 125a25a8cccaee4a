import importlib.util
import os
import pathlib
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

import kseq

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "classify_series.py"
SMALL = "--width 7 --epochs 40 --batch-size 12 --learning-rate 0.05".split()


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("classify_series", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(path, rows):
    path.write_text("".join(f"{name},{','.join(steps)}\n" for name, steps in rows))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write rising and falling series of 5 or 7 steps, far from zero."""
    folder, random = tmp_path_factory.mktemp("series"), np.random.default_rng(0)

    def rows(number):
        for index in range(number):
            slope = 1 if index % 2 else -1
            steps = 100 + slope * np.arange(5 + 2 * (index % 3 == 0))
            noisy = steps + random.normal(0, 0.2, len(steps))
            yield "rising" if index % 2 else "falling", [f"{x:.4f}" for x in noisy]

    train, test = write(folder / "train.csv", rows(24)), folder / "test.csv"
    return train, write(test, rows(12))


@pytest.fixture(scope="module")
def trained(recipe, files, tmp_path_factory):
    output = tmp_path_factory.mktemp("classes")
    train, test = map(str, files)
    with recipe.console.capture() as printed:
        recipe.main(["--train", train, "--test", test, "--output", str(output), *SMALL])
    return output, printed.get()


def test_classes_are_distinguished(trained):
    assert "24 series for training, 0 for validation, 12 for testing" in trained[1]
    line = next(line for line in trained[1].splitlines() if "this model" in line)
    assert float(line.split("│")[2].strip(" %")) > 80


def test_model_and_two_pictures_are_written(trained):
    output, _ = trained
    names = sorted(path.name for path in output.iterdir())
    assert names == ["model.keras", "series.png", "training.png"]
    for picture in output.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_saved_model_classifies_a_file_in_a_second_process(trained, tmp_path):
    rows = [("?", ["50", "51", "52", "53"]), ("?", ["98", "97", "96", "95", "94"])]
    unknown = write(tmp_path / "unknown.csv", rows)
    model = trained[0] / "model.keras"
    done = subprocess.run(
        [sys.executable, RECIPE, "--load", model, "--read", unknown],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("│") for line in done.stdout.splitlines() if "│" in line]
    assert [line[1].strip() for line in lines] == ["1", "2"]
    assert lines[1][3].strip() == "falling"


def test_saved_model_returns_a_probability_for_each_class(trained):
    model = keras.saving.load_model(trained[0] / "model.keras", compile=False)
    series = np.array([[[99.0], [98.0], [97.0], [96.0]]])
    found = model.predict(series, verbose=0)
    assert sorted(found) == ["falling", "rising"]
    np.testing.assert_allclose(sum(found.values()), [1.0], rtol=1e-5)
    # Padding changes nothing.
    longer = model.predict(
        np.pad(series, [(0, 0), (0, 3), (0, 0)], constant_values=np.nan), verbose=0
    )
    np.testing.assert_allclose(longer["rising"], found["rising"], rtol=1e-4)


def test_ctrl_c_keeps_the_best_model(recipe, files, tmp_path, monkeypatch):
    class PressCtrlC(kseq.training.StopOnInterrupt):
        def on_train_batch_end(self, batch, logs=None):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(kseq.training, "StopOnInterrupt", PressCtrlC)
    train, test = map(str, files)
    with recipe.console.capture() as printed:
        arguments = ["--train", train, "--test", test, "--output", str(tmp_path)]
        recipe.main([*arguments, *SMALL, "--epochs", "100000"])
    assert "this model" in printed.get()
    assert (tmp_path / "model.keras").exists()


@pytest.mark.thorough
def test_validation_series_choose_the_best_epoch(recipe, files, tmp_path):
    series = [np.full((4, 1), 99.0 + number) for number in range(6)]
    labels = ["falling", "rising"] * 3
    options = recipe.parse_arguments([*SMALL, "--output", str(tmp_path)])
    model, whole = recipe.build(options, series, ["falling", "rising"])
    best = min(
        recipe.fit(
            model, whole, options, (series, labels), (series, labels[::-1])
        ).history["val_loss"]
    )
    numbers = np.array([1, 0] * 3)
    assert model.evaluate(np.stack(series), numbers, verbose=0)[0] == pytest.approx(
        best
    )


def test_model_adds_noise_and_normalizes(recipe):
    options = recipe.parse_arguments(["--width", "4"])
    series = [np.array([[50.0, 7], [54.0, 7]]), np.array([[46.0, 7]])]
    model, whole = recipe.build(options, series, ["a", "b"])
    batch = recipe.pad(series)
    assert np.isfinite(model.predict(batch, verbose=0)).all()
    assert not np.allclose(model(batch, training=True), model(batch, training=True))
    probabilities = whole.predict(batch, verbose=0)
    np.testing.assert_allclose(probabilities["a"] + probabilities["b"], 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", b"up,1,2\ndown,1,x\n", "line 2 of .*a.csv: 'down,1,x'"),
        ("a.ts", b"@data\n1,2:up\n3,4", "line 3 of .*a.ts"),
        ("a.ts", b"@data\n", "must hold series"),
        ("a.csv", b"caf\xe9,1\n", "UTF-8"),
        ("a.csv", b"up,1,2\nup,2,1\n", "must have at least two classes"),
        ("a.ts", b"1:2:up\n2:1:down\n", r"with \[2, 1\] features"),
    ],
)
def test_error_names_a_bad_file_before_training(
    recipe, tmp_path, files, name, content, complaint
):
    path = tmp_path / name
    path.write_bytes(content)
    arguments = ["--train", str(path), "--test", str(files[1])]
    with pytest.raises(SystemExit, match=complaint):
        recipe.main([*arguments, "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_test_series_are_not_trained_on(recipe, files, tmp_path):
    lines = files[0].read_text() + files[1].read_text().splitlines()[0] + "\n"
    train = tmp_path / "train.csv"
    train.write_text(lines)
    arguments = ["--train", str(train), "--test", str(files[1]), *SMALL]
    (series, labels), _ = recipe.load_splits(recipe.parse_arguments(arguments))
    assert len(series) == len(labels) == 24


def test_warns_of_a_class_that_only_testing_has(recipe, files, tmp_path):
    test = tmp_path / "test.csv"
    test.write_text("flat,1,1,1\n")
    arguments = ["--train", str(files[0]), "--test", str(test), *SMALL]
    with recipe.console.capture() as printed:
        recipe.load_splits(recipe.parse_arguments(arguments))
    assert "no training series has the class flat" in printed.get()


@pytest.mark.parametrize("content", [None, b"not a model", "sequential"])
def test_rejects_a_missing_damaged_or_foreign_model(recipe, tmp_path, files, content):
    path = tmp_path / "model.keras"
    if content == "sequential":
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    elif content:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match="must be a model of this recipe"):
        recipe.main(["--load", str(path), "--read", str(files[0])])


@pytest.mark.parametrize("arguments", [["--train", "a"], ["--load", "a"]])
def test_error_names_a_missing_companion_argument(recipe, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(arguments)
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "encoder", ["lstm", "mingru", "rnn", "transformer", "conv", "lstm-fcn"]
)
def test_every_encoder_ignores_padding(recipe, encoder):
    options = recipe.parse_arguments(["--width", "8", "--encoder", encoder])
    model, whole = recipe.build(options, [np.ones((4, 3))], list("abcde"))
    assert model.output_shape == (None, 5) and sorted(whole.output) == list("abcde")
    series = np.random.default_rng(0).normal(size=(2, 5, 3))
    longer = np.pad(series, [(0, 0), (0, 4), (0, 0)], constant_values=np.nan)
    np.testing.assert_allclose(model(longer), model(series), rtol=1e-4, atol=1e-5)


def test_nearest_neighbour_has_the_published_accuracy(recipe, data_set):
    folder = data_set("italy_power_demand")
    options = recipe.parse_arguments(["--data", str(folder.parent)])
    train, test = recipe.load_splits(options)
    assert [len(part) for part in (*train, *test)] == [67, 67, 1029, 1029]
    assert not {x.tobytes() for x in train[0]} & {x.tobytes() for x in test[0]}
    with recipe.console.capture() as printed:
        recipe.evaluate(train, test, predicted=test[1])
    assert "95.5" in printed.get() and "100.00%" in printed.get()


@pytest.mark.thorough
@pytest.mark.slow
def test_quick_run_on_real_data(recipe, data_set, tmp_path):
    folder = data_set("italy_power_demand").parent
    with recipe.console.capture() as printed:
        recipe.main(["--data", str(folder), "--quick", "--output", str(tmp_path)])
    assert "this model" in printed.get()
    assert (tmp_path / "model.keras").exists()


@pytest.mark.parametrize("answer, is_told", [("up", True), ("down", False)])
def test_report_says_if_a_constant_answer_is_as_good(recipe, answer, is_told):
    series = [np.full((3, 1), float(i)) for i in range(3)]
    with recipe.console.capture() as printed:
        test = series, ["up", "up", "down"]
        recipe.evaluate((series, ["up"] * 3), test, ["up", "up", answer])
    assert ("Always answering up would be as good" in printed.get()) == is_told
