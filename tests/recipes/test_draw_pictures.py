"""The recipe `draw_pictures.py`, with a few small pictures."""

import contextlib
import importlib.util
import io
import pathlib
import re
import textwrap

import numpy as np
import pytest
from PIL import Image

import kseq

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "draw_pictures.py"
COLOURS = {"red": (220, 30, 30), "green": (20, 160, 40), "blue": (30, 60, 230)}


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("draw_pictures", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of squares in 3 colours and 8 sizes, with markup in captions."""
    folder = tmp_path_factory.mktemp("squares")
    lines = []
    for colour, pixels in COLOURS.items():
        for size in range(8, 24, 2):
            picture = np.full((32, 32, 3), 255, "uint8")
            picture[:size, :size] = pixels
            name = f"{colour}{size}.png"
            Image.fromarray(picture).save(folder / name)
            lines.append(f"{name}\t{colour} square [/a] {size}")
    (folder / "captions.tsv").write_text("\n".join(lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(recipe, folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("output")
    command = ["--quick", "--folder", str(folder), "--output", str(output)]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        recipe.main([*command, "--guidance", "2"])
    return output, printed.getvalue()


def test_prints_scores_of_tokens_and_pictures(trained):
    _, printed = trained
    assert "22 pictures for training, 2 for testing" in printed
    assert "of 4,375 codes are used" in printed and "are meaningless" in printed
    rows = ["tokens of the true picture", "greedy", "greedy, guidance 2"]
    for row in [*rows, "best of 2 samples, by matcher"]:
        assert row in printed


def test_saves_models_and_pictures(trained):
    output, _ = trained
    names = {path.name for path in output.glob("*.*")}
    pictures = {"reconstructed.png", "sheet.png", "attention.png", "training.png"}
    assert names >= {
        "tokenizer.keras",
        "drawer.keras",
        "matcher.keras",
        "filling.gif",
        *pictures,
    }
    with Image.open(output / "filling.gif") as film:
        assert film.n_frames == 9


def test_a_saved_drawer_draws_custom_captions(recipe, trained):
    output, _ = trained
    command = ["--load", str(output / "drawer.keras"), "--output", str(output)]
    recipe.main([*command, "--captions", "red square", "[b]", "--draws", "2"])
    assert (output / "drawn.png").read_bytes().startswith(b"\x89PNG")


def test_the_code_of_the_recipes_page_draws_a_picture(trained, tmp_path, monkeypatch):
    output, _ = trained
    (tmp_path / "pictures").symlink_to(output)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/recipes.md").read_text("utf-8")
    [block] = re.findall(r"(?m)^    drawer = .*\n(?:    .*\n)+", page)
    exec(textwrap.dedent(block), {"kseq": kseq})
    with Image.open("heart.png") as picture:
        assert picture.size == (256, 256)


@pytest.mark.parametrize(
    "command, message",
    [
        ("--guidance nan", "non-negative number. Received: nan"),
        ("--guidance 2 --caption-dropout 0", "needs a --caption-dropout above 0"),
        ("--captions cat", "--captions needs --load"),
        ("--folder a --mnist", "not allowed with"),
        ("--load a --mnist", "not allowed with"),
        ("--load a --epochs 3", "--epochs is for training"),
        ("--folder a --language ko", "captions are your own"),
        ("--tokenizer a --tokenizer-width 8", "for a new tokenizer"),
        ("--output=", "must be a folder. Received: nothing"),
    ],
)
def test_rejects_invalid_options_and_options_without_effect(
    recipe, capsys, command, message
):
    with pytest.raises(SystemExit):
        recipe.parse_arguments(command.split())
    assert message in capsys.readouterr().err


def test_quick_keeps_explicit_options(recipe):
    options = recipe.parse_arguments("--quick --epochs 9 --width 256".split())
    assert (options.epochs, options.width, options.layers) == (9, 256, 1)


def test_rejects_an_empty_caption(recipe, trained):
    output, _ = trained
    command = ["--load", str(output / "drawer.keras"), "--output", str(output)]
    with pytest.raises(SystemExit, match="at least one token"):
        recipe.main([*command, "--captions", ""])


def test_a_sheet_shows_long_and_equal_captions(recipe):
    pictures = np.zeros((2, 4, 4, 1))
    rows = [
        ("a very long caption " * 9, pictures),
        ("red", pictures),
        ("red", pictures),
    ]
    figure = recipe.draw_sheet(rows, titles=["one", "two"])
    assert len(figure.axes) == 6 and figure.axes[1].get_title() == "two"
    names = [figure.axes[place].texts[0].get_text() for place in (0, 2, 4)]
    assert max(map(len, names[0].split("\n"))) <= 30 and names[1:] == ["red", "red"]


def test_pictures_with_the_same_caption_are_equally_right(recipe):
    train = {"captions": ["zero", "one"], "tones": ["", ""]}
    test = {"captions": ["one", "zero"], "tones": ["", ""]}
    assert recipe.right_shares(np.array([1, 2]), train, test) == {"same caption": 0.5}


def test_held_out_pictures_are_not_trained_with_other_captions(
    recipe, folder, tmp_path
):
    own = tmp_path / "own"
    own.mkdir()
    lines = []
    for place, path in enumerate(sorted(folder.glob("*.png"))):
        (own / path.name).write_bytes(path.read_bytes())
        lines += [f"{path.name}\t{place} {word}" for word in ("a", "b")]
    (own / "captions.tsv").write_text("\n".join(lines), "utf-8")
    train, test = recipe.load_data(recipe.parse_arguments(["--folder", str(own)]))
    numbers = [{x.split()[0] for x in part["captions"]} for part in (train, test)]
    assert len(test["captions"]) == 4 and not numbers[0] & numbers[1]


def test_the_nearest_real_picture_and_decibels_are_computed(recipe):
    real = np.random.default_rng(0).random((7, 4, 4, 3), "float32")
    near = recipe.nearest(real[[5, 2]] + 0.01, real)
    assert near.tolist() == [5, 2]
    assert recipe.decibels(real + 0.1, real).round(3).tolist() == [20.0] * 7


@pytest.mark.parametrize(
    "lines, message",
    [
        (None, "captions.tsv"),
        ("a.png\tx\n" + "red8.png\t{}\n" * 20, "same as line 2"),
        (
            "a.png\tx\n" + "".join(f"red8.png\t{i}\n" for i in range(20)),
            "line 1 of .*a.png",
        ),
        ("red8.png\tx\nred8.png\ty\n", "at least 20 lines"),
        ("".join(f"red8.png\t{i}\n" for i in range(20)), "pictures that differ"),
    ],
)
def test_rejects_an_invalid_folder_and_writes_nothing(
    recipe, folder, tmp_path, lines, message
):
    own = tmp_path / "own"
    own.mkdir()
    (own / "red8.png").write_bytes((folder / "red8.png").read_bytes())
    if lines:
        (own / "captions.tsv").write_text(lines)
    with pytest.raises(SystemExit, match=message):
        recipe.main(["--folder", str(own), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_of_an_earlier_run_can_be_loaded(recipe, trained, folder):
    output, _ = trained
    train, _ = recipe.load_data(recipe.parse_arguments(["--folder", str(folder)]))
    tokenizer = recipe.load_tokenizer(output / "tokenizer.keras", train)
    assert tokenizer.num_codes == 4375


@pytest.mark.parametrize("file", ["drawer.keras", "sheet.png", "missing.keras"])
def test_rejects_a_file_that_is_not_a_tokenizer(recipe, trained, folder, file):
    output, _ = trained
    train, _ = recipe.load_data(recipe.parse_arguments(["--folder", str(folder)]))
    with pytest.raises(SystemExit, match="Leave out --tokenizer"):
        recipe.load_tokenizer(output / file, train)


def test_rejects_a_tokenizer_of_other_pictures(recipe, trained):
    output, _ = trained
    train = {"pictures": np.zeros((1, 32, 32, 1))}
    with pytest.raises(SystemExit, match=r"pictures \(32, 32, 1\)"):
        recipe.load_tokenizer(output / "tokenizer.keras", train)
