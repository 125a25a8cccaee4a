"""Generation from a file to a file: blocks of lines, as tasks that may be repeated."""

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


def generate_file(
    pipeline,
    source,
    target,
    search=None,
    *,
    max_length=40,
    batch_size=64,
    block_size=1024,
    executor=None,
    workers=1,
    overwrite=False,
    verbose=True,
    **options,
):
    """Writes a text for each line of a file, in the same order.

    Lines are what `generate` of the pipeline gives for each, the best hypothesis. A
    blank line stays blank, and one that is no UTF-8 or that the model refuses is blank
    and named in the result. The same call goes on where the last one was stopped or
    killed: no line is lost or written twice.

    Args:
        pipeline: The `.keras` file in which a `kseq.text.TextToText` was saved.
        source: The file to read, UTF-8, a text in each line.
        target: The file to write, which appears when it is whole. Until then blocks of
            lines lie in a folder beside it; what was written is in `target.json`.
        search: How to search, a `kseq.decoding.BeamSearch(5)` and the like; None for
            the way of the model. What `Sampling` draws differs from `generate`.
        max_length: Greatest number of tokens of a text.
        batch_size: How many lines are written at once; they are of like length.
        block_size: How many lines are a task, in which lines of like length are found.
        executor: What runs the tasks: None is this process; else a
            `distributed.Client` of Dask, or a `concurrent.futures.Executor`. Each of
            its processes loads the pipeline once; all files are under the same path.
        workers: How many tasks an executor has at once.
        overwrite: Whether to replace a target, or to drop blocks, of another call.
        verbose: Whether to say every ten seconds how far it is.
        **options: What else the pipeline's `generate` takes.

    Returns:
        A `WrittenFile`.

    Raises:
        ValueError: Another call has made the target or the blocks, a file is missing, a
            number makes no sense, or no line of a block could be written.
        RuntimeError: The executor takes no more tasks. Where it loses a block three
            times, the last error of that block is raised.

    Example:

    >>> import pathlib, tempfile
    >>> import kseq
    >>> from kseq.corpora import generate_file
    >>> letters = kseq.text.Vocabulary("character").adapt(["hello"])
    >>> model = kseq.encoder_decoder(letters.size, letters.size, "rnn", "rnn", width=3)
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> kseq.text.TextToText(model, letters, letters).save(folder / "writer.keras")
    >>> _ = (folder / "in.txt").write_text("hello\\n\\nhell\\n")
    >>> files = folder / "writer.keras", folder / "in.txt", folder / "out.txt"
    >>> result = generate_file(*files, max_length=7, verbose=False)
    >>> result.lines, result.bad
    (3, {})
    """
    pipeline, source, target = map(os.path.abspath, (pipeline, source, target))
    for name, path in {"pipeline": pipeline, "source": source}.items():
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
    options |= {"search": search, "max_length": max_length, "allow_blank": True}
    settings = {
        "pipeline": checksum(pipeline),
        "source": checksum(source),
        "block_size": block_size,
        "options": repr(sorted(options.items())),
    }
    output = Output(target, settings)
    if not overwrite and output.is_finished():
        return output.report()
    output.prepare(overwrite)
    shared = {"pipeline": pipeline, "source": source}
    shared |= {"batch_size": batch_size, "options": options}
    tasks, sizes = {}, blocks_of(source, block_size)
    present = output.present()
    for number, (start, count) in enumerate(sizes):
        if number not in present:
            own = {"start": start, "count": count, "target": output.block(number)}
            tasks[number] = pickle.dumps(shared | own)
    news = News({number: sizes[number][1] for number in tasks}, verbose)
    if executor is None:
        for number, packed in tasks.items():
            news.tell(number, run(packed))
    else:
        run_on(executor, tasks, workers, news)
    return output.assemble(len(sizes))


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
