"""Contrastive loss, which matches the texts and pictures of a batch.

Axes in shape comments: B batch, T token ids of a caption.
"""

import keras
import numpy as np
from keras import ops

from kseq.layers.validation import shapes_compatible
from kseq.typing import Config, Tensor, TensorLike


@keras.saving.register_keras_serializable(package="kseq")
class ContrastiveLoss(keras.losses.Loss):
    """Symmetric cross-entropy of a batch of pairs, as in CLIP.

    Each row must find its column among those of the batch, and each column its row.
    With logits `z`, the pair `i` costs

        (logsumexp(z[i, :]) - z[i, i] + logsumexp(z[:, i]) - z[i, i]) / 2

    A batch may contain duplicates, such as two pictures with the same caption, which
    the diagonal alone would count as wrong. Therefore equal rows of `y_true` are all
    correct for each other: the true probability is spread evenly over them. Pass the
    token ids of the captions, or one number per caption. If all rows are equal, such as
    zeros, they carry no information, and only the diagonal is correct. Computed in at
    least float32.

    Args:
        name: Name of the loss.
        dtype: Precision of the computation. Types smaller than float32 become float32.

    Call arguments:
        y_true: Numbers `(B,)` or `(B, T)`. Only the equality of rows matters.
        y_pred: Logits `(B, B)`: the match of each row, a text, with each column, a
            picture.
        sample_weight: Weights of the pairs, `(B,)`. A pair of weight 0 is still a wrong
            answer for the others.

    Returns:
        Scalar: the weighted mean of the losses of the pairs.

    Raises:
        ValueError: `y_pred` is not square, or has not as many rows as `y_true`.

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

    def __init__(
        self, name: str = "contrastive_loss", dtype: str | None = None
    ) -> None:
        super().__init__(name=name, reduction="mean_with_sample_weight", dtype=dtype)

    @property
    def dtype(self) -> str:
        dtype = super().dtype
        return "float32" if dtype in ("float16", "bfloat16") else dtype

    def __call__(
        self,
        y_true: TensorLike,
        y_pred: TensorLike,
        sample_weight: TensorLike | None = None,
    ) -> Tensor:
        rows, shape = np.shape(y_true)[:1], np.shape(y_pred)
        is_square = len(shape) == 2 and shapes_compatible(shape[:1], shape[1:])
        if not is_square or not shapes_compatible(rows, shape[:1]):
            raise ValueError(
                "`y_pred` must be logits of each row with each column, shape (B, B), "
                "and `y_true` must have B rows. Received: y_true of shape "
                f"{np.shape(y_true)}, y_pred of shape {shape}."
            )
        y_true = ops.convert_to_tensor(y_true)
        return super().__call__(equal_rows(y_true), y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        right = y_true / ops.sum(y_true, axis=1, keepdims=True)  # B B
        by_row = ops.sum(right * ops.log_softmax(y_pred, axis=1), axis=1)  # B
        by_column = ops.sum(right * ops.log_softmax(ops.transpose(y_pred), 1), axis=1)
        return -(by_row + by_column) / 2

    def get_config(self) -> Config:
        return {"name": self.name, "dtype": self.dtype}


def equal_rows(values: Tensor) -> Tensor:
    """Return which rows are equal, boolean `(B, B)`; the diagonal if all are equal."""
    count = ops.shape(values)[0]
    flat = ops.reshape(values, (count, -1))  # B T
    are_equal = ops.all(flat[:, None] == flat[None], axis=-1)  # B B
    index = ops.arange(count, dtype="int32")
    diagonal = index[:, None] == index  # B B
    return ops.where(ops.all(are_equal), diagonal, are_equal | diagonal)
