"""Scores of sequence heads for each step: a dense layer and checks.

Axes in shape comments: B batch, S steps, U units, L labels.
"""

from typing import TYPE_CHECKING

import keras
from keras import ops

from kseq.layers.backends import matmul
from kseq.layers.masking import apply_mask, mask_of, step_mask
from kseq.typing import Tensor, TensorLike

if TYPE_CHECKING:
    from kseq.layers.crf import CRF
    from kseq.layers.ctc import CTC


def dense_scores(
    inputs: Tensor, mask: TensorLike | None, kernel: Tensor, bias: Tensor
) -> Tensor:
    """Return `W x + b` of each step, `(B, S, L)`, with masked steps read as zeros."""
    inputs = apply_mask(inputs, mask)
    rows = ops.reshape(inputs, (-1, inputs.shape[-1]))  # BS U
    scores = matmul(rows, kernel) + bias
    return ops.reshape(scores, (*ops.shape(inputs)[:-1], kernel.shape[-1]))


def checked_scores(
    head: "CRF | CTC",
    name: str,
    scores: TensorLike,
    mask: TensorLike | None,
    is_ready: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return the scores of a head, in at least float32, and their mask.

    Args:
        head: Layer that computed the scores, with the attribute `num_labels`.
        name: Name of the argument, for the message.
        scores: Scores `(B, S, L)`.
        mask: Boolean `(B, S)`. None for the Keras mask of the scores, or for all steps
            if they have none.
        is_ready: Whether the head has the weights that it needs.

    Raises:
        ValueError: The scores have another shape, or the head is not ready.
    """
    given = mask_of(scores) if mask is None else mask
    scores = ops.convert_to_tensor(scores)
    shape = tuple(scores.shape)
    if len(shape) != 3 or shape[-1] != head.num_labels or not is_ready:
        state = "" if is_ready else ", before the layer was called"
        call = f"{name} = {type(head).__name__.lower()}(inputs)"
        raise ValueError(
            f"`{name}` must be the output of the layer, shape (B, S, "
            f"{head.num_labels}). Received: {name} of shape {shape}{state}. Call the "
            f"layer first: `{call}`."
        )
    dtype = keras.backend.result_type(head.variable_dtype, "float32")
    scores = ops.cast(scores, dtype)
    mask = step_mask(given, scores)
    if mask is None:
        mask = ops.ones(ops.shape(scores)[:-1], "bool")
    return scores, mask
