"""The scores that the heads of sequences give each step: a dense layer, and its checks.

Axes in shape comments: B batch, S steps, U units, L labels.
"""

import keras
from keras import ops

from kseq.layers.backends import matmul
from kseq.layers.masking import apply_mask, mask_of, step_mask


def dense_scores(inputs, mask, kernel, bias):
    """`W x + b` of each step, `(B, S, L)`; zeros are read where a step is masked."""
    inputs = apply_mask(inputs, mask)
    rows = ops.reshape(inputs, (-1, inputs.shape[-1]))  # BS U
    scores = matmul(rows, kernel) + bias
    return ops.reshape(scores, (*ops.shape(inputs)[:-1], kernel.shape[-1]))


def checked_scores(head, name, scores, mask, is_ready=True):
    """The scores of a head, in float32 at least, and their mask.

    Args:
        head: The layer that gave them, of which `num_labels` is known.
        name: What the argument is called.
        scores: What was given, `(B, S, L)`.
        mask: Boolean `(B, S)`, or None for the Keras mask, or for all steps.
        is_ready: Whether the head has the weights that are needed.

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
            f"`{name}` must be what the layer returned, shape (B, S, "
            f"{head.num_labels}). Received: {name} of shape {shape}{state}. Call it "
            f"first: `{call}`."
        )
    dtype = keras.backend.result_type(head.variable_dtype, "float32")
    scores = ops.cast(scores, dtype)
    mask = step_mask(given, scores)
    if mask is None:
        mask = ops.ones(ops.shape(scores)[:-1], "bool")
    return scores, mask
