"""Steps of sequences inside a compiled loop: pad, read, write, and skip masked ones.

Axes in shape comments: B batch, T steps, D features, U units.
"""

from collections.abc import Sequence

from keras import ops

from kseq.layers.backends import slice_start
from kseq.typing import Tensor

# Sequences of unknown length are padded to a multiple of this, so that XLA compiles for
# few lengths.
LENGTH_MULTIPLE = 8


def fill_up(
    sequences: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Pad sequences of unknown length to a multiple of `LENGTH_MULTIPLE` steps.

    Returns:
        `(sequences (B, T, D), mask (B, T) or None)`. A known length is unchanged.
    """
    if sequences.shape[1] is not None:
        return sequences, mask
    missing = -ops.shape(sequences)[1] % LENGTH_MULTIPLE
    sequences = ops.pad(sequences, ((0, 0), (0, missing), (0, 0)))
    return sequences, mask if mask is None else ops.pad(mask, ((0, 0), (0, missing)))


def rows(tensor: Tensor) -> Tensor:
    """Reshape `(B, T, D)` to `(BT, D)`."""
    return ops.reshape(tensor, (-1, tensor.shape[-1]))


def read(sequence: Tensor, step: Tensor | int) -> Tensor:
    """Return step `step` of `(B, T, ...)`."""
    batch, _, *rest = ops.shape(sequence)
    start = slice_start(len(rest) + 2, 1, step)
    return ops.squeeze(ops.slice(sequence, start, (batch, 1, *rest)), 1)


def write(sequence: Tensor, value: Tensor, step: Tensor | int) -> Tensor:
    """Return `(B, T, ...)` with step `step` replaced by `value (B, ...)`."""
    start = slice_start(len(value.shape) + 1, 1, step)
    return ops.slice_update(sequence, start, ops.expand_dims(value, 1))


def first_steps(sequence: Tensor, length: Tensor | int) -> Tensor:
    """Return `sequence[:, :length]` of `(B, T, U)`, with a faster gradient."""
    batch, _, width = ops.shape(sequence)
    return ops.slice(sequence, (0, 0, 0), (batch, length, width))


def places(t: Tensor, length: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the positions of loop step `t` and of the states before and after it.

    The states are `length + 1`: one before each step and one after the last.
    """
    if reverse:
        return length - 1 - t, length - t, length - 1 - t
    return t, t, t + 1


def choose(
    masks: Sequence[Tensor],
    step: Tensor | int,
    new: list[Tensor],
    old: Sequence[Tensor],
) -> list[Tensor]:
    """Return the new tensors in rows where the step is real, and the old elsewhere.

    `masks` is empty or holds one mask `(B, T)`.
    """
    if not masks:
        return new
    real = ops.expand_dims(read(masks[0], step), -1)  # B 1
    return [ops.where(real, n, o) for n, o in zip(new, old, strict=True)]


def real_range(
    masks: Sequence[Tensor], length: Tensor, steps: Tensor | int, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Return the range `begin <= t < end` of loop steps that are real in some row.

    Other steps are not computed, so padding that all rows share costs nothing.
    """
    if not masks:
        return ops.zeros_like(length), length
    numbers = ops.arange(steps, dtype="int32")
    is_real = ops.any(masks[0], axis=0) & (numbers < length)  # T
    first = ops.min(ops.where(is_real, numbers, steps))
    last = ops.max(ops.where(is_real, numbers, -1))
    return (length - 1 - last, length - first) if reverse else (first, last + 1)


def loop_step_of_each(
    sequence: Tensor, length: Tensor, reverse: bool, is_after: bool = False
) -> Tensor:
    """Return the loop step at each position of `(B, T, U)`, shape `(T, 1)`.

    With `is_after` the sequence holds the states before and after the steps, and the
    result is the step that each state comes after.
    """
    places = ops.arange(ops.shape(sequence)[1], dtype="int32")[:, None]
    if reverse:
        return length - 1 - places
    return places - 1 if is_after else places
