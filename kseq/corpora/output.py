"""The output of a call: blocks in a folder, and at last one file with a report."""

import contextlib
import dataclasses
import json
import os
import shutil
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class WrittenFile:
    """The report of a file that was written line by line.

    Attributes:
        lines: The number of lines.
        tokens: The number of tokens in them, or of labels or scores.
        bad: What was wrong with lines for which nothing could be written, by their
            number; the first line is 1. They are empty in the file.

    Example: see `generate_file`.
    """

    lines: int
    tokens: int
    bad: dict


class Output:
    """The files that a call writes.

    Args:
        target: The file to write.
        settings: What makes the call this one, as a dictionary that JSON can hold.
    """

    def __init__(self, target, settings):
        self.target = Path(target)
        self.settings = settings
        self.file_of_report = Path(f"{target}.json")
        self.folder = Path(f"{target}.blocks")
        self.file_of_settings = self.folder / "settings.json"

    def is_finished(self):
        """Tell whether this call has been made before, to its end."""
        found = read_json(self.file_of_report) or {}
        return self.target.exists() and found.get("settings") == self.settings

    def report(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        found = read_json(self.file_of_report)
        bad = {int(number): reason for number, reason in found["bad"].items()}
        return WrittenFile(found["lines"], found["tokens"], bad)

    def prepare(self, overwrite):
        """Makes room, if nothing is lost by that or it may be."""
        found = read_json(self.file_of_settings)
        is_another = found is not None and found != self.settings
        if not overwrite and (is_another or self.target.exists()):
            raise ValueError(
                "`target` must be new, or what the same call has written. Received: "
                f"target={str(self.target)!r}, from another pipeline, source, search "
                "or option. Name another, or pass `overwrite=True`."
            )
        self.target.unlink(missing_ok=True)
        if is_another:
            shutil.rmtree(self.folder)
        self.folder.mkdir(exist_ok=True)
        write_json(self.file_of_settings, self.settings)

    def block(self, number):
        return str(self.folder / f"{number}.json")

    def present(self):
        """The numbers of the blocks that are there."""
        names = (Path(name) for name in os.listdir(self.folder))
        return {
            int(n.stem) for n in names if n.stem.isdecimal() and n.suffix == ".json"
        }

    def assemble(self, number_of_blocks):
        """Joins the blocks, and deletes them."""
        lines, tokens, bad = 0, 0, {}
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
def replacing(path):
    """A text file that takes the place of `path` when it is whole and on the disk."""
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path, value):
    with replacing(path) as file:
        json.dump(value, file)


def read_json(path):
    """Returns what the file holds, or None if there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return None
