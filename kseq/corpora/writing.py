"""One line of output for each line of files: blocks of lines, as repeatable tasks."""

import collections
import concurrent.futures
import datetime
import hashlib
import os
import pickle
import time
from concurrent.futures import wait

from kseq.corpora.blocks import TASK, run
from kseq.corpora.output import Output
from kseq.executors import as_executor

MOST_TRIES = 3  # of a block that its executor loses
SECONDS_BETWEEN_NEWS = 10


def write_file(
    work,
    pipeline,
    sources,
    target,
    options,
    *,
    batch_size,
    block_size,
    executor,
    workers,
    overwrite,
    verbose,
):
    """Writes a line for each line of one or more files, in the same order.

    Args:
        work: What to do with lines, a name in `kseq.corpora.blocks.WORKS`.
        pipeline: The `.keras` file of a pipeline.
        sources: The files to read, by the names of their arguments. Lines of the same
            number belong together.
        target: The file to write.
        options: Keyword arguments of the work.
        batch_size: As for `kseq.corpora.generate_file`, and so are all others.
        block_size: See there.
        executor: See there.
        workers: See there.
        overwrite: See there.
        verbose: See there.

    Returns:
        A `WrittenFile`.

    Raises:
        ValueError: As for `kseq.corpora.generate_file`; or the files differ in their
            numbers of lines.
        RuntimeError: As for `kseq.corpora.generate_file`.
    """
    sources = {name: os.path.abspath(path) for name, path in sources.items()}
    pipeline, target = map(os.path.abspath, (pipeline, target))
    for name, path in {"pipeline": pipeline, **sources}.items():
        if not os.path.isfile(path):
            raise ValueError(f"`{name}` must be a file. Received: {name}={path!r}.")
    numbers = {"batch_size": batch_size, "block_size": block_size, "workers": workers}
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(
                f"`{name}` must be an integer of 1 or more. Received: "
                f"{name}={number!r}."
            )
    if executor is not None:
        executor = as_executor(executor)
    settings = {
        "work": work,
        "pipeline": checksum(pipeline),
        **{name: checksum(path) for name, path in sources.items()},
        "block_size": block_size,
        "options": repr(sorted(options.items())),
    }
    output = Output(target, settings)
    if not overwrite and output.is_finished():
        return output.report()
    blocks = aligned_blocks(sources, block_size)
    output.prepare(overwrite)
    shared = {"work": work, "pipeline": pipeline, "sources": list(sources.values())}
    shared |= {"batch_size": batch_size, "options": options}
    tasks, sizes = {}, {}
    present = output.present()
    for number, (starts, count) in enumerate(blocks):
        if number not in present:
            own = {"starts": starts, "count": count, "target": output.block(number)}
            tasks[number] = pickle.dumps(shared | own)
            sizes[number] = count
    news = News(sizes, verbose)
    if executor is None:
        for number, packed in tasks.items():
            news.tell(number, run(packed))
    else:
        run_on(executor, tasks, workers, news)
    return output.assemble(len(blocks))


def aligned_blocks(sources, size):
    """For each block its first byte in each of the files, and its number of lines."""
    found = {name: blocks_of(path, size) for name, path in sources.items()}
    lines = {name: sum(n for _, n in blocks) for name, blocks in found.items()}
    if len(set(lines.values())) > 1:
        counts = " and ".join(f"{name} of {n:,} lines" for name, n in lines.items())
        raise ValueError(
            f"Files that belong together must have as many lines. Received: {counts}."
        )
    together = zip(*found.values(), strict=True)
    return [([start for start, _ in block], block[0][1]) for block in together]


def blocks_of(path, size):
    """The first byte and the number of lines of each block of a file."""
    blocks, start, place, count = [], 0, 0, 0
    with open(path, "rb") as file:
        for line in file:
            place, count = place + len(line), count + 1
            if count == size:
                blocks.append((start, count))
                start, count = place, 0
    return [*blocks, (start, count)] if count else blocks


def checksum(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_on(executor, tasks, workers, news):
    """Has an executor run tasks, as often as it takes, within reason."""
    waiting, running, tries = collections.deque(tasks), {}, collections.Counter()
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number = waiting.popleft()
                running[submit(executor, tasks[number])] = number
            done, _ = wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                number = running.pop(future)
                error = concurrent.futures.CancelledError()
                if not future.cancelled():
                    error = future.exception()
                if error is None:
                    news.tell(number, future.result())
                    continue
                tries[number] += 1
                if isinstance(error, ValueError) or tries[number] == MOST_TRIES:
                    raise error
                waiting.append(number)
    finally:
        for future in running:
            future.cancel()


def submit(executor, packed):
    try:
        return executor.submit(eval, TASK, {"packed": packed})
    except Exception as error:  # whatever an engine may raise
        raise RuntimeError(
            "`executor` must take tasks until the file is written. Received: "
            f"{type(error).__name__}: {error}. Make the same call with a new one; it "
            "goes on from here."
        ) from error


class News:
    """Says how far it is.

    Args:
        lines: The number of lines of each task that is left.
        verbose: False says nothing.
    """

    def __init__(self, lines, verbose):
        self.lines = lines
        self.verbose = verbose
        self.done = self.tokens = 0
        self.began = self.told = time.monotonic()

    def tell(self, number, tokens):
        """A task is done, which has written so many tokens."""
        self.done += self.lines[number]
        self.tokens += tokens
        now, total = time.monotonic(), sum(self.lines.values())
        is_time = now - self.told >= SECONDS_BETWEEN_NEWS or self.done == total
        if self.verbose and is_time:
            self.told = now
            took = max(now - self.began, 1e-9)
            left = datetime.timedelta(seconds=round(took * (total / self.done - 1)))
            pace = f"{self.tokens / took:,.0f} tokens/s"
            print(
                f"{self.done:,} of {total:,} lines | {pace} | {left} left", flush=True
            )
