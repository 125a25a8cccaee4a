"""Models that end with a CRF: their loss and predictions.

Axes in shape comments: B batch, S steps, L labels.
"""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from kseq.builders.own_loss import GivenLoss, OwnLoss
from kseq.layers import CRF, CTC, backends
from kseq.layers.masking import mask_of
from kseq.layers.validation import shapes_compatible
from kseq.typing import Tensor, Tree, wraps


class CRFOutputs(OwnLoss):
    """Mixin of functional models whose last layer may be a `kseq.layers.CRF`.

    A call of such a model returns potentials, from which the CRF computes everything
    else. The loss is the negative log-likelihood of the labels divided by the number of
    real steps. Metrics, `predict` and `export` use the scores of the best paths: the
    label with the highest score of each step is on the best path.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if any(isinstance(x, CTC) for x in self.operations):
            raise ValueError(
                "A model that ends with a CTC must be a `kseq.builders.CTCModel`. "
                f"Received: a {type(self).__name__} with a CTC. "
                "Build it from the same inputs and outputs: "
                "`kseq.builders.CTCModel(inputs, outputs)`."
            )
        within = [x for x in self.operations[:-1] if isinstance(x, CRF)]
        if within or (self.crf is not None and len(self.outputs) > 1):
            names = [x.name for x in self.operations[-3:]]
            raise ValueError(
                "A CRF must be the last layer of a model, and its only output. "
                f"Received: a model that ends with {names}, {len(self.outputs)} "
                "outputs. Use a `keras.Model`, and train it with "
                "`crf.negative_log_likelihood`."
            )

    @property
    def crf(self) -> CRF | None:
        """The CRF at the end of the model, or None."""
        last = self.operations[-1]
        return last if isinstance(last, CRF) else None

    @property
    def loss_head(self) -> CRF | None:
        """The CRF at the end of the model, or None."""
        return self.crf

    def own_loss(self, y: Tree, y_pred: Tree, sample_weight: Tensor | None) -> Tensor:
        """Return the loss of a batch, the mean over real steps."""
        crf: Any = self.crf
        return mean_loss(crf, y, y_pred, sample_weight)

    def compute_metrics(
        self, x: Tree, y: Tree, y_pred: Tree, sample_weight: Tensor | None = None
    ) -> dict[str, Any]:
        if self.crf is not None and len(self.metrics) > 1:  # more than the loss
            is_decoded = isinstance(y_pred, dict)
            y_pred = Masked()(y_pred) if is_decoded else BestScores(self.crf)(y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def compute_loss_and_updates(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        # Only JAX calls this. There, metrics know neither mask nor weights.
        loss, (unscaled, y_pred, *rest) = super().compute_loss_and_updates(
            *args, **kwargs
        )
        if self.crf is not None and len(self.metrics) > 1:
            mask, y_pred = mask_of(y_pred), ops.stop_gradient(y_pred)
            with self._with_weights(*args[:2]):
                scores = self.crf.best_scores(y_pred, mask)
            y_pred = {"scores": scores} | ({} if mask is None else {"mask": mask})
        return loss, (unscaled, y_pred, *rest)

    def predict_step(self, *args: Any) -> Any:
        outputs = super().predict_step(*args)
        if self.crf is None:
            return outputs
        if len(args) == 1:
            return BestScores(self.crf)(outputs)
        (weights, _), (potentials, others) = args, outputs  # JAX
        with self._with_weights(*weights):
            return BestScores(self.crf)(potentials), others

    def _with_weights(
        self, trainable: Iterable[Tensor], others: Iterable[Tensor]
    ) -> keras.StatelessScope:
        """Return a scope in which the model has these weights instead of its own."""
        variables = [*self.trainable_variables, *self.non_trainable_variables]
        pairs = zip(variables, [*trainable, *others], strict=True)
        return keras.StatelessScope(state_mapping=list(pairs))

    @wraps(keras.Model.export)
    def export(self, *args: Any, **kwargs: Any) -> Any:
        if self.crf is None:
            return super().export(*args, **kwargs)
        scores = BestScores(self.crf)(self.output)
        with backends.portable():
            return keras.Model(self.input, scores).export(*args, **kwargs)

    def decoding_model(self) -> keras.Model | None:
        """Return a model with the same weights that decodes the potentials.

        Returns:
            A functional `keras.Model` with the outputs "best_scores", highest on the
            best path, and "marginals", the probability of each label, both
            `(B, S, L)`. None for a model without a CRF.
        """
        if self.crf is None:
            return None
        outputs = {
            "best_scores": BestScores(self.crf)(self.output),
            "marginals": Marginals(self.crf)(self.output),
        }
        return keras.Model(self.input, outputs, name="decoding")


class Decoding(keras.layers.Layer):
    """Base class of layers that decode the potentials of a CRF, with their mask."""

    def __init__(self, crf: CRF, name: str) -> None:
        super().__init__(autocast=False, dtype="float32", name=name)
        self.crf = crf
        self.supports_masking = True

    def compute_output_spec(
        self, potentials: Tensor, mask: Tensor | None = None
    ) -> keras.KerasTensor:
        dtype = keras.backend.result_type(self.crf.variable_dtype, "float32")
        return keras.KerasTensor(potentials.shape, dtype)


class BestScores(Decoding):
    """Scores of the best paths."""

    def __init__(self, crf: CRF) -> None:
        super().__init__(crf, "best_scores")

    def call(self, potentials: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.crf.best_scores(potentials, mask)


class Marginals(Decoding):
    """Marginal probabilities of the labels."""

    def __init__(self, crf: CRF) -> None:
        super().__init__(crf, "marginals")

    def call(self, potentials: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.crf.marginals(potentials, mask)


class Masked(keras.layers.Layer):
    """Identity on "scores" that attaches their "mask", if any."""

    def __init__(self) -> None:
        super().__init__(autocast=False, name="masked")
        self.supports_masking = True

    def compute_mask(
        self, inputs: dict[str, Tensor], previous_mask: Any = None
    ) -> Tensor | None:
        return inputs.get("mask")

    def call(self, inputs: dict[str, Tensor]) -> Tensor:
        return ops.copy(inputs["scores"])


def mean_loss(
    crf: CRF, labels: Tensor, potentials: Tensor, sample_weight: Tensor | None
) -> Tensor:
    """Return the weighted sum of losses over the weighted number of real steps."""
    mask = mask_of(potentials)
    losses = crf.negative_log_likelihood(labels, potentials, mask)  # B
    if mask is None:
        mask = ops.ones(ops.shape(potentials)[:2], "bool")
    is_real = ops.cast(mask, losses.dtype)  # B S
    counts = ops.maximum(ops.sum(is_real, axis=1), 1.0)  # B
    weights = ops.sum(is_real * step_weights(sample_weight, is_real), axis=1)
    dtype = keras.backend.standardize_dtype(losses.dtype)
    # Keras scales it under a TensorFlow strategy.
    loss = GivenLoss(dtype)(losses, losses / counts, weights)
    return loss * backends.share_of_replica(ops.sum(weights))


def step_weights(sample_weight: Tensor | None, is_real: Tensor) -> Tensor:
    """Return step weights, `(B, S)` or `(B, 1)`, from those of rows or of steps."""
    if sample_weight is None:
        return 1.0
    weights = ops.convert_to_tensor(sample_weight, is_real.dtype)
    rows, steps = is_real.shape
    shapes = [(rows,), (rows, 1), (rows, steps)]
    if not any(shapes_compatible(tuple(weights.shape), shape) for shape in shapes):
        raise ValueError(
            "`sample_weight` must be a weight for each row, shape (B,), or for each "
            f"step, shape (B, S) = {(rows, steps)}. Received: sample_weight of shape "
            f"{tuple(weights.shape)}."
        )
    return ops.expand_dims(weights, 1) if len(weights.shape) == 1 else weights
