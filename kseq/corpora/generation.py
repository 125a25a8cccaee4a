"""Generate a text for each line of a file by a saved pipeline."""

from typing import TYPE_CHECKING, Any

from kseq.corpora.output import WrittenFile
from kseq.corpora.writing import write_file
from kseq.typing import PathLike

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from distributed import Client

    from kseq.decoding import Search


def generate_file(
    pipeline: PathLike,
    source: PathLike,
    target: PathLike,
    search: "Search | None" = None,
    *,
    max_length: int = 40,
    batch_size: int = 64,
    block_size: int = 1024,
    executor: "Executor | Client | None" = None,
    workers: int = 1,
    overwrite: bool = False,
    verbose: bool = True,
    **options: Any,
) -> WrittenFile:
    """Generate a text for each line of a file, in the same order.

    Each output line is the best hypothesis from `generate` of the pipeline. A blank
    line stays blank. A line that is not UTF-8, or that the model rejects, becomes blank
    and is listed in the result. A call that was interrupted can be repeated, and then
    continues: no line is lost or written twice.

    Args:
        pipeline: The `.keras` file of a `kseq.text.TextToText`.
        source: The file to read, UTF-8, with a text in each line.
        target: The file to write, which appears once it is complete. Until then, blocks
            of lines are kept in a folder beside it. The report is written to
            `target.json`.
        search: The search, such as `kseq.decoding.BeamSearch(5)`; None for the default
            of the model. Samples of `Sampling` differ from those of `generate`.
        max_length: Greatest number of tokens of a text.
        batch_size: Number of lines in a batch, which are of similar length.
        block_size: Number of lines in a block, the unit of work of one task. Batches
            are formed within a block.
        executor: The executor of the tasks: None for this process, a
            `distributed.Client` of Dask, or a `concurrent.futures.Executor`. Each of
            its processes loads the pipeline once, and must see all files under the same
            paths.
        workers: Number of tasks that run on an executor at the same time.
        overwrite: Whether to replace the target, or the blocks, of another call.
        verbose: Whether to print the progress every ten seconds.
        **options: Further arguments of the pipeline's `generate`.

    Returns:
        A `WrittenFile`.

    Raises:
        ValueError: The target or the blocks are from another call, a file is missing, a
            number is invalid, or every line of a block failed.
        RuntimeError: The executor accepts no more tasks. If it loses a block three
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
