"""Checks and conversions of token rows as users pass them.

Axes in shape comments: B rows, S source steps, T target steps, F features.
"""

import reprlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kseq.typing import Shape


def prefix_rows(model: keras.Model, prefix: Any, num_rows: int) -> Any:
    """Return the checked rows of a prefix, one for each source."""
    prefix, drawable = token_rows("prefix", prefix), getattr(model, "drawable", None)
    if drawable is not None:
        check_drawable(prefix, drawable, model.pad_token_id)
    prefix = check_ids("prefix", prefix, model.target_size)
    check_ends("prefix", prefix, model.end_token_id, model.pad_token_id)
    check_pairs("prefix", prefix, num_rows)
    return prefix


def check_drawable(prefix: Sequence[Any], drawable: range, pad_token_id: int) -> None:
    """Raise if the prefix of an image has tokens that do not occur in images."""
    for row in map(np.ravel, prefix):
        wrong = [x for x in row.tolist() if x != pad_token_id and x not in drawable]
        if wrong:
            raise ValueError(
                f"`prefix` must hold tokens of an image, from {drawable.start} to "
                f"{drawable.stop - 1}. Received: prefix with {wrong[0]}. Leave out the "
                "start token: `image_tokens(images)[:, 1:]`."
            )


def check_target(model: keras.Model, target: Sequence[Any]) -> None:
    """Raise if the model cannot have generated the targets."""
    check_rank("target", target, (None, None))
    check_ids("target", target, model.target_size)
    check_ends("target", target, model.end_token_id, model.pad_token_id)
    check_lengths("target", num_steps(target, model.pad_token_id), model.target_length)


def token_rows(name: str, ids: Any) -> Any:
    """Return rows of token ids: an array, or a list of lists."""
    if hasattr(ids, "to_list"):  # ragged
        ids = ids.to_list()
    if hasattr(ids, "shape"):
        ids = ops.convert_to_numpy(ids)
    if isinstance(first_of(ids), (str, bytes)):
        raise ValueError(
            f"`{name}` must be token ids. Received: {name}={reprlib.repr(ids)}, which "
            "is text. Encode texts with `vocabulary.encode(texts)`, or use a pipeline "
            "that takes texts, such as `kseq.text.TextToText(model, vocabulary, "
            "vocabulary)`, or `kseq.text.TextToImage(model, vocabulary)` for images."
        )
    if not is_filled(ids) or not is_sized(ids[0]):
        raise ValueError(
            f"`{name}` must hold at least one row of token ids: shape (B, T), or a "
            f"list of lists. Received: {name}={ids!r}. Pass a single row as a list of "
            f"one, `[{name}]`. Batch the elements of a data set with `.batch(32)` "
            "first."
        )
    return ids


def first_of(rows: Any) -> Any:
    """Return the first innermost element of nested rows."""
    while not isinstance(rows, (str, bytes)) and is_filled(rows):
        rows = rows[0]
    return rows


def is_sized(rows: Any) -> bool:
    return hasattr(rows, "__len__") and getattr(rows, "shape", None) != ()


def is_filled(rows: Any) -> bool:
    return is_sized(rows) and len(rows) > 0


def check_ids(name: str, rows: Sequence[Any], size: int | None) -> Any:
    """Return the rows if all ids are below the size, which a backend may not check."""
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


def check_lengths(name: str, lengths: Sequence[int], longest: int | None) -> None:
    """Raise if rows have more steps than there are learned positions, if any."""
    if longest is not None and max(lengths) > longest:
        raise ValueError(
            f"`{name}` must not have more steps than its embedding has learned "
            f"positions, not counting padding. Received: {max(lengths)} steps with "
            f"max_length={longest}. Truncate it, or train with more positions."
        )


def check_rank(name: str, rows: Sequence[Any], shape: Shape) -> None:
    """Raise if rows have other axes than `(B, ...)`, such as `(B, S)`."""
    for row in rows:
        if len(row) and np.ndim(row) != len(shape) - 1:
            raise ValueError(
                f"`{name}` must have the shape {shape}, or be rows of different "
                f"lengths. Received: a row of shape {np.shape(row)}."
            )


def check_room(
    prefix: Sequence[Any], max_lengths: Sequence[int], pad_token_id: int
) -> None:
    """Raise if a prefix is longer than `max_length`."""
    for row, length in zip(prefix, max_lengths, strict=True):
        written = np.flatnonzero(np.asarray(row) != pad_token_id)
        if len(written) and written[-1] >= length:
            raise ValueError(
                "`max_length` must leave room for the prefix. Received: max_length="
                f"{length} for a prefix of {written[-1] + 1} tokens."
            )


def check_ends(
    name: str, rows: Sequence[Any], end_token_id: int, pad_token_id: int
) -> None:
    """Raise if tokens follow an end token or padding."""
    for row in rows:
        ids = np.asarray(row)
        has_ended = np.cumsum(ids == end_token_id) > 0
        is_token = ids != pad_token_id
        if (ids[1:][has_ended[:-1]] != pad_token_id).any():
            raise ValueError(
                f"Only padding may follow the end token, {end_token_id}, of a {name}. "
                f"Received: {ids.tolist()}."
            )
        if not is_token[: is_token.sum()].all():
            advice = "Leave it out."
            if name == "prefix":
                advice = (
                    "To generate tokens between given ones, use "
                    "`kseq.decoding.ForcedTokens([4, None, 5])`."
                )
            raise ValueError(
                f"Padding, {pad_token_id}, must follow all tokens of a {name}. "
                f"Received: {ids.tolist()}. {advice}"
            )


def check_pairs(name: str, rows: Sequence[Any], num_sources: int) -> None:
    """Require one target, or prefix, per source."""
    if len(rows) != num_sources:
        raise ValueError(
            f"Every source needs a {name}. Received: {num_sources} rows of "
            f"source and {len(rows)} of {name}."
        )


def num_steps(rows: Sequence[Any], padding: float) -> list[int]:
    """Return the number of steps of each row that are not padding."""
    lengths = []
    for row in rows:
        if not len(row):
            lengths.append(0)
            continue
        steps = np.reshape(row, (len(row), -1))  # S F
        is_padding = np.isnan(steps) if padding != padding else steps == padding
        lengths.append(int((~is_padding).any(axis=-1).sum()))
    return lengths
