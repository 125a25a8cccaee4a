"""Smoke test of an installed kseq: the example of `docs/package.md` (`make dist`)."""

import pathlib
import re

import kseq

if __name__ == "__main__":  # doctest imports it too
    root = pathlib.Path(__file__).parents[1]
    assert not pathlib.Path(kseq.__file__).is_relative_to(root / "kseq")
    page = (root / "docs/package.md").read_text(encoding="utf-8")
    [example] = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    exec(compile(example, "package.md", "exec"), {})
    print(f"kseq {kseq.__version__} works: {kseq.__file__}")
