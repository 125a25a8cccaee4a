"""Notebooks: their code runs, and their outputs are saved."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
LONG = ["draw_pictures"]  # trains for two minutes


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def cells(request):
    return cells_of(request.param)


def cells_of(path):
    return json.loads(path.read_text("utf-8"))["cells"]


def code_of(cells):
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_all_notebooks_exist():
    assert [path.stem for path in NOTEBOOKS] == [
        "draw_pictures",
        "formulas",
        "read_a_word",
    ]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.thorough] * (path.stem in LONG))
        for path in NOTEBOOKS
    ],
    ids=lambda path: path.stem,
)
def test_a_notebook_runs_from_top_to_bottom_without_a_warning(
    path, tmp_path, monkeypatch
):
    lines = "\n".join(code_of(cells_of(path))).splitlines()
    program = "\n".join(line for line in lines if not line.startswith("%"))
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "cells", "exec"), {"__name__": "cells"})


def test_a_notebook_is_saved_with_its_outputs(cells):
    outputs = [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]
    assert any(outputs), "run it before you save it"
    for output in sum(outputs, []):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", "leave out what goes to the terminal"


def test_cells_are_saved_without_metadata(cells):
    for cell in cells:
        assert cell["metadata"] == {}, "leave out what an editor has added"
