"""Checks and conversions of sources as users pass them, of one or several inputs.

Axes in shape comments: B rows, S source steps.
"""

import reprlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kseq.builders.row_checks import (
    check_ids,
    check_lengths,
    check_rank,
    num_steps,
    token_rows,
)
from kseq.layers import SummedEmbedding
from kseq.layers.named_parts import check_names, rows_by_name
from kseq.layers.validation import positive_integer


def source_rows(model: keras.Model, source: Any, num_rows: int | None = None) -> Any:
    """Return the checked rows of a source, in any form that a model accepts.

    For several inputs each row is a dictionary. A model without a source takes the
    number of rows, which may be omitted if another input gives it.
    """
    symbol = source_symbol(model)
    if symbol is None:
        if source is not None or num_rows is None:
            num_rows = number_of_rows(source)
        return [[]] * num_rows
    rows = rows_of_input(
        "source",
        source,
        symbol,
        model.source_padding,
        model.source_size,
        model.source_length,
    )
    check_summed(getattr(model, "source", None), rows)
    return rows


def source_symbol(model: keras.Model) -> Any:
    """Return the symbolic input of the source, a dictionary of several, or None."""
    inputs = model.input
    return inputs.get("source") if isinstance(inputs, dict) else inputs


def rows_of_input(
    name: str, source: Any, symbol: Any, padding: Any, size: Any, longest: Any
) -> Any:
    """Return the checked rows of one input, or of several by name.

    Args:
        name: Name of the argument.
        source: Argument as passed by the user.
        symbol: Symbolic input. For several inputs this and all below are dictionaries.
        padding: Padding of short rows, or None.
        size: Number of ids, or None.
        longest: Maximum number of steps of a row, or None.
    """
    if isinstance(symbol, dict):
        check_names(name, source, symbol)
        columns = {
            key: rows_of_input(
                f'{name}["{key}"]',
                source[key],
                symbol[key],
                padding[key],
                size[key],
                longest[key],
            )
            for key in symbol
        }
        return rows_by_name(name, columns)
    if padding is None:
        return alike_rows(name, source, symbol, size, longest)
    rows = token_rows(name, source)
    check_rank(name, rows, symbol.shape)
    if longest is not None:
        check_lengths(name, num_steps(rows, padding), longest)
    return check_ids(name, rows, size)


def check_summed(embedding: Any, rows: Sequence[Any]) -> None:
    """Raise if inputs whose vectors are summed differ in their number of steps."""
    if not isinstance(rows[0], dict) or not hasattr(embedding, "embeddings"):
        return
    if isinstance(embedding, SummedEmbedding):
        for index, row in enumerate(rows):
            steps = {key: row_length(each) for key, each in row.items()}
            if len(set(steps.values())) > 1:
                raise ValueError(
                    "Inputs of `source` whose vectors are summed must have the same "
                    f"number of steps. Received: row {index} with {steps} steps."
                )
    for key, part in embedding.embeddings.items():
        check_summed(part, [row[key] for row in rows])


def row_length(row: Any) -> int:
    """Return the number of steps of a row, with padding; the maximum of all inputs."""
    if isinstance(row, dict):
        return max(map(row_length, row.values()))
    return len(row) if np.ndim(row) else 0


def real_steps(rows: Sequence[Any], symbol: Any, padding: Any) -> list[int]:
    """Return the number of real steps of each row; the maximum of several inputs."""
    if isinstance(symbol, dict):
        each = [
            real_steps([row[key] for row in rows], symbol[key], padding[key])
            for key in symbol
        ]
        return list(map(max, zip(*each, strict=True)))
    if padding is not None:
        return num_steps(rows, padding)
    return [len(row) if len(symbol.shape) == 3 else 0 for row in rows]


def number_of_rows(source: Any) -> int:
    """Return the number of rows to generate, the source of a model without one."""
    if hasattr(source, "__len__"):
        raise ValueError(
            "`source` must be the number of sequences to generate, a positive integer, "
            "as the model has no source. Received: "
            f"source={reprlib.repr(source)}. Pass the first tokens as a prefix: "
            "`generate(2, prefix=[[4, 5], [6]])`."
        )
    return positive_integer("source", source)


def alike_rows(
    name: str, source: Any, symbol: Any, size: Any, longest: Any
) -> np.ndarray:
    """Return rows that must all have the shape of a symbolic input, as one array."""
    try:
        source = ops.convert_to_numpy(source)
    except ValueError:
        source = np.empty((len(source), 0))  # rows of different shapes
    if source.ndim != len(symbol.shape) or not len(source):
        raise ValueError(
            f"`{name}` must have at least one row, shape (B, ...) = "
            f"{symbol.shape}, all of one shape. Received: {name} of shape "
            f"{source.shape}. A `FeatureEmbedding` with a `mask_value` takes rows "
            "of different lengths."
        )
    if len(symbol.shape) == 3:
        check_lengths(name, [source.shape[1]], longest)
    check_ids(name, source, size)
    return np.asarray(source, symbol.dtype)


def rows_of_batches(source: Any, symbol: Any = None) -> Any:
    """Return the rows of all batches if the source comes in batches, or the source.

    Batches come from a `tf.data.Dataset`, a `keras.utils.PyDataset`, a loader or a
    generator. Of training batches, `(inputs, targets, ...)` or the inputs alone, the
    input "source" is used.

    Args:
        source: Argument as passed by the user.
        symbol: Symbolic input of the model, a dictionary of several, or None.
    """
    if isinstance(source, dict):  # training inputs, or several inputs by name
        return rows_of_batch(source, symbol)
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
            "A source in batches must be finite. Received: "
            f"{source!r}, which is endless. Use a part: `dataset.take(10)`, or for a "
            "`PyDataset` `(dataset[i] for i in range(10))`."
        )
    return put_together([rows_of_batch(batch, symbol) for batch in batches])


def rows_of_batch(batch: Any, symbol: Any = None) -> Any:
    """Return the source rows of one batch."""
    if isinstance(batch, tuple):
        batch = batch[0]
    is_several = isinstance(symbol, dict)
    if isinstance(batch, dict) and is_several:
        # One of several sources may be called "source", too.
        is_training = isinstance(batch.get("source"), dict)
        return as_arrays(batch["source"] if is_training else batch)
    if isinstance(batch, dict):
        if "source" not in batch:
            raise ValueError(
                'A batch of several inputs must have an input "source". Received: '
                f"a batch of {sorted(batch)}."
            )
        batch = batch["source"]
    return as_arrays(batch)


def as_arrays(batch: Any) -> Any:
    """Return a batch as rows or as an array; several inputs by name."""
    if isinstance(batch, dict):
        return {name: as_arrays(each) for name, each in batch.items()}
    if hasattr(batch, "to_list"):  # ragged
        return batch.to_list()
    return ops.convert_to_numpy(batch) if hasattr(batch, "shape") else batch


def put_together(batches: Sequence[Any]) -> Any:
    """Return the rows of all batches; several inputs by name."""
    if batches and isinstance(batches[0], dict):
        return {
            name: put_together([batch[name] for batch in batches])
            for name in batches[0]
        }
    return [row for batch in batches for row in batch]
