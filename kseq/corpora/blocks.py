"""Blocks of lines: the unit of work of one task.

The file of a block is written atomically, so a task can be repeated.
"""

import functools
import os
import pickle
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from kseq.corpora.lines import text_of
from kseq.corpora.output import write_json
from kseq.text import TextToLabels, TextToText, TextWriter, load
from kseq.typing import PathLike

# A string, so that intermediaries such as the Dask scheduler do not import Keras.
TASK = "__import__('kseq.corpora.blocks', fromlist=['run']).run(packed)"
ONE_AT_A_TIME = threading.Lock()  # per process, as each holds one model


Rows: TypeAlias = list[list[str]]  # for each line, its text in each of the files
Results: TypeAlias = list[tuple[str, int]]  # texts, and their numbers of tokens


def generated(model: Any, rows: Rows, options: dict[str, Any]) -> Results:
    """Return the best text for each line, and its number of tokens."""
    vocabulary = model.source_vocabulary
    found = model.generate([as_text(vocabulary, text) for [text] in rows], **options)
    return [(one_line(best.text), len(best.tokens)) for best, *_ in found]


def labelled(model: Any, rows: Rows, options: dict[str, Any]) -> Results:
    """Return the label of each line, or those of its tokens, and their number."""
    texts = [as_text(model.vocabulary, text) for [text] in rows]
    found = model.label(texts, allow_blank=True, **options)
    names = [
        [label.name for label in (labels if isinstance(labels, list) else [labels])]
        if labels
        else []
        for labels in found
    ]
    return [(one_line(row), len(row)) for row in names]


def as_text(vocabulary: Any, line: str) -> str | list[str]:
    """Return a line, or its words if the vocabulary takes texts split by the user."""
    return line.split() if getattr(vocabulary, "split", "") is None else line


def scored(model: Any, rows: Rows, options: dict[str, Any]) -> Results:
    """Return the log-probability of each line, and 1 as its number of scores."""
    if isinstance(model, TextWriter):
        vocabularies = [model.vocabulary]
    else:
        vocabularies = [model.source_vocabulary, model.target_vocabulary]
    columns = []
    for vocabulary, lines in zip(vocabularies, zip(*rows, strict=True), strict=True):
        columns.append([as_text(vocabulary, line) for line in lines])
    return [(f"{score:.4f}", 1) for score in model.score(*columns, **options)]


Work: TypeAlias = Callable[[Any, Rows, dict[str, Any]], Results]

# Functions by name, with the pipelines that support them and their number of sources.
WORKS: dict[str, tuple[Work, dict[type, int]]] = {
    "generate": (generated, {TextToText: 1}),
    "label": (labelled, {TextToLabels: 1}),
    "score": (scored, {TextToText: 2, TextWriter: 1}),
}


def run(packed: bytes) -> int:
    """Call `write_block` with pickled arguments."""
    with ONE_AT_A_TIME:
        return write_block(**pickle.loads(packed))


def write_block(
    work: str,
    pipeline: str,
    sources: Sequence[str],
    starts: Sequence[int],
    count: int,
    target: PathLike,
    batch_size: int,
    options: dict[str, Any],
) -> int:
    """Process one block of lines, and write its results to a file.

    Args:
        work: A name in `WORKS`.
        pipeline: The `.keras` file of a pipeline, loaded once in each process.
        sources: The files of lines.
        starts: The byte of each file at which the first line begins.
        count: The number of lines.
        target: The file to write: a text for each line, the number of tokens, and the
            errors of failed lines by their number in the block.
        batch_size: Number of lines in a batch, which are of similar length.
        options: Arguments of the pipeline's method.

    Returns:
        The number of tokens written.

    Raises:
        ValueError: The pipeline does not support this work, or every line failed.
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
        reason = bad.popitem()[1].rstrip(".")
        raise ValueError(
            "A file must have lines that the pipeline can process. Received: "
            f"{' and '.join(sources)}, with none of {count} lines from byte "
            f"{starts[0]} on that it can, one because of {reason}."
        )
    write_json(target, {"texts": texts, "tokens": tokens, "bad": bad})
    return tokens


@functools.lru_cache(maxsize=1)
def loaded(path: str, modified: int) -> Any:
    """Load a pipeline, or return the last one if the file is unchanged."""
    return load(path)


def check_kind(
    model: Any, kinds: dict[type, int], work: str, path: str, files: int
) -> None:
    """Raise unless a pipeline supports this work on this number of files."""
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
            f"which has no source. Received: {found}, with `source` "
            f"{'None' if files == 1 else 'a file'}."
        )


def read_rows(
    paths: Sequence[str], starts: Sequence[int], count: int
) -> tuple[dict[int, list[str]], dict[int, str]]:
    """Return the lines of each number in all files, and the errors of bad lines."""
    rows: dict[int, list[str]] = {number: [] for number in range(count)}
    bad: dict[int, str] = {}
    for path, start in zip(paths, starts, strict=True):
        with open(path, "rb") as file:
            file.seek(start)
            for number in range(count):
                try:
                    rows[number].append(text_of(file.readline()))
                except UnicodeDecodeError as error:
                    bad[number] = str(error)
    return {n: row for n, row in rows.items() if n not in bad}, bad


def attempted(
    do: Work, model: Any, rows: Rows, options: dict[str, Any]
) -> list[tuple[str, int] | Exception]:
    """Return the results of all rows, with the exception in place of a failed one.

    If a batch fails, each of its halves is tried.
    """
    try:
        return do(model, rows, options)  # type: ignore[return-value]
    except Exception as error:
        if len(rows) == 1:
            return [error]
    half = len(rows) // 2
    first = attempted(do, model, rows[:half], options)
    return first + attempted(do, model, rows[half:], options)


def one_line(text: str | Iterable[str]) -> str:
    """Return a text without line breaks, or symbols with spaces between them."""
    return " ".join(text.splitlines() if isinstance(text, str) else text)
