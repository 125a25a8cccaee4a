"""The dtype of integers: int32 with floats of any precision."""

import ast
from pathlib import Path

import kseq


def test_every_arange_has_an_explicit_dtype():
    """Without a dtype, `arange` returns int64 on TensorFlow if floats are float64."""
    for path in Path(kseq.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_call = isinstance(node, ast.Call)
            if is_call and ast.unparse(node.func).endswith("ops.arange"):
                has_dtype = any(keyword.arg == "dtype" for keyword in node.keywords)
                assert has_dtype, f"{path}:{node.lineno}: {ast.unparse(node)}"
