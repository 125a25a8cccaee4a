"""Parts of pairs that were published in one piece."""

import numbers
import random


def hold_out(sources, targets, number, seed=0):
    """Splits pairs so that no source stands in two parts, however often it comes.

    Args:
        sources: List of strings, such as questions.
        targets: List of as many strings, such as their answers.
        number: How many different sources to watch, and how many to test on.
        seed: Integer that the choice follows from, whatever the order of the pairs.

    Returns:
        As `load` does, `{"train": (sources, targets), "validation": ..., "test": ...}`,
        each in the order of the pairs.

    Raises:
        ValueError: There are not as many targets as sources, or no source would be left
            to learn from.

    Example:

    >>> from kseq.datasets import hold_out
    >>> parts = hold_out(["a", "b", "a", "c"], ["1", "2", "3", "4"], number=1)
    >>> sorted(len(sources) for sources, _ in parts.values())
    [1, 1, 2]
    """
    if len(sources) != len(targets):
        raise ValueError(
            "`sources` and `targets` must have the same length. Received: "
            f"{len(sources)} sources, {len(targets)} targets."
        )
    different = sorted(set(sources))
    if not isinstance(number, numbers.Integral) or not 0 < 2 * number < len(different):
        raise ValueError(
            "`number` must be positive and less than half of the different sources. "
            f"Received: number={number!r} with {len(different)} of them."
        )
    random.Random(seed).shuffle(different)
    part_of = dict.fromkeys(different, "train")
    part_of.update(dict.fromkeys(different[:number], "test"))
    part_of.update(dict.fromkeys(different[number : 2 * number], "validation"))
    parts = {"train": ([], []), "validation": ([], []), "test": ([], [])}
    for source, target in zip(sources, targets, strict=True):
        for column, text in zip(parts[part_of[source]], (source, target), strict=True):
            column.append(text)
    return parts
