"""Labels from a file to a file by a saved pipeline."""

from kseq.corpora.writing import write_file


def label_file(
    pipeline,
    source,
    target,
    *,
    batch_size=64,
    block_size=1024,
    executor=None,
    workers=1,
    overwrite=False,
    verbose=True,
):
    """Writes the label of each line of a file, or those of its tokens, in its order.

    A classifier gives a line one label; a tagger gives it a label for each token of its
    vocabulary, with spaces between them. Blank lines, bad lines, blocks and calls that
    were stopped are as for `kseq.corpora.generate_file`.

    Args:
        pipeline: The `.keras` file in which a `kseq.text.TextToLabels` was saved.
        source: The file to read, UTF-8, a text in each line.
        target: The file to write.
        batch_size: How many lines are read at once; they are of like length.
        block_size: As for `kseq.corpora.generate_file`, and so are all others.
        executor: See there.
        workers: See there.
        overwrite: See there.
        verbose: See there.

    Returns:
        A `WrittenFile`, whose `tokens` are the labels.

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
