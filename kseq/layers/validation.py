"""Checks of arguments with the same messages in every layer."""

import math
import numbers
from collections.abc import Collection
from typing import Any, TypeVar

import keras
from keras import ops

from kseq.typing import Shape, Tensor

Option = TypeVar("Option")


def positive_integer(name: str, value: Any) -> int:
    """Return the value; raise unless it is an integer of at least 1."""
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}."
        )
    return int(value)


def optional_positive_integer(name: str, value: Any) -> int | None:
    """Return the value; raise unless it is None or an integer of at least 1."""
    return None if value is None else positive_integer(name, value)


def count(name: str, value: Any) -> int:
    """Return the value; raise unless it is a non-negative integer."""
    if integer(name, value) < 0:
        raise ValueError(
            f"`{name}` must be a non-negative integer. Received: {name}={value!r}."
        )
    return int(value)


def integer(name: str, value: Any) -> int:
    """Return the value; raise unless it is an integer."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise ValueError(f"`{name}` must be an integer. Received: {name}={value!r}.")
    return int(value)


def number(name: str, value: Any) -> float:
    """Return the value; raise unless it is a number, which may be NaN."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ValueError(f"`{name}` must be a number. Received: {name}={value!r}.")
    return float(value)


def positive_number(name: str, value: Any) -> float:
    """Return the value; raise unless it is a finite number above 0."""
    if not 0 < number(name, value) < math.inf:
        raise ValueError(
            f"`{name}` must be a positive number. Received: {name}={value!r}."
        )
    return float(value)


def not_negative(name: str, value: Any) -> float:
    """Return the value; raise unless it is a finite non-negative number."""
    if not 0 <= number(name, value) < math.inf:
        raise ValueError(
            f"`{name}` must be a non-negative number. Received: {name}={value!r}."
        )
    return float(value)


def known_ids(name: str, ids: Tensor, size: int) -> Tensor:
    """Return ids; raise if any is below 0 or not below `size`.

    In a compiled function the ids cannot be checked. There, ids below 0 are replaced
    by `size`, so that no backend uses them as indices from the end.
    """
    seen = concrete_values(whole_numbers(name, ids))
    if seen is None:
        return ops.where(ids < 0, size, ids)
    is_wrong = (seen < 0) | (seen >= size)
    if is_wrong.any():
        raise ValueError(
            f"`{name}` must be ids from 0 to {size - 1}. Received: {name} with "
            f"{seen[is_wrong].flat[0]}. Encode it with the vocabulary or the classes "
            "that the model was made for."
        )
    return ids


def whole_numbers(name: str, values: Tensor) -> Tensor:
    """Return the values; raise if any is known not to be a whole number."""
    if hasattr(values, "to_tensor"):
        raise ValueError(
            f"`{name}` must be padded to one length. Received: a ragged tensor. Pad "
            f"it: `{name}.to_tensor()`. `generate`, `score` and the batches of "
            "`kseq.training` accept ragged tensors."
        )
    if "float" in keras.backend.standardize_dtype(values.dtype):
        seen = concrete_values(values)
        if seen is not None and (seen % 1 != 0).any():
            wrong = seen[seen % 1 != 0].flat[0]
            raise ValueError(
                f"`{name}` must be integers. Received: {name} with the value {wrong}. "
                "For floats use a `FeatureEmbedding`."
            )
    return values


def concrete_values(tensor: Tensor) -> Any:
    """Return the values as a NumPy array, or None while a function is compiled."""
    try:
        return ops.convert_to_numpy(tensor)
    except Exception:  # backends differ in what they raise for a symbolic tensor
        return None


def sequence_shape(name: str, shape: Shape) -> tuple[Any, ...]:
    """Return the shape; raise unless it is that of a sequence of vectors."""
    if len(shape) != 3:
        raise ValueError(
            f"`{name}` must be a sequence of vectors, shape (B, S, D). Received: "
            f"{name} of shape {tuple(shape)}."
        )
    return shape


def same_rows(name: str, shape: Shape, other: str, other_shape: Shape) -> None:
    """Raise if the batch sizes of two arguments are known to differ."""
    rows, others = sequence_shape(name, shape)[0], sequence_shape(other, other_shape)[0]
    if None not in (rows, others) and rows != others:
        raise ValueError(
            f"`{name}` must have the batch size of `{other}`. Received: {name} of "
            f"shape {tuple(shape)}, {other} of shape {tuple(other_shape)}."
        )


def check_hypotheses(shape: Shape, state_shape: Shape) -> None:
    """Raise unless the inputs of a step are one vector per hypothesis of the state."""
    shape, (rows, beams) = tuple(shape), tuple(state_shape)[:2]
    has_rows = len(shape) == 3 and shapes_compatible(shape[:1], (rows,))
    if has_rows and not shapes_compatible(shape[1:2], (beams,)):
        raise ValueError(
            "`state` must have as many hypotheses as `inputs`. Received: a state of "
            f"{beams} for inputs of shape {shape}. Pass the number when you start: "
            f"`decoder.start(memory, num_beams={shape[1]})`."
        )
    if len(shape) != 3 or not shapes_compatible(shape[:1], (rows,)):
        raise ValueError(
            "`inputs` must be one vector per hypothesis, shape (B, K, D), where (B, "
            f"K) is {(rows, beams)}. Received: inputs of shape {shape}. Embed the last "
            "tokens, integers (B, K), first."
        )


def shapes_compatible(shape: Shape, other: Shape) -> bool:
    """Tell whether two shapes may be equal, where None stands for any size."""
    pairs = zip(shape, other, strict=False)
    return len(shape) == len(other) and all(
        None in pair or pair[0] == pair[1] for pair in pairs
    )


def rate(name: str, value: Any) -> float:
    """Return the value; raise unless it is a rate, such as dropout, in [0, 1)."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value < 1:
        raise ValueError(
            f"`{name}` must be a number from 0 up to, but not including, 1. "
            f"Received: {name}={value!r}."
        )
    return float(value)


def one_of(name: str, value: Option, options: Collection[object]) -> Option:
    """Return the value; raise unless it is one of the options."""
    if value not in options:
        listed = ", ".join(
            f'"{option}"' if isinstance(option, str) else str(option)
            for option in options
        )
        raise ValueError(
            f"`{name}` must be one of {listed}. Received: {name}={value!r}."
        )
    return value
