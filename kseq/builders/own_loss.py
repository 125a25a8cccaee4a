"""Models whose last layer defines the loss, so that `compile` takes none."""

from typing import Any

import keras

from kseq.layers.own_compile import OwnCompile
from kseq.typing import Tensor, Tree, wraps


class OwnLoss(OwnCompile):
    """Mixin of functional models whose last layer may define the loss.

    A subclass returns this layer, or None, as `loss_head`, and computes the loss of a
    batch in `own_loss`.
    """

    @property
    def loss_head(self) -> keras.layers.Layer | None:
        """The last layer if it defines the loss, or None."""
        return None

    def own_loss(self, y: Tree, y_pred: Tree, sample_weight: Tensor | None) -> Tensor:
        """Return the loss of a batch, a scalar."""
        raise NotImplementedError

    @wraps(keras.Model.compile)
    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "rmsprop",
        loss: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if self.loss_head is not None and loss is not None:
            raise ValueError(
                "`loss` must be None for a model that ends with a "
                f"{type(self.loss_head).__name__}, which defines the loss. Received: "
                f'loss={loss!r}. Leave it out: `model.compile("adam")`.'
            )
        super().compile(optimizer, loss, *args, **kwargs)

    def compute_loss(
        self,
        x: Tree = None,
        y: Tree = None,
        y_pred: Tree = None,
        sample_weight: Tensor | None = None,
        training: bool = True,
    ) -> Tensor:
        if self.loss_head is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        loss = self.own_loss(y, y_pred, sample_weight)
        if self.losses:
            loss = loss + super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss


class GivenLoss(keras.losses.Loss):
    """Mean of given losses."""

    def __init__(self, dtype: str) -> None:
        super().__init__(reduction="mean_with_sample_weight", dtype=dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return y_pred
