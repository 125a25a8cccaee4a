"""Whole numbers: int32, whatever the precision of the floats."""

import ast
from pathlib import Path

import kseq


def test_whole_numbers_have_a_dtype_of_their_own():
    """Without one `arange` gives int64 on TensorFlow where floats are float64."""
    for path in Path(kseq.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_call = isinstance(node, ast.Call)
            if is_call and ast.unparse(node.func).endswith("ops.arange"):
                has_dtype = any(keyword.arg == "dtype" for keyword in node.keywords)
                assert has_dtype, f"{path}:{node.lineno}: {ast.unparse(node)}"
