"""Blocks of lines: what one task reads, writes and leaves behind.

A block is a file that is whole or absent, so it does not matter how often it is begun.
"""

import functools
import os
import pickle
import threading

from kseq.corpora.lines import text_of
from kseq.corpora.output import write_json
from kseq.text import TextToLabels, TextToText, TextWriter, load

# As text, so that nobody on its way, such as the scheduler of Dask, imports Keras.
TASK = "__import__('kseq.corpora.blocks', fromlist=['run']).run(packed)"
ONE_AT_A_TIME = threading.Lock()  # in a process, which one model fills


def generated(model, rows, options):
    """The best text for each line, and how many tokens it has."""
    found = model.generate([text for [text] in rows], **options)
    return [(one_line(best.text), len(best.tokens)) for best, *_ in found]


def labelled(model, rows, options):
    """The name of the label of each line, or those of its tokens, and their number."""
    found = model.label([text for [text] in rows], allow_blank=True, **options)
    names = [
        [label.name for label in (labels if isinstance(labels, list) else [labels])]
        if labels
        else []
        for labels in found
    ]
    return [(one_line(row), len(row)) for row in names]


def scored(model, rows, options):
    """The log-probability of each line, and that it is one number."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    return [(f"{score:.4f}", 1) for score in model.score(*columns, **options)]


WORKS = {  # with the pipelines that can do them, and how many files each reads
    "generate": (generated, {TextToText: 1}),
    "label": (labelled, {TextToLabels: 1}),
    "score": (scored, {TextToText: 2, TextWriter: 1}),
}


def run(packed):
    """Writes a block for arguments of `write_block` that were pickled."""
    with ONE_AT_A_TIME:
        return write_block(**pickle.loads(packed))


def write_block(work, pipeline, sources, starts, count, target, batch_size, options):
    """Writes a line for each of some lines of one or more files.

    Args:
        work: What to do with them, one of `WORKS`.
        pipeline: The `.keras` file of a pipeline, loaded once in each process.
        sources: The files of lines.
        starts: The byte of each at which the first line begins.
        count: How many lines to read.
        target: The file to write: lines, the tokens in them, and what was wrong with
            others, by their place in the block.
        batch_size: How many lines, of like length, to work on at once.
        options: Arguments of the pipeline's method.

    Returns:
        The number of tokens written.

    Raises:
        ValueError: The pipeline cannot do this work, or no line could be written.
    """
    do, kinds = WORKS[work]
    model = loaded(pipeline, os.stat(pipeline).st_mtime_ns)
    check_kind(model, kinds, work, pipeline, len(sources))
    rows, bad = read_rows(sources, starts, count)
    texts, tokens = [""] * count, 0
    order = sorted(rows, key=lambda number: len(rows[number][0]))
    for first in range(0, len(order), batch_size):
        numbers = order[first : first + batch_size]
        batch = attempted(do, model, [rows[number] for number in numbers], options)
        for number, result in zip(numbers, batch, strict=True):
            if isinstance(result, Exception):
                bad[number] = f"{type(result).__name__}: {result}"
            else:
                texts[number] = result[0]
                tokens += result[1]
    if len(bad) == count > 1:
        raise ValueError(
            "A file must have lines that the pipeline can read. Received: "
            f"{' and '.join(sources)}, with none of {count} lines from byte "
            f"{starts[0]} on that it can, one because of {bad.popitem()[1]}."
        )
    write_json(target, {"texts": texts, "tokens": tokens, "bad": bad})
    return tokens


@functools.lru_cache(maxsize=1)
def loaded(path, modified):
    return load(path)


def check_kind(model, kinds, work, path, files):
    """Raises if a pipeline cannot do this work on so many files."""
    found = f"{path}, of a {type(model).__name__}"
    wanted = next((n for kind, n in kinds.items() if isinstance(model, kind)), None)
    if wanted is None:
        names = " or a ".join(kind.__name__ for kind in kinds)
        raise ValueError(
            f"`pipeline` must be the file of a {names} to {work}. Received: {found}."
        )
    if wanted != files:
        raise ValueError(
            "`source` must be a file for a TextToText, and None for a TextWriter, "
            f"which reads nothing. Received: {found}, with `source` "
            f"{'None' if files == 1 else 'a file'}."
        )


def read_rows(paths, starts, count):
    """The lines that belong together by their place, and what is wrong with others."""
    rows, bad = {number: [] for number in range(count)}, {}
    for path, start in zip(paths, starts, strict=True):
        with open(path, "rb") as file:
            file.seek(start)
            for number in range(count):
                try:
                    rows[number].append(text_of(file.readline()))
                except UnicodeDecodeError as error:
                    bad[number] = str(error)
    return {n: row for n, row in rows.items() if n not in bad}, bad


def attempted(do, model, rows, options):
    """Do the work for all rows, with the error in the place of a row that raises."""
    try:
        return do(model, rows, options)
    except Exception as error:
        if len(rows) == 1:
            return [error]
    half = len(rows) // 2
    first = attempted(do, model, rows[:half], options)
    return first + attempted(do, model, rows[half:], options)


def one_line(text):
    """A text without line breaks; symbols with a space between them."""
    return " ".join(text.splitlines() if isinstance(text, str) else text)
