"""What all recipes have in common, so that who knows one knows the others."""

import importlib.util
from pathlib import Path

import pytest

RECIPES = sorted(Path(__file__).parents[2].glob("recipes/*.py"))


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def recipe(request):
    spec = importlib.util.spec_from_file_location(request.param.stem, request.param)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_help_shows_the_story_and_the_common_flags(recipe, capsys):
    with pytest.raises(SystemExit) as error:
        recipe.main(["--help"])
    assert error.value.code == 0
    printed = capsys.readouterr().out
    assert recipe.__doc__.splitlines()[0] in printed
    for flag in ("--output", "--seed", "--quick"):
        assert flag in printed


def test_an_output_that_is_a_file_is_refused_at_once(recipe, tmp_path, capsys):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(SystemExit) as error:
        recipe.main(["--output", str(tmp_path / "mine")])
    assert error.value.code == 2
    assert "mine is a file" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_recipe_is_short_enough_to_read(recipe):
    assert len(Path(recipe.__file__).read_text("utf-8").splitlines()) < 250


@pytest.mark.parametrize("number", ["0", "-1", "nan", "few"])
def test_a_number_that_is_none_is_refused_by_the_name_of_its_flag(
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
