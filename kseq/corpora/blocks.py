"""Blocks of lines: what one task reads, writes and leaves behind.

A block is a file that is whole or absent, so it does not matter how often it is begun.
"""

import functools
import os
import pickle
import threading

from kseq.corpora.lines import text_of
from kseq.corpora.output import write_json
from kseq.text import TextToText

# As text, so that nobody on its way, such as the scheduler of Dask, imports Keras.
TASK = "__import__('kseq.corpora.blocks', fromlist=['run']).run(packed)"
ONE_AT_A_TIME = threading.Lock()  # in a process, which one model fills


def run(packed):
    """Writes a block for arguments of `write_block` that were pickled."""
    with ONE_AT_A_TIME:
        return write_block(**pickle.loads(packed))


def write_block(pipeline, source, start, count, target, batch_size, options):
    """Writes a text for each of some lines of a file.

    Args:
        pipeline: The `.keras` file of a `TextToText`, loaded once in each process.
        source: The file of lines.
        start: The byte at which the first line begins.
        count: How many lines to read.
        target: The file to write: texts, the tokens in them, and what was wrong with
            lines, by their place in the block.
        batch_size: How many lines, of like length, to write at once.
        options: Arguments of the pipeline's `generate`.

    Returns:
        The number of tokens written.

    Raises:
        ValueError: No line could be written.
    """
    model = loaded(pipeline, os.stat(pipeline).st_mtime_ns)
    lines, bad = read_lines(source, start, count)
    texts, tokens = [""] * count, 0
    order = sorted(lines, key=lambda number: len(lines[number]))
    for first in range(0, len(order), batch_size):
        numbers = order[first : first + batch_size]
        batch = write(model, [lines[number] for number in numbers], options)
        for number, best in zip(numbers, batch, strict=True):
            if isinstance(best, Exception):
                bad[number] = f"{type(best).__name__}: {best}"
            else:
                texts[number] = one_line(best.text)
                tokens += len(best.tokens)
    if len(bad) == count > 1:
        raise ValueError(
            "`source` must have lines that the pipeline can read. Received: "
            f"source={source!r}, with none of {count} lines from byte {start} on that "
            f"it can, one because of {bad.popitem()[1]}."
        )
    write_json(target, {"texts": texts, "tokens": tokens, "bad": bad})
    return tokens


@functools.lru_cache(maxsize=1)
def loaded(path, modified):
    return TextToText.load(path)


def read_lines(path, start, count):
    """The lines of a block by their place in it, and what is wrong with others."""
    lines, bad = {}, {}
    with open(path, "rb") as file:
        file.seek(start)
        for number in range(count):
            try:
                lines[number] = text_of(file.readline())
            except UnicodeDecodeError as error:
                bad[number] = str(error)
    return lines, bad


def write(model, lines, options):
    """The best hypothesis for each line, or the error in its place."""
    try:
        return [best for best, *_ in model.generate(lines, **options)]
    except Exception as error:
        if len(lines) == 1:
            return [error]
    half = len(lines) // 2
    return write(model, lines[:half], options) + write(model, lines[half:], options)


def one_line(text):
    """A text without line breaks; symbols with a space between them."""
    return " ".join(text.splitlines() if isinstance(text, str) else text)
