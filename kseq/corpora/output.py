"""The output of a call: a folder of blocks, and finally one file and its report."""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from kseq.typing import PathLike


@dataclasses.dataclass(frozen=True)
class WrittenFile:
    """The report of a file that was written line by line.

    Attributes:
        lines: The number of lines.
        tokens: The number of tokens in the lines, or of labels or scores.
        bad: The errors of failed lines by line number, from 1. Failed lines are empty
            in the file.

    Example: see `generate_file`.
    """

    lines: int
    tokens: int
    bad: dict[int, str]


class Output:
    """The files that a call writes.

    Args:
        target: The file to write.
        settings: The settings that identify the call, a dictionary for JSON.
    """

    def __init__(self, target: PathLike, settings: dict[str, Any]) -> None:
        self.target = Path(target)
        self.settings = settings
        self.file_of_report = Path(f"{target}.json")
        self.folder = Path(f"{target}.blocks")
        self.file_of_settings = self.folder / "settings.json"

    def is_finished(self) -> bool:
        """Tell whether the same call was completed before."""
        found = read_json(self.file_of_report) or {}
        return self.target.exists() and found.get("settings") == self.settings

    def report(self) -> WrittenFile:
        """Return the report, and delete the blocks."""
        shutil.rmtree(self.folder, ignore_errors=True)
        found = read_json(self.file_of_report)
        bad = {int(number): reason for number, reason in found["bad"].items()}
        return WrittenFile(found["lines"], found["tokens"], bad)

    def prepare(self, overwrite: bool) -> None:
        """Create the folder of blocks.

        If there is a target, or blocks of another call, delete them with `overwrite`,
        and raise without.
        """
        found = read_json(self.file_of_settings)
        is_another = found is not None and found != self.settings
        if not overwrite and (is_another or self.target.exists()):
            raise ValueError(
                "`target` must be new, or written by the same call. Received: "
                f"target={str(self.target)!r}, from another pipeline, source, search "
                "or option. Use another name, or pass `overwrite=True`."
            )
        self.target.unlink(missing_ok=True)
        if is_another:
            shutil.rmtree(self.folder)
        self.folder.mkdir(exist_ok=True)
        write_json(self.file_of_settings, self.settings)

    def block(self, number: int) -> str:
        """Return the file name of a block."""
        return str(self.folder / f"{number}.json")

    def present(self) -> set[int]:
        """Return the numbers of the blocks that exist."""
        names = (Path(name) for name in os.listdir(self.folder))
        return {
            int(n.stem) for n in names if n.stem.isdecimal() and n.suffix == ".json"
        }

    def assemble(self, number_of_blocks: int) -> WrittenFile:
        """Join the blocks to the target, delete them, and return the report."""
        lines, tokens = 0, 0
        bad: dict[int, str] = {}
        with replacing(self.target) as file:
            for number in range(number_of_blocks):
                block = read_json(self.block(number))
                file.writelines(f"{text}\n" for text in block["texts"])
                bad |= {lines + 1 + int(n): why for n, why in block["bad"].items()}
                lines += len(block["texts"])
                tokens += block["tokens"]
            report = {"lines": lines, "tokens": tokens, "bad": bad}
            write_json(self.file_of_report, report | {"settings": self.settings})
        return self.report()


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[TextIO]:
    """Open a temporary text file that replaces `path` once it is complete on disk."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: PathLike, value: Any) -> None:
    """Write a JSON file atomically."""
    with replacing(path) as file:
        json.dump(value, file)


def read_json(path: PathLike) -> Any:
    """Return the content of a JSON file, or None if the file does not exist."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None
