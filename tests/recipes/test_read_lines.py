import contextlib
import importlib.util
import io
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import sklearn.datasets

import kseq

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "read_lines.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("read_lines", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_digits(name, folder=None):
    """Return the digits of scikit-learn in the image size of MNIST."""
    assert name == "mnist"
    data = sklearn.datasets.load_digits()
    images = np.uint8(np.kron(data.images, np.ones((3, 3))) * 255 / 16)
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return {
        "train": (images[:1500], data.target[:1500]),
        "test": (images[1500:], data.target[1500:]),
    }


@pytest.fixture(scope="module")
def trained(recipe, tmp_path_factory):
    output = tmp_path_factory.mktemp("lines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kseq.datasets, "load", small_digits)
        patch.setenv("COLUMNS", "200")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            recipe.main(["--quick", "--output", str(output)])
    return output, printed.getvalue()


def test_prints_error_rates_of_both_models(trained):
    printed = " ".join(trained[1].split(" \n"))
    assert "128 new lines in each epoch, of 1,375 digits" in printed
    assert "60 lines of 297 other digits for testing" in printed
    rows = [line.split("│") for line in trained[1].splitlines() if "%" in line]
    kinds = [(row[1].strip(), row[3].strip()) for row in rows]
    assert kinds == [
        ("CTC", "best path"),
        ("CTC", "5 beams"),
        ("attention", "greedy"),
        ("attention", "5 beams"),
    ]
    assert "are meaningless" in printed


def test_saves_models_and_plots(trained):
    output, _ = trained
    names = {path.name for path in output.iterdir()}
    assert {"ctc.keras", "attention.keras", "sheet.png", "alignment.png"} <= names
    assert {"ctc_training.png", "attention_training.png"} <= names
    for picture in output.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["ctc", "attention"])
def test_a_second_process_reads_pictures_with_the_saved_model(
    recipe, trained, name, tmp_path
):
    pages = small_lines(recipe)[0][:2]
    paths = [tmp_path / "light.png", tmp_path / "dark.png"]
    for path, page, sign in zip(paths, pages, (1, -1), strict=True):
        pixels = page if sign == 1 else 1 - page
        keras.utils.save_img(path, 255 * pixels, scale=False)
    command = [sys.executable, RECIPE, "--load", trained[0] / f"{name}.keras"]
    done = subprocess.run(
        [*command, "--read", *paths],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if ".png" in line]
    assert len(rows) == 2 and all(0 <= float(row[3]) <= 1 for row in rows)


def small_lines(recipe, number=50):
    parts = small_digits("mnist")
    digits = recipe.cut(parts["train"][0]), parts["train"][1]
    return recipe.compose_lines(digits, number, np.random.default_rng(3))


def test_lines_show_their_digits_side_by_side(recipe):
    pictures, ids = small_lines(recipe)
    assert pictures.shape == (50, 28, 192, 1) and ids.shape == (50, 8)
    assert 0 <= pictures.min() and pictures.max() == 1
    counts = (ids != 0).sum(axis=1)
    assert set(counts) == set(range(3, 9))
    assert set(ids[ids != 0]) == set(range(4, 14))
    ink = (pictures[..., 0] > 0).any(axis=1).sum(axis=1)  # columns
    assert np.corrcoef(ink, counts)[0, 1] > 0.8
    again, _ = small_lines(recipe)
    assert (again == pictures).all()


def test_digits_of_a_too_long_line_are_moved_closer(recipe):
    page = np.zeros((28, 192), "float32")
    digits = [np.ones((20, 22), "float32")] * 8
    digits = [np.pad(digit, ((4, 4), (0, 0))) for digit in digits]
    recipe.draw_line(page, digits, np.random.default_rng(0))
    assert page.any(axis=0).sum() <= 192 and page.sum() > 8 * 20 * 15


def test_digits_are_split_and_cropped(recipe, monkeypatch):
    monkeypatch.setattr(kseq.datasets, "load", small_digits)
    parts = recipe.load_digits(recipe.parse_arguments([]))
    assert [len(digits) for digits, _ in parts] == [1375, 125, 297]
    for digits, labels in parts:
        assert len(digits) == len(labels)
        assert all(digit[:, 0].any() and digit[:, -1].any() for digit in digits)


def test_attention_is_trained_by_teacher_forcing(recipe):
    ids = np.array([[5, 6, 7, 0], [8, 9, 10, 11]])
    inputs, labels = recipe.attention_examples(np.zeros((2, 1)), ids)
    assert inputs["target"].tolist() == [[2, 5, 6, 7, 3], [2, 8, 9, 10, 11]]
    assert labels.tolist() == [[5, 6, 7, 3, 0], [8, 9, 10, 11, 3]]


def test_error_names_a_blank_a_long_and_a_missing_picture(recipe, tmp_path):
    line = np.pad(np.zeros((4, 90)), 9, constant_values=255)[..., None]
    blank = np.full((9, 9, 1), 200)
    for name, pixels, message in (
        ("blank", blank, "without ink"),
        ("long", line, "90 x 4"),
    ):
        path = tmp_path / f"{name}.png"
        keras.utils.save_img(path, pixels, scale=False)
        with pytest.raises(SystemExit, match=f"--read needs .*{message}"):
            recipe.load_page(path)
    with pytest.raises(SystemExit, match="--read needs picture files"):
        recipe.load_page(tmp_path / "missing.png")


def test_rejects_missing_damaged_and_foreign_models(recipe, tmp_path):
    path = tmp_path / "model.keras"
    flags = ["--load", str(path), "--read", "line.png"]
    with pytest.raises(SystemExit, match="cannot be read"):
        recipe.main(flags)
    path.write_bytes(b"not a model")
    with pytest.raises(SystemExit, match="cannot be read"):
        recipe.main(flags)
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(SystemExit, match="Received: a Sequential"):
        recipe.main(flags)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "crf"],
        ["--encoder", "grue"],
        ["--epochs", "0"],
        ["--width", "18"],
        ["--load", "model.keras"],
        ["--read", "line.png"],
    ],
)
def test_rejects_invalid_arguments(recipe, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(arguments)
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err
