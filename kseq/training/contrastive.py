"""The loss of models that tell which of a batch belong together.

Axes in shape comments: B batch, T token ids of a caption.
"""

import keras
import numpy as np
from keras import ops

from kseq.layers.validation import shapes_compatible


@keras.saving.register_keras_serializable(package="kseq")
class ContrastiveLoss(keras.losses.Loss):
    """Symmetric cross-entropy of a batch of pairs, as CLIP learns by.

    Each row is to find its column among those of the batch, and each column its row:
    with logits `z` the pair `i` costs

        (logsumexp(z[i, :]) - z[i, i] + logsumexp(z[:, i]) - z[i, i]) / 2

    A batch may hold the same thing twice, two pictures of one caption, which the
    diagonal alone would call wrong. So rows of `y_true` that are equal are equally
    right for each other: give the captions' token ids, or a number for each caption;
    the true probability is then spread evenly over them. Where all rows are equal, as
    zeros are, they say nothing, and the diagonal is right. Computed in float32 at
    least.

    Args:
        name: Name of the loss.
        dtype: Precision of the computation, float32 or wider. Less becomes float32.

    Call arguments:
        y_true: Numbers `(B,)` or `(B, T)`, of which only is read which rows are equal.
        y_pred: Logits `(B, B)`: how well each row, a text, goes with each column, a
            picture.
        sample_weight: Weights of the pairs, `(B,)`. A pair of weight 0 still is a wrong
            answer to the others.

    Returns:
        Scalar: the weighted mean of the pairs' losses.

    Raises:
        ValueError: `y_pred` is not square, or does not have the rows of `y_true`.

    Example:

    >>> import numpy as np
    >>> from kseq.training import ContrastiveLoss
    >>> logits = np.zeros((4, 4), "float32")  # nothing is known
    >>> round(float(ContrastiveLoss()(np.arange(4), logits)), 4)  # log(4)
    1.3863

    References:
        - [Radford et al., 2021](https://arxiv.org/abs/2103.00020), 2.3, figure 3
        - [Yang et al., 2022](https://arxiv.org/abs/2204.03610), 3.2 (several are right)
    """

    def __init__(self, name="contrastive_loss", dtype=None):
        super().__init__(name=name, reduction="mean_with_sample_weight", dtype=dtype)

    @property
    def dtype(self):
        dtype = super().dtype
        return "float32" if dtype in ("float16", "bfloat16") else dtype

    def __call__(self, y_true, y_pred, sample_weight=None):
        rows, shape = np.shape(y_true)[:1], np.shape(y_pred)
        is_square = len(shape) == 2 and shapes_compatible(shape[:1], shape[1:])
        if not is_square or not shapes_compatible(rows, shape[:1]):
            raise ValueError(
                "`y_pred` must be logits of each row with each of a batch, shape (B, "
                f"B), and `y_true` have B rows. Received: y_true of shape "
                f"{np.shape(y_true)}, y_pred of shape {shape}."
            )
        y_true = ops.convert_to_tensor(y_true)
        return super().__call__(equal_rows(y_true), y_pred, sample_weight)

    def call(self, y_true, y_pred):
        right = y_true / ops.sum(y_true, axis=1, keepdims=True)  # B B
        by_row = ops.sum(right * ops.log_softmax(y_pred, axis=1), axis=1)  # B
        by_column = ops.sum(right * ops.log_softmax(ops.transpose(y_pred), 1), axis=1)
        return -(by_row + by_column) / 2

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype}


def equal_rows(values):
    """Which rows are equal, boolean `(B, B)`; the diagonal alone where all are."""
    count = ops.shape(values)[0]
    flat = ops.reshape(values, (count, -1))  # B T
    are_equal = ops.all(flat[:, None] == flat[None], axis=-1)  # B B
    index = ops.arange(count, dtype="int32")
    diagonal = index[:, None] == index  # B B
    return ops.where(ops.all(are_equal), diagonal, are_equal | diagonal)
