"""Files: bad calls, their advice, and corrected calls.

Advice about downloaded files is tested in tests/datasets/test_datasets.py.
"""

import subprocess
from pathlib import Path

from kseq.datasets import read_tagged, read_text


def read(content, encoding=None):
    """Read a file of these bytes, which iconv first converts from an encoding."""
    path = Path("my own.txt")
    path.write_bytes(content)
    if encoding:
        command = f"iconv -f {encoding} -t UTF-8 'my own.txt' > 'my own.txt.utf8'"
        subprocess.run(command, shell=True, check=True)
        path = Path("my own.txt.utf8")
    text = read_text(path)
    assert "good 좋다" in text or "café" in text


def tagged(content):
    path = Path("tags.txt")
    path.write_text(content, "utf-8")
    assert read_tagged(path) == ([["to", "Rome"], ["hi"]], [["O", "city"], ["O"]])


ADVICE = {
    "JSON in place of words with labels": (
        lambda: tagged('{"words": ["to", "Rome"], "labels": ["O", "city"]}\n'),
        "Write a line `word<TAB>label` for each word, and a blank line after each "
        "sentence.",
        lambda: tagged("to\tO\nRome\tcity\n\nhi\tO\n"),
    ),
    "a file in Latin 1": (
        lambda: read("café".encode("latin-1")),
        "Convert it: iconv -f ITS_ENCODING -t UTF-8 'my own.txt' > 'my own.txt.utf8'.",
        lambda: read("café".encode("latin-1"), "LATIN1"),
    ),
    "a file in UTF-16": (
        lambda: read("good".encode("utf-16-le")),
        "If the file is in UTF-16, convert it to UTF-8: iconv -f UTF-16 -t UTF-8 "
        "'my own.txt' > 'my own.txt.utf8'.",
        lambda: read("good 좋다".encode("utf-16-le"), "UTF-16"),
    ),
}
