"""Split of pairs into training, validation and test parts."""

import numbers
import random
from collections.abc import Sequence


def hold_out(
    sources: Sequence[str], targets: Sequence[str], number: int, seed: int = 0
) -> dict[str, tuple[list[str], list[str]]]:
    """Split pairs so that no source is in two parts, even if it occurs several times.

    Args:
        sources: List of strings, such as questions.
        targets: List of strings of the same length, such as the answers.
        number: Number of different sources in the validation part, and in the test
            part.
        seed: Integer seed of the choice. The order of the pairs does not affect it.

    Returns:
        `{"train": (sources, targets), "validation": ..., "test": ...}`, like `load`,
        each in the order of the pairs.

    Raises:
        ValueError: The numbers of sources and targets differ, or no source would be
            left for training.

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
            "`number` must be positive and less than half the number of different "
            f"sources. Received: number={number!r} with {len(different)} of them."
        )
    random.Random(seed).shuffle(different)
    part_of = dict.fromkeys(different, "train")
    part_of.update(dict.fromkeys(different[:number], "test"))
    part_of.update(dict.fromkeys(different[number : 2 * number], "validation"))
    parts: dict[str, tuple[list[str], list[str]]]
    parts = {"train": ([], []), "validation": ([], []), "test": ([], [])}
    for source, target in zip(sources, targets, strict=True):
        for column, text in zip(parts[part_of[source]], (source, target), strict=True):
            column.append(text)
    return parts
