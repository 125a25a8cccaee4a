"""Log-probabilities of the lines of a file, by a saved pipeline."""

from kseq.corpora.writing import write_file


def score_file(
    pipeline,
    source,
    texts,
    target,
    *,
    batch_size=64,
    block_size=1024,
    executor=None,
    workers=1,
    overwrite=False,
    verbose=True,
):
    """Writes the log-probability of each line of a file, given that of another.

    It tells how well the lines of two files fit together, so that pairs that do not can
    be left out of training. A blank line of the source is a bad line; others, blocks
    and calls that were stopped are as for `kseq.corpora.generate_file`.

    Args:
        pipeline: The `.keras` file in which a `kseq.text.TextToText` was saved, or a
            `kseq.text.TextWriter`.
        source: The file of what is read, UTF-8, a text in each line; None for a
            `TextWriter`, which reads nothing.
        texts: The file of what is scored, with as many lines.
        target: The file to write: natural logarithms with four decimals.
        batch_size: How many lines are scored at once; they are of like length.
        block_size: As for `kseq.corpora.generate_file`, and so are all others.
        executor: See there.
        workers: See there.
        overwrite: See there.
        verbose: See there.

    Returns:
        A `WrittenFile`, whose `tokens` are the scores.

    Raises:
        ValueError: As for `kseq.corpora.generate_file`; or the files differ in their
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
