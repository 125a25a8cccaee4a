import ast
import re
from pathlib import Path

import kseq
from kseq.tuning.trials.layout import TrialDirectory

TUNING = Path(kseq.__file__).parent / "tuning"
FILE_NAME = re.compile(r"\.(json|npz|h5|keras|txt)$")


def test_file_names_are_only_in_the_layout_module():
    named = {
        path.name
        for path in TUNING.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and FILE_NAME.search(str(node.value))
    }
    assert named == {"layout.py"}


def test_files_of_calls_are_distinct_from_files_of_the_trial(tmp_path):
    files = TrialDirectory(tmp_path)
    for path in (files.weights, files.weights_of_call(1), files.weights_of_call(0)):
        path.touch()
    for number in (1, 0):
        files.checkpoint(number).touch()
    assert files.weights_of_calls() == [files.weights_of_call(i) for i in (0, 1)]
    assert files.checkpoints() == [files.checkpoint(i) for i in (0, 1)]
