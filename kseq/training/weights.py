"""Weights of labels: given for rows, steps or classes, and put into batches.

Axes in shape comments: B batch, T steps.
"""

import collections.abc
import numbers

import numpy as np

from kseq.training.row_kinds import is_sequence, kind_of, stacked


def label_weights(labels, sample_weight=None, class_weight=None):
    """The weight of each label: those of its row or step and of its class, multiplied.

    Args:
        labels: Rows of labels, as `checked_rows` returns them.
        sample_weight: A number for each row; or for each row numbers, one for each of
            its steps, and more where the labels were padded. Or None.
        class_weight: A dictionary of numbers by class, or None.

    Returns:
        For each row a number, or an array `(T,)`; or None, where no weights are given.
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


def checked_sample_weight(sample_weight, weights):
    """Weights of rows or of steps, as many as there are to weigh."""
    count = len(sample_weight) if hasattr(sample_weight, "__len__") else None
    if count != len(weights):
        raise ValueError(
            "`sample_weight` must have a number, or a row of numbers, for each row of "
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
                "`sample_weight` must be finite numbers of at least 0, one for each row"
                f"{steps}. Received: sample_weight[{index}] of shape {given.shape}, "
                f"{given.tolist()}."
            )
        checked.append(given[: len(ones)] if given.ndim else given)
    return checked


def weights_by_class(class_weight, labels):
    """The weights of labels that are classes; 1 for a class that has none."""
    is_dictionary = isinstance(class_weight, collections.abc.Mapping)
    classes = list(class_weight) if is_dictionary else [None]
    if not all(isinstance(each, numbers.Integral) for each in classes) or not all(
        are_weights(np.asarray(each)) for each in class_weight.values()
    ):
        raise ValueError(
            "`class_weight` must be a dictionary of classes, integers, and weights, "
            f"finite numbers of at least 0. Received: class_weight={class_weight!r}."
        )
    if kind_of(labels[0]) not in ("class", "ids"):
        raise ValueError(
            "`class_weight` needs labels that are classes, integers. Received: "
            f"labels[0] of shape {labels[0].shape} and dtype={labels[0].dtype}, with "
            f"class_weight={class_weight!r}. Give a `sample_weight`."
        )
    return [
        np.vectorize(lambda label: class_weight.get(label, 1.0), ["float32"])(row)
        for row in labels
    ]


def are_weights(values):
    """Tell whether these are finite numbers of at least 0."""
    is_number = values.dtype.kind in "iuf"
    return is_number and bool(np.isfinite(values).all() and (values >= 0).all())


def stacked_weights(weights, numbers, length):
    """The weights of a batch, `(B,)` or `(B, T)`, with 0 where a row is padded."""
    if not weights[0].ndim:
        return np.stack([weights[number] for number in numbers])
    columns = [weights[number][:, None] for number in numbers]
    return stacked(columns, range(len(columns)), length, 0)[..., 0]
