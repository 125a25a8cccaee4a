"""Generation from a file to a file by a saved pipeline."""

from kseq.corpora.writing import write_file


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
    options |= {"search": search, "max_length": max_length, "allow_blank": True}
    return write_file(
        "generate",
        pipeline,
        {"source": source},
        target,
        options,
        batch_size=batch_size,
        block_size=block_size,
        executor=executor,
        workers=workers,
        overwrite=overwrite,
        verbose=verbose,
    )
