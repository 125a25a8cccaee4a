"""Label each line of a file by a saved pipeline."""

from typing import TYPE_CHECKING

from kseq.corpora.output import WrittenFile
from kseq.corpora.writing import write_file
from kseq.typing import PathLike

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from distributed import Client


def label_file(
    pipeline: PathLike,
    source: PathLike,
    target: PathLike,
    *,
    batch_size: int = 64,
    block_size: int = 1024,
    executor: "Executor | Client | None" = None,
    workers: int = 1,
    overwrite: bool = False,
    verbose: bool = True,
) -> WrittenFile:
    """Write the label of each line of a file, or of each token, in the same order.

    A classifier writes one label in a line; a tagger writes a label for each token,
    with spaces between them. For a `Vocabulary(None)`, whose texts are split by the
    user, lines are split at white space. Blank and failed lines, blocks and interrupted
    calls are handled as by `kseq.corpora.generate_file`.

    Args:
        pipeline: The `.keras` file of a `kseq.text.TextToLabels`.
        source: The file to read, UTF-8, with a text in each line.
        target: The file to write.
        batch_size: Number of lines in a batch, which are of similar length.
        block_size: As for `kseq.corpora.generate_file`, like all that follow.
        executor: See there.
        workers: See there.
        overwrite: See there.
        verbose: See there.

    Returns:
        A `WrittenFile`, whose `tokens` is the number of labels.

    Raises:
        ValueError: As for `kseq.corpora.generate_file`.
        RuntimeError: As for `kseq.corpora.generate_file`.

    Example:

    >>> import pathlib, tempfile
    >>> import kseq
    >>> from kseq.corpora import label_file
    >>> words = kseq.text.Vocabulary("word").adapt(["what a joy", "what a bore"])
    >>> model = kseq.many_to_one(words.size, num_outputs=2, width=8)
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> kseq.text.TextToLabels(model, words, ["bad", "good"]).save(folder / "c.keras")
    >>> _ = (folder / "in.txt").write_text("what a joy\\n\\na bore\\n")
    >>> files = folder / "c.keras", folder / "in.txt", folder / "out.txt"
    >>> label_file(*files, verbose=False)
    WrittenFile(lines=3, tokens=2, bad={})
    """
    return write_file(
        "label",
        pipeline,
        {"source": source},
        target,
        {},
        batch_size=batch_size,
        block_size=block_size,
        executor=executor,
        workers=workers,
        overwrite=overwrite,
        verbose=verbose,
    )
