"""The mean of what several models say: how an ensemble decides.

Axes in shape comments: M models, B batch, V classes.
"""

import math

import keras
from keras import ops

from kseq.layers.layer import Layer
from kseq.layers.masking import apply_mask
from kseq.layers.validation import shapes_compatible


@keras.saving.register_keras_serializable(package="kseq")
class MeanProbability(Layer):
    """Merges logits: the logarithm of the mean of their probabilities.

    `log(1/M sum_m softmax(logits_m))`, a mixture of M equal experts, which is right
    more often than its members where their errors differ. As logarithms of
    probabilities the result can stand wherever logits do.

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        logits: A list of M tensors `(B, ..., V)`, all of one shape.
        mask: A list of boolean masks `(B, ...)`, or of None; where one is False, zeros
            are read. Defaults to the Keras masks of the logits.

    Returns:
        Natural logarithms `(B, ..., V)`, computed in float32 and given in the layer's
        dtype, with the Keras mask of the first of the logits.

    Raises:
        ValueError: There is no list of logits, their shapes differ, or V is 1, so that
            there is nothing to choose between.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.layers import MeanProbability
    >>> sure, unsure = np.log([[0.9, 0.1]]), np.log([[0.3, 0.7]])
    >>> np.exp(keras.ops.convert_to_numpy(MeanProbability()([sure, unsure]))).round(4)
    array([[0.6, 0.4]], dtype=float32)

    References:
        - [Dietterich, 2000](https://doi.org/10.1007/3-540-45014-9_1), 2 (ensembles)
        - [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215), 3.6 (of writers)
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, shapes):
        is_list = bool(shapes) and isinstance(shapes[0], (list, tuple))
        if not is_list or not all(shapes_compatible(s, shapes[0]) for s in shapes):
            raise ValueError(
                "`logits` must be a list of tensors of one shape, (B, ..., V). "
                f"Received: shapes {shapes or []}. Give the logits of all models "
                "together."
            )
        if shapes[0][-1] == 1:
            raise ValueError(
                "`logits` must have two classes or more on the last axis. Received: "
                f"shapes {shapes}. The mean of values is `keras.layers.Average`."
            )

    def compute_output_shape(self, logits_shape):
        return logits_shape[0]

    def call(self, logits, mask=None):
        masks = [None] * len(logits) if mask is None else mask
        logits = [apply_mask(x, each) for x, each in zip(logits, masks, strict=True)]
        log_probs = [ops.log_softmax(ops.cast(x, "float32"), axis=-1) for x in logits]
        total = ops.logsumexp(ops.stack(log_probs), axis=0)  # B ... V
        return ops.cast(total - math.log(len(log_probs)), self.compute_dtype)

    def compute_mask(self, logits, previous_mask):
        return None if previous_mask is None else previous_mask[0]
