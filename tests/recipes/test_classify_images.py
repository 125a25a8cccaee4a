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

import kseq

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "classify_images.py"
SMALL = ["--width", "16", "--layers", "1"]


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("classify_images", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(recipe, tmp_path_factory):
    output = tmp_path_factory.mktemp("images")
    flags = ["--task", "digits", "--output", str(output), *SMALL]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        recipe.main([*flags, "--epochs", "5", "--learning-rate", "0.01"])
    return output, printed.getvalue()


def test_learns_to_classify_unseen_digits(trained):
    _, printed = trained
    assert "1,281 pictures for training, 116 for validation, 400 for testing" in printed
    [row] = [line for line in printed.splitlines() if "%" in line]
    validation, test = (float(x.strip(" %")) for x in row.split("│")[2:4])
    assert validation > 50 and test > 50  # of ten classes


def test_saves_a_model_and_plots(trained):
    names = sorted(path.name for path in trained[0].glob("[!m]*.png"))
    assert names == ["attention.png", "training.png"]
    assert {"model.keras", "mistakes.png"} <= {p.name for p in trained[0].iterdir()}
    for picture in trained[0].glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
def test_a_second_process_classifies_images_with_the_saved_model(
    recipe, trained, tmp_path
):
    *_, (images, labels) = recipe.load_splits(
        recipe.parse_arguments(["--task", "digits"])
    )
    model = recipe.load_model(trained[0] / "model.keras")
    answers = recipe.predict_probabilities(model, images[:3]).argmax(axis=1)
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for path, image, sign in zip(paths, images, (1, -1, 1), strict=False):
        keras.utils.save_img(path, sign * image * 127.5 + 127.5, scale=False)
    command = [sys.executable, RECIPE, "--load", trained[0] / "model.keras"]
    done = subprocess.run(
        [*command, "--read", *paths],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("│") for line in done.stdout.splitlines() if ".png" in line]
    assert [int(row[2]) for row in rows] == answers.tolist()


def test_splits_share_no_image(recipe):
    parts = recipe.load_splits(recipe.parse_arguments(["--task", "digits"]))
    pictures = [set(image.tobytes() for image in images) for images, _ in parts]
    assert len(set.union(*pictures)) == sum(len(images) for images, _ in parts) == 1797
    for images, labels in parts:
        assert images.shape[1:] == (8, 8, 1)
        assert images.min() == -1 and images.max() == 1
        assert set(labels) == set(range(10))


def test_splits_of_mnist_share_no_image(recipe, data_set):
    folder = data_set("mnist").parent
    parts = recipe.load_splits(recipe.parse_arguments(["--data", str(folder)]))
    pictures = [set(image.tobytes() for image in images) for images, _ in parts]
    assert [len(images) for images, _ in parts] == [55_000, 5_000, 10_000]
    assert len(set.union(*pictures)) == 70_000
    for _, labels in parts:  # the file is sorted by class
        assert np.bincount(labels).min() > len(labels) / 10 * 0.8


def test_attention_of_the_class_token_is_returned(recipe):
    model = kseq.vision_transformer(
        (6, 6, 1), 2, 10, width=8, num_layers=2, num_heads=2
    )
    encoder = model.get_layer("encoder")
    images = np.random.default_rng(3).normal(size=(5, 6, 6, 1)).astype("float32")
    # Keys of zeros make the attention even: a tenth for each of the ten steps.
    for weight in encoder.weights:
        if "key" in weight.path:
            weight.assign(np.zeros(weight.shape))
    weights = recipe.class_token_attention(model, images)
    np.testing.assert_allclose(weights, np.full((5, 3, 3), 0.1), atol=1e-6)


def test_images_are_shifted_by_at_most_one_pixel_and_keep_their_labels(recipe):
    options = recipe.parse_arguments(["--batch-size", "4"])
    images = np.zeros((11, 5, 5, 1), "float32")
    images[np.arange(11), 2, 2] = np.arange(11)[:, None] + 1
    batches = recipe.ShiftedBatches(images, np.arange(11), options)
    seen, places = [], set()
    for _ in range(20):
        for batch, labels in (batches[i] for i in range(len(batches))):
            assert (batch.max(axis=(1, 2, 3)) == labels + 1).all()
            seen += labels.tolist()
            places |= set(zip(*np.nonzero(batch)[1:3], strict=True))
    assert np.bincount(seen).tolist() == [20] * 11
    assert places == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3)}


def test_error_names_an_unreadable_image(recipe, trained, tmp_path):
    load = ["--load", str(trained[0] / "model.keras")]
    with pytest.raises(SystemExit, match="nowhere.png"):
        recipe.main([*load, "--read", str(tmp_path / "nowhere.png")])
    (tmp_path / "no.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit, match="--read needs picture files"):
        recipe.main([*load, "--read", str(tmp_path / "no.png")])


def test_rejects_missing_damaged_and_foreign_models(recipe, tmp_path):
    path = tmp_path / "model.keras"
    flags = ["--load", str(path), "--read", "a.png"]
    with pytest.raises(SystemExit, match="cannot be read"):
        recipe.main(flags)
    path.write_bytes(b"not a model")
    with pytest.raises(SystemExit, match="cannot be read"):
        recipe.main(flags)
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(SystemExit, match="must hold a model of this recipe"):
        recipe.main(flags)


@pytest.mark.parametrize(
    "arguments",
    [["--task", "cifar"], ["--epochs", "0"], ["--load", "a"], ["--patch", "3"]],
)
def test_rejects_invalid_arguments(recipe, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(arguments)
    assert error.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_error_names_a_folder_without_the_data(recipe, tmp_path):
    with pytest.raises(SystemExit, match="must be in"):
        recipe.main(["--data", str(tmp_path)])


@pytest.mark.thorough
@pytest.mark.slow
def test_quick_runs_on_mnist(recipe, data_set, tmp_path, capsys):
    folder = data_set("mnist").parent
    flags = ["--data", str(folder), "--output", str(tmp_path), *SMALL, "--quick"]
    recipe.main(flags)
    printed = capsys.readouterr().out
    assert (
        "5,500 pictures for training, 500 for validation, 1,000 for testing" in printed
    )
    assert "are meaningless" in printed and (tmp_path / "model.keras").exists()
