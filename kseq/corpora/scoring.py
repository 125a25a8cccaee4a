"""Compute log-probabilities of the lines of a file by a saved pipeline."""

from typing import TYPE_CHECKING

from kseq.corpora.output import WrittenFile
from kseq.corpora.writing import write_file
from kseq.typing import PathLike

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from distributed import Client


def score_file(
    pipeline: PathLike,
    source: PathLike | None,
    texts: PathLike,
    target: PathLike,
    *,
    batch_size: int = 64,
    block_size: int = 1024,
    executor: "Executor | Client | None" = None,
    workers: int = 1,
    overwrite: bool = False,
    verbose: bool = True,
) -> WrittenFile:
    """Write the log-probability of each line of a file, given the line of another.

    The score tells how well the lines of two files match, for example to leave bad
    pairs out of training. A blank line of the source fails. Other failed lines, blocks
    and interrupted calls are handled as by `kseq.corpora.generate_file`.

    Args:
        pipeline: The `.keras` file of a `kseq.text.TextToText` or a
            `kseq.text.TextWriter`.
        source: The file of source texts, UTF-8, with a text in each line; None for a
            `TextWriter`, which has no source.
        texts: The file of texts to score, with as many lines.
        target: The file to write: natural logarithms with four decimals.
        batch_size: Number of lines in a batch, which are of similar length.
        block_size: As for `kseq.corpora.generate_file`, like all that follow.
        executor: See there.
        workers: See there.
        overwrite: See there.
        verbose: See there.

    Returns:
        A `WrittenFile`, whose `tokens` is the number of scores.

    Raises:
        ValueError: As for `kseq.corpora.generate_file`; or the files have different
            numbers of lines.
        RuntimeError: As for `kseq.corpora.generate_file`.

    Example:

    >>> import pathlib, tempfile
    >>> import kseq
    >>> from kseq.corpora import score_file
    >>> letters = kseq.text.Vocabulary("character").adapt(["hello"])
    >>> model = kseq.encoder_decoder(letters.size, letters.size, "rnn", "rnn", width=3)
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> kseq.text.TextToText(model, letters, letters).save(folder / "writer.keras")
    >>> _ = (folder / "in.txt").write_text("hell\\nhello\\n")
    >>> _ = (folder / "told.txt").write_text("ho\\n\\n")
    >>> names = "writer.keras", "in.txt", "told.txt", "scores.txt"
    >>> score_file(*(folder / name for name in names), verbose=False)
    WrittenFile(lines=2, tokens=2, bad={})
    """
    sources = {"texts": texts} if source is None else {"source": source, "texts": texts}
    return write_file(
        "score",
        pipeline,
        sources,
        target,
        {},
        batch_size=batch_size,
        block_size=block_size,
        executor=executor,
        workers=workers,
        overwrite=overwrite,
        verbose=verbose,
    )
