"""Process files line by line, in blocks that are repeatable tasks."""

import collections
import concurrent.futures
import datetime
import hashlib
import os
import pickle
import time
from collections.abc import Mapping
from concurrent.futures import Executor, Future, wait
from typing import TYPE_CHECKING, Any

from kseq.corpora.blocks import TASK, run
from kseq.corpora.output import Output, WrittenFile
from kseq.executors import as_executor
from kseq.typing import PathLike

if TYPE_CHECKING:
    from distributed import Client

MOST_TRIES = 3  # for a block that the executor loses
SECONDS_BETWEEN_UPDATES = 10


def write_file(
    work: str,
    pipeline: PathLike,
    sources: Mapping[str, PathLike],
    target: PathLike,
    options: dict[str, Any],
    *,
    batch_size: int,
    block_size: int,
    executor: "Executor | Client | None",
    workers: int,
    overwrite: bool,
    verbose: bool,
) -> WrittenFile:
    """Write a line for each line of one or more files, in the same order.

    Args:
        work: A name in `kseq.corpora.blocks.WORKS`.
        pipeline: The `.keras` file of a pipeline.
        sources: The files to read, by argument name. Lines with the same number belong
            together.
        target: The file to write.
        options: Keyword arguments of the pipeline's method.
        batch_size: As for `kseq.corpora.generate_file`, like all that follow.
        block_size: See there.
        executor: See there.
        workers: See there.
        overwrite: See there.
        verbose: See there.

    Returns:
        A `WrittenFile`.

    Raises:
        ValueError: As for `kseq.corpora.generate_file`; or the files have different
            numbers of lines.
        RuntimeError: As for `kseq.corpora.generate_file`.
    """
    paths = {name: os.path.abspath(path) for name, path in sources.items()}
    pipeline, target = map(os.path.abspath, (pipeline, target))
    for name, path in {"pipeline": pipeline, **paths}.items():
        if not os.path.isfile(path):
            raise ValueError(f"`{name}` must be a file. Received: {name}={path!r}.")
    numbers = {"batch_size": batch_size, "block_size": block_size, "workers": workers}
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(
                f"`{name}` must be an integer of 1 or more. Received: "
                f"{name}={number!r}."
            )
    engine = None if executor is None else as_executor(executor)
    settings = {
        "work": work,
        "pipeline": checksum(pipeline),
        **{name: checksum(path) for name, path in paths.items()},
        "block_size": block_size,
        "options": repr(sorted(options.items())),
    }
    output = Output(target, settings)
    if not overwrite and output.is_finished():
        return output.report()
    blocks = aligned_blocks(paths, block_size)
    output.prepare(overwrite)
    shared: dict[str, Any] = {
        "work": work,
        "pipeline": pipeline,
        "sources": list(paths.values()),
    }
    shared |= {"batch_size": batch_size, "options": options}
    tasks, sizes = {}, {}
    present = output.present()
    for number, (starts, count) in enumerate(blocks):
        if number not in present:
            own = {"starts": starts, "count": count, "target": output.block(number)}
            tasks[number] = pickle.dumps(shared | own)
            sizes[number] = count
    progress = Progress(sizes, verbose)
    if engine is None:
        for number, packed in tasks.items():
            progress.update(number, run(packed))
    else:
        run_on(engine, tasks, workers, progress)
    return output.assemble(len(blocks))


def aligned_blocks(
    sources: Mapping[str, str], size: int
) -> list[tuple[list[int], int]]:
    """Return the first byte in each file, and the number of lines, of each block."""
    found = {name: blocks_of(path, size) for name, path in sources.items()}
    lines = {name: sum(n for _, n in blocks) for name, blocks in found.items()}
    if len(set(lines.values())) > 1:
        counts = " and ".join(f"{name} of {n:,} lines" for name, n in lines.items())
        raise ValueError(
            f"Files that belong together must have as many lines. Received: {counts}."
        )
    together = zip(*found.values(), strict=True)
    return [([start for start, _ in block], block[0][1]) for block in together]


def blocks_of(path: str, size: int) -> list[tuple[int, int]]:
    """Return the first byte and the number of lines of each block of a file."""
    blocks: list[tuple[int, int]] = []
    start, place, count = 0, 0, 0
    with open(path, "rb") as file:
        for line in file:
            place, count = place + len(line), count + 1
            if count == size:
                blocks.append((start, count))
                start, count = place, 0
    return [*blocks, (start, count)] if count else blocks


def checksum(path: str) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_on(
    executor: Executor, tasks: Mapping[int, bytes], workers: int, progress: "Progress"
) -> None:
    """Run tasks on an executor; repeat lost tasks up to `MOST_TRIES` times in all."""
    waiting = collections.deque(tasks)
    running: dict[Future[int], int] = {}
    tries: collections.Counter[int] = collections.Counter()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number = waiting.popleft()
                running[submit(executor, tasks[number])] = number
            done, _ = wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                number = running.pop(future)
                error: BaseException | None = concurrent.futures.CancelledError()
                if not future.cancelled():
                    error = future.exception()
                if error is None:
                    progress.update(number, future.result())
                    continue
                tries[number] += 1
                if isinstance(error, ValueError) or tries[number] == MOST_TRIES:
                    raise error
                waiting.append(number)
    finally:
        for future in running:
            future.cancel()


def submit(executor: Executor, packed: bytes) -> "Future[int]":
    """Submit a task; raise a `RuntimeError` if the executor does not accept it."""
    try:
        return executor.submit(eval, TASK, {"packed": packed})
    except Exception as error:  # executors raise various exceptions
        raise RuntimeError(
            "`executor` must accept tasks until the file is written. Received: "
            f"{type(error).__name__}: {error}. Make the same call with a new one; it "
            "goes on from here."
        ) from error


class Progress:
    """A printer of the progress.

    Args:
        lines: The number of lines of each remaining task.
        verbose: Whether to print anything.
    """

    def __init__(self, lines: Mapping[int, int], verbose: bool) -> None:
        self.lines = lines
        self.verbose = verbose
        self.done = self.tokens = 0
        self.began = self.printed = time.monotonic()

    def update(self, number: int, tokens: int) -> None:
        """Add a finished task and its number of tokens; print the progress if due."""
        self.done += self.lines[number]
        self.tokens += tokens
        now, total = time.monotonic(), sum(self.lines.values())
        is_due = now - self.printed >= SECONDS_BETWEEN_UPDATES or self.done == total
        if self.verbose and is_due:
            self.printed = now
            took = max(now - self.began, 1e-9)
            left = datetime.timedelta(seconds=round(took * (total / self.done - 1)))
            pace = f"{self.tokens / took:,.0f} tokens/s"
            print(
                f"{self.done:,} of {total:,} lines | {pace} | {left} left", flush=True
            )
