"""Files of text: bad calls, their advice, and corrected calls."""

import functools
import pathlib

from kseq.corpora import Lines, encode_file, generate_file
from kseq.text import Vocabulary
from tests.advice.eagerly import eagerly
from tests.advice.text import translator


@functools.cache
def saved(folder):
    translator().save(folder / "writer.keras")
    (folder / "source.txt").write_text("Anna works\n")


def write(target="target.txt", max_length=3, **options):
    saved(pathlib.Path.cwd())
    options |= {"max_length": max_length, "verbose": False}
    with eagerly():
        return generate_file("writer.keras", "source.txt", target, **options)


def write_another(*args, **options):
    write()
    return write(*args, max_length=2, **options)


LETTERS = Vocabulary("character").adapt(["Anna works"])


def encode(source, target="ids", **options):
    return encode_file(LETTERS, source, target, **options)


def encode_another(*args, **options):
    encode(["Anna"])
    return encode(["works"], *args, **options)


ADVICE = {
    "texts that can be read only once": (
        lambda: encode(iter(["Anna"])),
        "Use `Lines(paths)`, a list, or an object whose `__iter__` starts from the "
        "beginning.",
        lambda: (
            saved(pathlib.Path.cwd()),
            encode(Lines(["source.txt"])),
            encode(["Anna"], "others"),
        ),
    ),
    "a folder of another call": (
        encode_another,
        "Use another name, or pass `overwrite=True`, which replaces a folder that "
        "`encode_file` has written.",
        lambda: (encode_another("others"), encode_another(overwrite=True)),
    ),
    "a target of another call": (
        write_another,
        "Use another name, or pass `overwrite=True`.",
        lambda: (write_another(overwrite=True), write("another.txt")),
    ),
}
