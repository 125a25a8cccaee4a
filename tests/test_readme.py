"""Code and commands in README.md and the guides."""

import ast
import builtins
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUARD = 'if __name__ == "__main__":'
PAGES = [*(ROOT / "docs/guides").glob("*.md"), *(ROOT / "docs/ko").glob("*.md")]
PACKAGE = ROOT / "docs/package.md"  # the page of a package index
GUIDES = sorted([ROOT / "docs/start.md", PACKAGE, *PAGES])


def blocks(markdown):
    return re.findall(r"^```python\n(.*?)^```", markdown, re.M | re.S)


def python_blocks(markdown):
    """Return the ```python blocks as one program with the line numbers of the page.

    Blocks that start processes are left out: each process would run the whole program.
    """
    program = re.sub(r"^.+$", "", markdown, flags=re.M).split("\n")
    for block in blocks(markdown):
        if GUARD not in block:
            first = markdown[: markdown.index(block)].count("\n")
            lines = block.splitlines()
            program[first : first + len(lines)] = lines
    return "\n".join(program)


def make_targets_named(markdown):
    """Return the words that follow `make` in code: blocks, indented lines, inline."""
    form = r"^```.*?^```|^ {4}[^\n]*|`[^`\n]+`"
    code = "\n".join(re.findall(form, markdown, re.M | re.S))
    return set(re.findall(r"^\W*make ([a-z][a-z-]*)", code, re.M))


def unbound_names(program):
    """Return the names that a program reads but does not define or import."""
    bound, read = set(dir(builtins)), set()
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.FunctionDef):
            bound.add(node.name)
    return read - bound


@pytest.fixture
def readme():
    path = ROOT / "README.md"
    assert path.exists(), "README.md is missing"
    return path.read_text(encoding="utf-8")


def test_the_examples_run_in_order_without_a_warning(readme, tmp_path, monkeypatch):
    program = python_blocks(readme)
    assert program.strip(), "README.md has no ```python block to run"
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {"__name__": "README"})


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_the_examples_of_a_guide_run_and_can_be_copied_alone(
    path, tmp_path, monkeypatch
):
    page = path.read_text(encoding="utf-8")
    for block in blocks(page):
        assert unbound_names(block) == set(), block
    monkeypatch.chdir(tmp_path)
    exec(compile(python_blocks(page), path.name, "exec"), {"__name__": path.stem})
    for picture in re.findall(r"!\[.*?\]\(images/(.*?)\)", page):
        assert (path.parent / "images" / picture).exists()
        assert (tmp_path / picture).stat().st_size, "the page draws what it shows"


def test_every_line_of_the_table_from_tfa_runs(tmp_path, monkeypatch):
    [path] = (path for path in GUIDES if path.stem == "from_tfa_seq2seq")
    page = path.read_text(encoding="utf-8")
    namespace = {"__name__": path.stem}
    monkeypatch.chdir(tmp_path)
    exec(compile(python_blocks(page), path.name, "exec"), namespace)
    rows = re.findall(r"^\| [^|]* \| [^|]* \| `([^|]+)` \|$", page, re.M)
    assert len(rows) > 20
    for line in rows:
        exec(compile(line, line, "exec"), namespace)


@pytest.mark.thorough
@pytest.mark.parametrize("path", [ROOT / "README.md", *GUIDES], ids=lambda p: p.stem)
def test_an_example_that_starts_processes_runs_as_a_script(
    path, tmp_path, pytestconfig
):
    page = path.read_text(encoding="utf-8")
    warnings = [f"-W{rule}" for rule in pytestconfig.getini("filterwarnings")]
    for block in (block for block in blocks(page) if GUARD in block):
        (tmp_path / "script.py").write_text(block, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, *warnings, "script.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_example_can_be_copied_alone(readme):
    for block in blocks(readme):
        assert unbound_names(block) == set(), block


def test_a_name_of_another_block_is_unbound():
    block = "import a.b\nx = a.b(y)\n[z for z in x if len(z)]\ndef f(v):\n  f(v)\n"
    assert unbound_names(block) == {"y"}


def test_the_package_page_has_no_link_into_the_repository():
    assert re.findall(r"\]\((?!https://)", PACKAGE.read_text(encoding="utf-8")) == []


def test_make_targets_in_the_readme_exist(readme):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))
    assert {"demo", "test"} <= make_targets_named(readme) <= targets


def test_blocks_keep_their_line_numbers():
    page = "words\n```python\nx = 1\n```\n```sh\nls\n```\n```python\ny = x\n```\n"
    assert python_blocks(page).rstrip() == "\n\nx = 1\n\n\n\n\n\ny = x"


def test_make_targets_are_found_only_in_code():
    page = "Run `make demo`, or\n```\nmake test\n```\n    make lint\nmake sure."
    assert make_targets_named(page) == {"demo", "test", "lint"}
