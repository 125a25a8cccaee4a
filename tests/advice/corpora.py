"""Files of text: bad calls, what their messages advise, and calls that do it."""

import functools
import pathlib

from kseq.corpora import generate_file
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


ADVICE = {
    "a target of another call": (
        write_another,
        "Name another, or pass `overwrite=True`.",
        lambda: (write_another(overwrite=True), write("another.txt")),
    ),
}
