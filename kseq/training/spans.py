"""Labeled spans and their scores: precision, recall, F1 (B-, I- and O labels)."""

import typing
from collections.abc import Iterable, Sequence


class SpanScores(typing.NamedTuple):
    """Precision, recall and F1 of predicted spans.

    Attributes:
        precision: Fraction of the predicted spans that are correct.
        recall: Fraction of the true spans that were found.
        f1: Harmonic mean of precision and recall.

    Example:

    >>> from kseq.training import SpanScores
    >>> SpanScores(precision=1.0, recall=0.5, f1=2 / 3).recall
    0.5
    """

    precision: float
    recall: float
    f1: float


def spans(labels: Iterable[str]) -> list[tuple[str, int, int]]:
    """List the spans that the labels of one sentence mark.

    A span begins with `B-kind`, continues with `I-kind` of the same kind, and ends
    before any other label. An `I-kind` that continues no span of its kind begins one,
    as in the scorer of the CoNLL shared tasks. A label without `B-` or `I-` is outside
    all spans.

    Args:
        labels: The labels, one per word.

    Returns:
        A list of `(kind, first, end)`: the span covers the words `first` to `end - 1`.

    Example:

    >>> from kseq.training import spans
    >>> spans(["O", "B-city", "I-city", "B-city", "O", "I-day", "I-month"])
    [('city', 1, 3), ('city', 3, 4), ('day', 5, 6), ('month', 6, 7)]

    References:
        - [Tjong Kim Sang and De Meulder, 2003](https://aclanthology.org/W03-0419/), 2.2
    """
    found: list[tuple[str, int, int]] = []
    open_kind: str | None = None
    first = 0
    for place, label in enumerate([*labels, "O"]):
        mark, _, kind = label.partition("-")
        if open_kind is not None and (mark != "I" or kind != open_kind):
            found.append((open_kind, first, place))
            open_kind = None
        if mark in ("B", "I") and open_kind is None:
            open_kind, first = kind, place
    return found


def span_scores(
    labels: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> SpanScores:
    """Score predicted labels by the spans they mark, over all sentences together.

    A span is correct if its kind, its first word and its last word are correct.

    Args:
        labels: The true labels: a list of lists, one label per word.
        predicted: The predicted labels, in the same form.

    Returns:
        `SpanScores`: precision, recall and F1, each 0 if there is nothing to count.

    Raises:
        ValueError: The numbers of predicted and true labels differ.

    Example:

    >>> from kseq.training import span_scores
    >>> labels = [["B-city", "I-city", "O"], ["B-day"]]
    >>> span_scores(labels, [["B-city", "O", "O"], ["B-day"]])
    SpanScores(precision=0.5, recall=0.5, f1=0.5)

    References:
        - [Tjong Kim Sang and De Meulder, 2003](https://aclanthology.org/W03-0419/), 2.2
    """
    lengths = [len(row) for row in labels], [len(row) for row in predicted]
    if lengths[0] != lengths[1]:
        raise ValueError(
            "`predicted` must have one label for each label of `labels`. Received: "
            f"{len(lengths[0])} sentences of {sum(lengths[0])} labels, and "
            f"{len(lengths[1])} of {sum(lengths[1])}."
        )
    right = {(i, *span) for i, row in enumerate(labels) for span in spans(row)}
    found = {(i, *span) for i, row in enumerate(predicted) for span in spans(row)}
    shared = len(right & found)
    return SpanScores(
        precision=shared / len(found) if found else 0.0,
        recall=shared / len(right) if right else 0.0,
        f1=2 * shared / (len(right) + len(found)) if right or found else 0.0,
    )
