"""Type annotations of kseq: complete, packaged and usable."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def definitions(tree):
    """Yield the functions of a module and the methods of its classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, False
        elif isinstance(node, ast.ClassDef):
            for function, _ in definitions(node):
                names = {getattr(x, "id", None) for x in function.decorator_list}
                yield function, "staticmethod" not in names


def unannotated(path):
    """Return a line for each function that lacks an annotation, and what it lacks."""
    lines = []
    for function, is_method in definitions(ast.parse(path.read_text("utf-8"))):
        given = function.args
        arguments = [*given.posonlyargs, *given.args][is_method:] + given.kwonlyargs
        arguments += [x for x in (given.vararg, given.kwarg) if x]
        missing = [x.arg for x in arguments if x.annotation is None]
        missing += ["return"] if function.returns is None else []
        if missing:
            lines.append(f"{path}:{function.lineno}: {', '.join(missing)}")
    return lines


def test_every_function_is_annotated():
    found = [unannotated(path) for path in sorted((ROOT / "kseq").rglob("*.py"))]
    assert sum(found, []) == []


def test_missing_annotations_are_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "def f(x, *, y: int) -> int:\n  def g(z): ...\n"
        "class A:\n  def m(self, a: int, **rest): ...\n"
        "  @staticmethod\n  def s(b) -> None: ...\n"
    )
    found = [line.partition("module.py:")[2] for line in unannotated(path)]
    assert found == ["1: x", "4: rest, return", "6: b"]


def test_type_checkers_see_the_annotations():
    assert (ROOT / "kseq/py.typed").exists()
    assert "kseq = py.typed" in (ROOT / "setup.cfg").read_text("utf-8")


GUIDES = "docs/guides/*.md"


def test_pyright_finds_no_error_in_the_code_of_the_pages(tmp_path):
    """Pyright infers the types of Keras in the code of README and guides."""
    pytest.importorskip("basedpyright")
    for page in [ROOT / "README.md", ROOT / "docs/start.md", *ROOT.glob(GUIDES)]:
        blocks = re.findall(
            r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S
        )
        (tmp_path / f"{page.stem}.py").write_text("\n\n".join(blocks), "utf-8")
    settings = {"typeCheckingMode": "basic", "extraPaths": [str(ROOT)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson"]
    command += ["--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    found = json.loads(done.stdout)["generalDiagnostics"]
    assert [x["message"] for x in found if x["severity"] == "error"] == []
