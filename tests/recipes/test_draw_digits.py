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

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "draw_digits.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("draw_digits", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(recipe, tmp_path_factory):
    output = tmp_path_factory.mktemp("digits")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        recipe.main(["--quick", "--output", str(output), "--decoder", "gru"])
    return output, printed.getvalue()


def test_prints_the_share_of_readable_digits(trained):
    _, printed = trained
    assert "300 digits for training, 200 for validation, 300 for testing" in printed
    [real] = [line for line in printed.splitlines() if "real, test" in line]
    share, copies = real.split("│")[2:4]
    assert float(share.strip(" %")) > 90 and int(copies) == 0
    assert (
        "drawn" in printed
        and "nats per pixel" in printed
        and "are meaningless" in printed
    )


def test_saves_a_model_and_plots(trained):
    names = sorted(path.name for path in trained[0].glob("*.*"))
    assert names[0] in ("drawn.png", "model.keras")
    assert {"model.keras", "sheet.png", "training.png"} <= set(names)
    for picture in trained[0].glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_a_second_process_draws_with_the_saved_model(trained):
    command = [sys.executable, RECIPE, "--load", trained[0] / "model.keras"]
    done = subprocess.run(
        [*command, "--output", trained[0], "--digits", "2", "0", "2", "6"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert (trained[0] / "drawn.png").exists()
    rows = done.stdout.split("The same")[0].splitlines()
    assert len(rows) == 8 and any(row.strip() for row in rows)


def test_a_picture_has_64_pixels_and_depends_on_the_seed(recipe, trained):
    model = recipe.load_model(trained[0] / "model.keras")
    options = recipe.parse_arguments(["--seed", "5"])
    drawn = recipe.draw(model, [3, 7, 3], options)
    assert drawn.shape == (3, 64) and drawn.min() >= 4 and drawn.max() < 4 + 17
    assert (recipe.draw(model, [3, 7, 3], options) == drawn).all()
    assert (drawn[0] != drawn[2]).any()


def test_splits_share_no_picture(recipe):
    parts = recipe.load_splits(recipe.parse_arguments([]))
    pictures = [set(map(bytes, pixels)) for pixels, _ in parts]
    assert [len(p) for p in pictures] == [len(pixels) for pixels, _ in parts]
    assert len(set.union(*pictures)) == sum(map(len, pictures)) == 1797
    for pixels, classes in parts:
        assert pixels.min() == 4 and pixels.max() == 20
        assert set(classes) == set(range(10))


def test_the_nearest_picture_is_found(recipe):
    random = np.random.default_rng(3)
    pictures, others = random.integers(0, 17, (5, 11)), random.integers(0, 17, (7, 11))
    others[4] = pictures[2]
    places, distances = recipe.nearest(pictures, others)
    for picture, place, distance in zip(pictures, places, distances, strict=True):
        by_hand = [sum((picture[i] - o[i]) ** 2 for i in range(11)) for o in others]
        assert distance**2 == pytest.approx(min(by_hand)) and place == np.argmin(
            by_hand
        )
    assert places[2] == 4 and distances[2] == 0


def test_digits_are_shown_as_characters(recipe, tmp_path, capsys):
    path, output = str(tmp_path / "model.keras"), str(tmp_path)
    options = recipe.parse_arguments(["--load", path, "--output", output])
    black, white = np.full(64, 4), np.full(64, 20)
    recipe.show(np.stack([black, white]), options)
    rows = capsys.readouterr().out.splitlines()[:8]
    assert rows == [" " * 16 + "  " + "@" * 16] * 8


def test_rejects_missing_damaged_and_foreign_models(recipe, tmp_path):
    path = tmp_path / "model.keras"
    with pytest.raises(SystemExit, match="cannot be read"):
        recipe.main(["--load", str(path)])
    path.write_bytes(b"not a model")
    with pytest.raises(SystemExit, match="cannot be read"):
        recipe.main(["--load", str(path)])
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(SystemExit, match="Received: a Sequential"):
        recipe.main(["--load", str(path)])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--digits", "10"],
        ["--decoder", "grue"],
        ["--epochs", "0"],
        ["--temperature", "0"],
        ["--top-p", "2"],
    ],
)
def test_rejects_invalid_arguments(recipe, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(arguments)
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err
