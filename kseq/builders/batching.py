"""Rows of what a model reads and writes: checked, cut into batches, put in order.

Axes in shape comments: B rows, S source steps, T target steps, F features.
"""

import contextlib
import logging

import keras
import numpy as np
from keras import ops

from kseq.layers.validation import positive_integer

LENGTH_MULTIPLE = 8


def all_rows(source):
    """The rows of all batches, where the source comes in batches; else as it is.

    Batches are what a `tf.data.Dataset`, a `keras.utils.PyDataset`, a loader or a
    generator gives. One for training, `(inputs, targets, ...)` with the inputs under
    "source", gives its sources, and so do such inputs by themselves.
    """
    if isinstance(source, dict):  # the inputs of training
        return _rows_of_batch(source)
    if isinstance(source, keras.utils.PyDataset):
        number = source.num_batches
        batches = None if number is None else (source[i] for i in range(number))
    elif hasattr(source, "__iter__") and not hasattr(source, "__getitem__"):
        is_endless = getattr(source, "cardinality", lambda: 0)() == -1
        batches = None if is_endless else source
    else:
        return source
    if batches is None:
        raise ValueError(
            "A source in batches must come to an end. Received: "
            f"{source!r}, which has none. Take a part: `dataset.take(10)`, or of a "
            "`PyDataset` `(dataset[i] for i in range(10))`."
        )
    return [row for batch in batches for row in _rows_of_batch(batch)]


def _rows_of_batch(batch):
    if isinstance(batch, tuple):
        batch = batch[0]
    if isinstance(batch, dict):
        if "source" not in batch:
            raise ValueError(
                'A batch of several inputs must have one called "source". Received: '
                f"a batch of {sorted(batch)}."
            )
        batch = batch["source"]
    if hasattr(batch, "to_list"):  # ragged
        return batch.to_list()
    return ops.convert_to_numpy(batch) if hasattr(batch, "shape") else batch


def token_rows(name, ids):
    """Rows of token ids: an array as it is, or a list of lists."""
    if hasattr(ids, "to_list"):  # ragged
        ids = ids.to_list()
    if hasattr(ids, "shape"):
        ids = ops.convert_to_numpy(ids)
    if (
        not hasattr(ids, "__len__")
        or len(ids) == 0
        or not hasattr(ids[0], "__len__")
        or isinstance(ids[0], str)
    ):
        raise ValueError(
            f"`{name}` must hold at least one row of token ids: shape (B, T), or a "
            f"list of lists. Received: {name}={ids!r}. Rows that come one by one, as "
            "those of a data set, need `.batch(32)` first."
        )
    return ids


def check_ids(name, rows, size):
    """Returns the rows if all are ids below the size, which a backend may not check."""
    if size is None:
        return rows
    filled = [row for row in map(np.ravel, rows) if row.size]
    ids = np.concatenate(filled) if filled else np.zeros(0, "int32")
    if ids.dtype.kind == "f" and (ids % 1 == 0).all():
        raise ValueError(
            f"`{name}` must hold integers from 0 to {size - 1}, the ids that the model "
            f"knows. Received: {name} of {ids.dtype}. Whole numbers that are floats "
            f"become ids by `np.asarray({name}, int)`; for a series build the model "
            "with `source=kseq.layers.FeatureEmbedding(...)`."
        )
    is_id = (ids >= 0) & (ids < size) if ids.dtype.kind in "iu" else np.zeros(len(ids))
    if not is_id.all():
        raise ValueError(
            f"`{name}` must hold integers from 0 to {size - 1}, the ids that the model "
            f"knows. Received: {name} with {ids[is_id == 0][0]}. Encode it with the "
            "vocabulary that the model was made for."
        )
    return rows


def check_lengths(name, lengths, longest):
    """Refuse rows of more steps than there are learned positions, if there are."""
    if longest is not None and max(lengths) > longest:
        raise ValueError(
            f"`{name}` must have as many steps as its embedding has learned positions, "
            f"padding not counted. Received: {max(lengths)} steps with max_length="
            f"{longest}. Cut it off, or train with more positions."
        )


def check_rank(name, rows, shape):
    """Refuses rows that have other axes than `(B, ...)`, such as `(B, S)`."""
    for row in rows:
        if len(row) and np.ndim(row) != len(shape) - 1:
            raise ValueError(
                f"`{name}` must have the shape {shape}, or be rows of different "
                f"lengths. Received: a row of shape {np.shape(row)}."
            )


def check_room(prefix, max_lengths, pad_token_id):
    """Refuses a prefix for which its row has no room."""
    for row, length in zip(prefix, max_lengths, strict=True):
        written = np.flatnonzero(np.asarray(row) != pad_token_id)
        if len(written) and written[-1] >= length:
            raise ValueError(
                "`max_length` must leave room for the prefix. Received: max_length="
                f"{length} for a prefix of {written[-1] + 1} tokens."
            )


def check_ends(name, rows, end_token_id, pad_token_id):
    """Refuse tokens behind an end token, or behind padding."""
    for row in rows:
        ids = np.asarray(row)
        has_ended = np.cumsum(ids == end_token_id) > 0
        is_token = ids != pad_token_id
        if (ids[1:][has_ended[:-1]] != pad_token_id).any():
            raise ValueError(
                f"Nothing but padding may stand behind the end token, {end_token_id}, "
                f"of a {name}. Received: {ids.tolist()}."
            )
        if not is_token[: is_token.sum()].all():
            advice = "Leave it out."
            if name == "prefix":
                advice = (
                    "A search writes what it likes between given tokens with "
                    "`kseq.decoding.ForcedTokens([4, None, 5])`."
                )
            raise ValueError(
                f"Padding, {pad_token_id}, must stand behind the tokens of a {name}, "
                f"not among or before them. Received: {ids.tolist()}. {advice}"
            )


def check_pairs(rows):
    """Refuses a target, or a prefix, for other than every source."""
    (first, firsts), (second, seconds) = rows.items()
    if len(firsts) != len(seconds):
        raise ValueError(
            f"Every {first} needs its {second}. Received: {len(firsts)} rows of "
            f"{first} and {len(seconds)} of {second}."
        )


def source_lengths(rows, padding):
    """How many steps of each row are not padding."""
    lengths = []
    for row in rows:
        if not len(row):
            lengths.append(0)
            continue
        steps = np.reshape(row, (len(row), -1))  # S F
        is_padding = np.isnan(steps) if padding != padding else steps == padding
        lengths.append(int((~is_padding).any(axis=-1).sum()))
    return lengths


def in_batches(choose, inputs, batch_size, paddings):
    """Runs a model over rows of similar lengths, in few different shapes.

    The first input decides the order. Lengths are rounded up, to a multiple of
    `LENGTH_MULTIPLE`, or to a power of two where XLA takes seconds for each; and so is
    the number of rows, by repeating the last row. A compiled model meets few shapes.

    Args:
        choose: Function of the rows of a batch that returns the model to run.
        inputs: Rows by name.
        batch_size: Most rows of a batch.
        paddings: What fills up short rows, by name of the inputs and of the outputs;
            None where rows are never short.

    Returns:
        The outputs by name, a row for each row of the inputs, in their order.
    """
    positive_integer("batch_size", batch_size)
    first = next(iter(inputs.values()))
    lengths = [len(row) if np.ndim(row) else 0 for row in first]
    order = np.lexsort((inputs.get("max_lengths", lengths), lengths))
    results = []
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        rows = {name: [rows[i] for i in chosen] for name, rows in inputs.items()}
        model = choose(rows)
        batch = as_batch(rows, batch_size, paddings, model.jit_compile)
        with quietly():
            outputs = model.predict_on_batch(batch)
        results.append({k: v[: len(chosen)] for k, v in outputs.items()})
    restored = np.argsort(order, kind="stable")
    return {
        name: _concatenate([r[name] for r in results], paddings.get(name, 0))[restored]
        for name in results[0]
    }


@contextlib.contextmanager
def quietly():
    """TensorFlow takes the loops of all models for one, and warns of the fifth."""

    def is_news(record):
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(is_news)
    try:
        yield
    finally:
        logger.removeFilter(is_news)


def as_batch(rows, batch_size, paddings, to_power_of_two):
    """Arrays by name, in one of few shapes: the last row repeated, short ones filled.

    The number of rows is rounded up to a power of two, but no more than `batch_size`.
    """
    count = len(next(iter(rows.values())))
    more = min(1 << (count - 1).bit_length(), batch_size) - count
    return {
        name: _pad([*values, *[values[-1]] * more], paddings[name], to_power_of_two)
        for name, values in rows.items()
    }


def rounded_up(length, to_power_of_two):
    """One of few lengths that is at least this one."""
    length = -(-max(length, 1) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    return 1 << (length - 1).bit_length() if to_power_of_two else length


def _pad(rows, padding, to_power_of_two):
    """Rows of different lengths as one array, filled up behind."""
    if padding is None:
        return np.stack(rows)
    length = rounded_up(max(len(row) for row in rows), to_power_of_two)
    features = max((np.shape(row)[1:] for row in rows), key=len)
    padded = np.full(
        (len(rows), length, *features), padding, "float32" if features else "int32"
    )
    for target, row in zip(padded, rows, strict=True):
        if len(row):
            target[: len(row)] = row
    return padded


def _concatenate(arrays, padding):
    """Joins arrays of batches, which may differ in length, along the first axis."""
    shape = np.max([array.shape[1:] for array in arrays], axis=0)
    return np.concatenate(
        [
            np.pad(
                array,
                [(0, 0)]
                + [
                    (0, size - own)
                    for size, own in zip(shape, array.shape[1:], strict=True)
                ],
                constant_values=padding,
            )
            for array in arrays
        ]
    )
