"""The rule that no docstring begins with a question word."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUESTIONS = {"What", "How", "Where", "Which", "Whether", "Who", "When", "Why"}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def questions(path):
    """Yield the places of docstrings that begin with a question word."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        text = isinstance(node, DOCUMENTED) and ast.get_docstring(node)
        if text and text.split()[0] in QUESTIONS:
            yield f"{path}:{getattr(node, 'lineno', 1)}: {text.splitlines()[0]}"


def test_no_docstring_begins_with_a_question():
    paths = [*(ROOT / "kseq").rglob("*.py"), *(ROOT / "recipes").glob("*.py")]
    assert [line for path in sorted(paths) for line in questions(path)] == []


def test_a_docstring_with_a_question_is_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('"""A module."""\n\ndef f():\n    """What f does."""\n')
    assert [line.partition("module.py:")[2] for line in questions(path)] == [
        "3: What f does."
    ]
