"""Mean of the probabilities of several models: the output of an ensemble.

Axes in shape comments: M models, B batch, V classes.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kseq.layers.layer import Layer
from kseq.layers.masking import apply_mask
from kseq.layers.validation import shapes_compatible
from kseq.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class MeanProbability(Layer):
    """Logarithm of the mean probability of several logits.

    `log(1/M sum_m softmax(logits_m))`, a mixture of M equal experts. Where the errors
    of its members differ, it is right more often than they are. The results are log
    probabilities, so they can be used wherever logits can.

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        logits: A list of M tensors `(B, ..., V)`, all of one shape.
        mask: A list of boolean masks `(B, ...)`, or of None. Logits are read as zeros
            where their mask is False. Defaults to the Keras masks of the logits.

    Returns:
        Natural logarithms `(B, ..., V)`, computed in float32 and returned in the
        layer's dtype, with the Keras mask of the first logits.

    Raises:
        ValueError: `logits` is not a list, the shapes differ, or V is 1, so that
            there is only one class.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.layers import MeanProbability
    >>> sure, unsure = np.log([[0.9, 0.1]]), np.log([[0.3, 0.7]])
    >>> np.exp(keras.ops.convert_to_numpy(MeanProbability()([sure, unsure]))).round(4)
    array([[0.6, 0.4]], dtype=float32)

    References:
        - [Dietterich, 2000](https://doi.org/10.1007/3-540-45014-9_1), 2 (ensembles)
        - [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215), 3.6 (of decoders)
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, shapes: Sequence[Shape]) -> None:
        is_list = bool(shapes) and isinstance(shapes[0], (list, tuple))
        if not is_list or not all(shapes_compatible(s, shapes[0]) for s in shapes):
            raise ValueError(
                "`logits` must be a list of tensors of one shape, (B, ..., V). "
                f"Received: shapes {shapes or []}. Pass the logits of all models in "
                "one list."
            )
        if shapes[0][-1] == 1:
            raise ValueError(
                "`logits` must have two classes or more on the last axis. Received: "
                f"shapes {shapes}. The mean of values is `keras.layers.Average`."
            )

    def compute_output_shape(self, logits_shape: Sequence[Shape]) -> Shape:
        return logits_shape[0]

    def call(
        self, logits: Sequence[Tensor], mask: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        masks = [None] * len(logits) if mask is None else mask
        logits = [apply_mask(x, each) for x, each in zip(logits, masks, strict=True)]
        log_probs = [ops.log_softmax(ops.cast(x, "float32"), axis=-1) for x in logits]
        total = ops.logsumexp(ops.stack(log_probs), axis=0)  # B ... V
        return ops.cast(total - math.log(len(log_probs)), self.compute_dtype)

    def compute_mask(
        self, logits: Sequence[Tensor], previous_mask: Sequence[Tensor | None] | None
    ) -> Tensor | None:
        return None if previous_mask is None else previous_mask[0]
