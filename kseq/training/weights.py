"""Weights of labels: by row, by step or by class.

Axes in shape comments: B batch, T steps.
"""

import collections.abc
import numbers
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from kseq.training.row_kinds import Rows, is_sequence, kind_of, stacked


def label_weights(
    labels: Sequence[np.ndarray] | np.ndarray,
    sample_weight: Rows | None = None,
    class_weight: Mapping[int, float] | None = None,
) -> list[np.ndarray] | None:
    """Return the weight of each label: that of its row or step, times its class.

    Args:
        labels: Rows of labels, as `checked_rows` returns them.
        sample_weight: One number per row. Or one row of numbers per row, one for each
            step, with further ones if the labels were padded. Or None.
        class_weight: A dictionary from class to weight, or None.

    Returns:
        One number, or an array `(T,)`, per row. None if no weights are given.
    """
    if sample_weight is None and class_weight is None:
        return None
    weights = [np.ones(row.shape[: is_sequence(row)], "float32") for row in labels]
    if sample_weight is not None:
        given = checked_sample_weight(sample_weight, weights)
        weights = [one * two for one, two in zip(weights, given, strict=True)]
    if class_weight is not None:
        given = weights_by_class(class_weight, labels)
        weights = [one * two for one, two in zip(weights, given, strict=True)]
    return weights


def checked_sample_weight(
    sample_weight: Rows, weights: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Return the weights of rows or steps, if there are as many as labels."""
    count = len(sample_weight) if hasattr(sample_weight, "__len__") else None
    if count != len(weights):
        raise ValueError(
            "`sample_weight` must have one number, or one row of numbers, per row of "
            f"labels. Received: sample_weight of {count} rows, {len(weights)} rows of "
            "labels."
        )
    checked = []
    for index, (given, ones) in enumerate(zip(sample_weight, weights, strict=True)):
        given = np.asarray(given)
        is_long_enough = given.ndim == 0 or len(given) >= ones.size
        if given.ndim > ones.ndim or not is_long_enough or not are_weights(given):
            steps = f", or {ones.size} for its steps" if ones.ndim else ""
            raise ValueError(
                "`sample_weight` must be finite non-negative numbers, one per row"
                f"{steps}. Received: sample_weight[{index}] of shape {given.shape}, "
                f"{given.tolist()}."
            )
        checked.append(given[: len(ones)] if given.ndim else given)
    return checked


def weights_by_class(
    class_weight: Mapping[int, float], labels: Sequence[np.ndarray] | np.ndarray
) -> list[np.ndarray]:
    """Return the weights of labels that are classes, 1 for other classes."""
    is_dictionary = isinstance(class_weight, collections.abc.Mapping)
    classes = list(class_weight) if is_dictionary else [None]
    if not all(isinstance(each, numbers.Integral) for each in classes) or not all(
        are_weights(np.asarray(each)) for each in class_weight.values()
    ):
        raise ValueError(
            "`class_weight` must be a dictionary from classes, integers, to weights, "
            f"finite non-negative numbers. Received: class_weight={class_weight!r}."
        )
    if kind_of(labels[0]) not in ("class", "ids"):
        raise ValueError(
            "`class_weight` needs labels that are classes, integers. Received: "
            f"labels[0] of shape {labels[0].shape} and dtype={labels[0].dtype}, with "
            f"class_weight={class_weight!r}. Use `sample_weight`."
        )
    return [
        np.vectorize(lambda label: class_weight.get(label, 1.0), ["float32"])(row)
        for row in labels
    ]


def are_weights(values: np.ndarray) -> bool:
    """Return whether values are finite non-negative numbers."""
    is_number = values.dtype.kind in "iuf"
    return is_number and bool(np.isfinite(values).all() and (values >= 0).all())


def stacked_weights(
    weights: Sequence[np.ndarray], numbers: Iterable[int] | np.ndarray, length: int
) -> np.ndarray:
    """Return the weights of a batch, `(B,)` or `(B, T)`, with 0 for padding."""
    if not weights[0].ndim:
        return np.stack([weights[number] for number in numbers])
    columns = [weights[number][:, None] for number in numbers]
    return stacked(columns, range(len(columns)), length, 0)[..., 0]
