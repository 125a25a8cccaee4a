"""Searches from code that no other process can import: notebook, prompt and pipe."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CELLS = json.loads(Path(__file__).with_name("search.ipynb").read_text("utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
KERNEL = """
import sys
for cell in sys.stdin.read().split("#" * 20):  # as a kernel runs them
    exec(compile(cell, "<cell>", "exec"), vars(sys.modules["__main__"]))
"""


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("kind", ["command", "pipe", "notebook"])
def test_search_runs_from_code_without_a_file(kind, tmp_path):
    program = "\n".join(CODE)
    given = {"notebook": ("#" * 20).join(CODE), "pipe": program, "command": ""}[kind]
    options = {"notebook": ["-c", KERNEL], "pipe": [], "command": ["-c", program]}[kind]
    done = subprocess.run(
        [sys.executable, *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=given,
        text=True,
        capture_output=True,
    )
    assert done.stdout.splitlines()[-1:] == ["True"], done.stderr


SCRIPT = """
from kseq.tuning import search
from tests.tuning.searches import Instant

if {guard}:
    search(Instant(), directory="search", max_trials=1, verbose=False)
    print("searched")
"""


@pytest.mark.thorough
def test_a_script_needs_a_guard_around_its_search(tmp_path):
    script = tmp_path / "script.py"
    outputs = []
    for guard in ("True", '__name__ == "__main__"'):
        script.write_text(SCRIPT.format(guard=guard))
        done = subprocess.run(
            [sys.executable, script],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
            capture_output=True,
        )
        outputs.append(done.stdout + done.stderr)
    advice = 'A script that searches needs `if __name__ == "__main__":` around the call'
    assert advice in outputs[0]
    assert "searched" in outputs[1].splitlines() and advice not in outputs[1]


GUARDED = """
from kseq.tuning import search
from tests.tuning.searches import Instant

{above}
if __name__ == "__main__":
    {under}
    search(Inner(), directory="search", max_trials=1, verbose=False)
    print("searched")
"""


@pytest.mark.thorough
def test_a_function_under_the_guard_is_named(tmp_path):
    script, inner = tmp_path / "script.py", "class Inner(Instant): pass"
    outputs = []
    for above, under in (("", inner), (inner, "")):
        script.write_text(GUARDED.format(above=above, under=under))
        done = subprocess.run(
            [sys.executable, script],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
            capture_output=True,
        )
        outputs.append(done.stdout + done.stderr)
    assert "Move `Inner` to the top of the script" in outputs[0]
    assert "searched" in outputs[1].splitlines()
