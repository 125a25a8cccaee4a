"""Models that end with CTC: predict label sequences shorter than the source.

Axes in shape comments: B batch, N hypotheses, S steps, T labels of a row, V labels with
the blank.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kseq.builders.generate_loop import GenerateLoop, cached_loop, run
from kseq.builders.own_loss import GivenLoss, OwnLoss
from kseq.builders.requests import GenerateRequest, Request, ScoreRequest
from kseq.builders.searches import as_search, refuse_options
from kseq.builders.source_rows import rows_of_batches, source_rows
from kseq.builders.token_inputs import TokenInputs
from kseq.builders.trainable import TrainableModel
from kseq.decoding import Generation, MaximumLength, Search
from kseq.decoding.constraints import Constraint
from kseq.decoding.loop import check_max_length
from kseq.few_shapes import rounded_up
from kseq.layers import CTC, SequenceEmbedding, backends
from kseq.layers.masking import mask_of
from kseq.layers.saving import WholeFiles
from kseq.layers.step_labels import StepLabels
from kseq.typing import Tensor, TensorLike, Tree


@keras.saving.register_keras_serializable(package="kseq")
class CTCModel(
    OwnLoss, TokenInputs, StepLabels, TrainableModel, WholeFiles, keras.Model
):
    """Functional model that `kseq.many_to_many(..., head="ctc")` returns.

    Call the class with inputs and outputs to use custom layers, the last of which is a
    `kseq.layers.CTC`. Targets are label sequences `(B, T)`, padded with 0, not longer
    than the source. The loss is the negative log-likelihood of a label sequence: the
    mean over the batch, weighted by sample weights. `compile` takes no loss. A call,
    `predict` and `export` return logits for each step. Metrics compare the labels of
    the best path: `kseq.training.EditDistanceRate()`, the label error rate, and
    `ExactMatch()`.

    Args:
        inputs: Symbolic input, as for `keras.Model`.
        outputs: Symbolic output, of the CTC.
        name: Name of the model.

    Raises:
        ValueError: The last layer is not a CTC, or not the only output.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.builders import CTCModel
    >>> from kseq.layers import CTC
    >>> columns = keras.Input((None, 4))
    >>> steps = keras.layers.GRU(8, return_sequences=True)(columns)
    >>> model = CTCModel(columns, CTC(num_labels=5)(steps))
    >>> model.compile("adam")
    >>> lines, labels = np.ones((2, 7, 4)), np.array([[1, 4, 4], [3, 0, 0]])
    >>> history = model.fit(lines, labels, verbose=0)
    >>> model.generate(lines).token_ids.shape[:2]  # one label sequence for each line
    (2, 1)
    >>> model.score(lines, labels).shape
    (2,)
    """

    start_token_id = pad_token_id = 0
    target_length = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.operations[-1], CTC) or len(self.outputs) > 1:
            names = [x.name for x in self.operations[-3:]]
            raise ValueError(
                "A CTC must be the last layer of a `CTCModel`, and its only output. "
                f"Received: a model that ends with {names}, {len(self.outputs)} "
                "outputs. Use a `keras.Model`, and train it with "
                "`ctc.negative_log_likelihood`."
            )

    @property
    def ctc(self) -> CTC:
        """The CTC at the end of the model."""
        return self.operations[-1]

    @property
    def loss_head(self) -> CTC:
        """The CTC at the end of the model, which defines the loss."""
        return self.ctc

    @property
    def source(self) -> SequenceEmbedding | None:
        """The embedding that reads the input, or None if it is not one of kseq."""
        kinds = (x for x in self.operations if isinstance(x, SequenceEmbedding))
        return next(kinds, None)

    @property
    def source_size(self) -> Any:
        """Number of ids of the source, or None."""
        return getattr(self.source, "vocabulary_size", None)

    @property
    def source_length(self) -> Any:
        """Maximum number of steps of the source, or None."""
        return getattr(self.source, "num_positions", None)

    @property
    def source_padding(self) -> Any:
        """Padding of short sources, or None if all must have the same shape."""
        return getattr(self.source, "padding", None)

    @property
    def target_size(self) -> int:
        """Number of labels, including the blank."""
        return self.ctc.num_labels

    @property
    def end_token_id(self) -> int:
        """Token id that ends a label sequence in a search."""
        return self.ctc.end_token_id

    def own_loss(self, y: Tree, y_pred: Tree, sample_weight: Tensor | None) -> Tensor:
        """Return the loss of a batch, the weighted mean over label sequences."""
        losses = self.ctc.negative_log_likelihood(y, y_pred)  # B
        weights = row_weights(sample_weight, losses)
        dtype = keras.backend.standardize_dtype(losses.dtype)
        # Keras scales it under a TensorFlow strategy.
        loss = GivenLoss(dtype)(losses, losses, weights)
        return loss * backends.share_of_replica(ops.sum(weights))

    def compute_metrics(
        self, x: Tree, y: Tree, y_pred: Tree, sample_weight: Tensor | None = None
    ) -> dict[str, Any]:
        if len(self.metrics) > 1 and len(y_pred.shape) == 3:  # more than the loss
            y_pred = BestPath(self.ctc)(y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def compute_loss_and_updates(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        # Only JAX calls this. There, metrics do not know the mask.
        loss, (unscaled, y_pred, *rest) = super().compute_loss_and_updates(
            *args, **kwargs
        )
        if len(self.metrics) > 1:
            mask, y_pred = mask_of(y_pred), ops.stop_gradient(y_pred)
            y_pred = self.ctc.best_path(y_pred, mask)
        return loss, (unscaled, y_pred, *rest)

    def generate(
        self,
        source: Any,
        search: Search | None = None,
        max_length: int | None = None,
        batch_size: int = 128,
        prefix: TensorLike | None = None,
        jit_compile: bool | None = None,
        constraints: Sequence[Constraint] = (),
        **options: Any,
    ) -> Generation:
        """Generate the labels of each source.

        Without a search, the labels are those of the best path, with their exact
        log-probability in `log_probs`. A search of `kseq.decoding` generates label by
        label, each by its exact probability given the labels before it, summed over all
        paths. `BeamSearch(8)` is prefix search. Its hypotheses have exact
        probabilities. With enough beams it finds the most probable labels; with fewer
        beams it may drop them on the way.

        All constraints work, and apply to labels. The end counts as a token, so
        `MinimumLength(4)` requires three labels. `RepetitionPenalty` uses
        log-probabilities as logits. A coverage penalty, which needs attention, and
        guidance, which needs a model without its source, raise an error.

        Args:
            source: Inputs `(B, S, ...)`, or rows of different lengths if the embedding
                defines a padding; or batches of these, as for `kseq.encoder_decoder`.
            search: A search of `kseq.decoding`, or None for the best path.
            max_length: Maximum number of labels of a search. None allows as many labels
                as steps. Has no effect on the best path.
            batch_size: Maximum number of sources per batch.
            prefix: First labels of each source, for a search: ids `(B, P)`, padded at
                the end, or a list of lists.
            jit_compile: As for `generate` of `kseq.encoder_decoder`.
            constraints: Constraints on the labels, applied after those of the search.
            **options: Not used. For an option of a search, the error says which search
                to pass.

        Returns:
            A `kseq.decoding.Generation` of NumPy arrays with all hypotheses, best
            first. `token_ids (B, N, T)` are labels padded with 0, without an end, and
            `lengths` their number. `token_log_probs (B, N, T + 1)` includes the end
            after the last label; it is None for the best path. A hypothesis that could
            not be formed has a log-probability of minus infinity.

        Raises:
            ValueError: There is no source, or the model cannot read it; a number is not
                a positive integer; CTC does not support the search; or there is a
                prefix or a constraint without a search.
        """
        refuse_options(options)
        rows = source_rows(self, rows_of_batches(source))
        request: Request
        if search is None:
            refuse_rules(prefix=prefix, constraints=constraints)
            request = Request(self, rows, {"source": rows})
            loop = cached_loop(self, BestPathLoop)
        else:
            most = self._most_labels(rows, max_length)
            search = checked_search(as_search(search, constraints))
            ending = (MaximumLength(most + 1),)
            request = GenerateRequest(
                self, rows, search, most + 1, prefix, jit_compile, ending
            )
            loop = cached_loop(
                self, GenerateLoop, request.search, most + 1, jit_compile
            )
        batches = request.batches(batch_size)
        results = [run(loop, batch, has_compiled_parts=True) for batch in batches]
        return as_labels(request.outputs(results), self.end_token_id)

    def score(
        self, source: Any, target: TensorLike | Generation, batch_size: int = 128
    ) -> np.ndarray:
        """Return the log-probability of label sequences, summed over all paths.

        Args:
            source: As for `generate`.
            target: Labels `(B, T)`, padded with 0, or a list of lists. Also N label
                sequences for each source, `(B, N, T)`, padded or as lists, or a
                `Generation`.
            batch_size: Maximum number of label sequences per batch.

        Returns:
            NumPy array `(B,)` or `(B, N)` of natural logarithms: minus infinity for
            labels that need more steps than the source has.

        Raises:
            ValueError: Source and target differ in number, the model does not have a
                label, or a label follows padding.
        """
        rows = target.token_ids if isinstance(target, Generation) else target
        request = ScoreRequest(self, source, rows)
        loop = cached_loop(self, LabelScoreLoop)
        batches = request.batches(batch_size)
        results = [run(loop, batch, has_compiled_parts=True) for batch in batches]
        found = request.outputs(results)["log_probs"]
        if isinstance(target, Generation):
            return np.where(np.isfinite(target.log_probs), found, -np.inf)
        return found

    def start(
        self, source: Tensor, num_beams: int = 1, max_length: int | None = None
    ) -> tuple[Tree, Tree]:
        """Return the initial state of a search over labels, and the constants."""
        logits = self(source)
        return self.ctc.start(logits, mask_of(logits), num_beams)

    def step(
        self, token_ids: Tensor, state: Tree, constants: Tree
    ) -> tuple[Tensor, Tree]:
        """Return the logits of the next label `(B, K, V)`, and the next state."""
        return self.ctc.step(token_ids, state, constants)

    def _most_labels(self, rows: Sequence[Any], max_length: int | None) -> int:
        """Return the maximum number of labels: `max_length`, or the number of steps."""
        if max_length is not None:
            check_max_length(max_length)
            return max_length
        steps = self.output_shape[1]
        if steps is None:
            longest = max(rows, key=len)
            length = len(longest)
            if self.source_padding is not None:
                length = rounded_up(length, to_power_of_two=True)  # few lengths
            shape = 1, length, *self.input.shape[2:]
            steps = self.compute_output_shape(shape)[1]
        return max(steps, 1)


class BestPathLoop(keras.Model):
    """Keras model of the best paths of a model with CTC, compiled by Keras."""

    def __init__(self, writer: CTCModel) -> None:
        super().__init__(name="best_path_loop", autocast=False)
        self.writer = writer
        self.built = True

    def call(self, inputs: dict[str, Tree]) -> dict[str, Tensor]:
        ctc, logits = self.writer.ctc, self.writer(inputs["source"])
        labels = ctc.best_path(logits)  # B S
        log_probs = ctc.log_likelihood(labels, logits)
        result = {"token_ids": labels, "log_probs": log_probs}
        return {name: ops.expand_dims(x, 1) for name, x in result.items()}


class LabelScoreLoop(BestPathLoop):
    """Keras model of the log-probabilities of given labels."""

    def call(self, inputs: dict[str, Tree]) -> dict[str, Tensor]:
        ctc, logits = self.writer.ctc, self.writer(inputs["source"])
        return {"log_probs": ctc.log_likelihood(inputs["target"], logits)}


class BestPath(keras.layers.Layer):
    """Labels of the best path, for metrics."""

    def __init__(self, ctc: CTC) -> None:
        super().__init__(autocast=False, name="best_path")
        self.ctc = ctc
        self.supports_masking = True

    def compute_mask(self, logits: Tensor, previous_mask: Any = None) -> None:
        return None  # labels are not aligned with steps

    def compute_output_spec(
        self, logits: Tensor, mask: Tensor | None = None
    ) -> keras.KerasTensor:
        return keras.KerasTensor(logits.shape[:2], "int32")

    def call(self, logits: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.ctc.best_path(logits, mask)


def row_weights(sample_weight: Tensor | None, losses: Tensor) -> Tensor:
    """Return a weight for each row, `(B,)`."""
    if sample_weight is None:
        return ops.ones_like(losses)
    weights = ops.convert_to_tensor(sample_weight, losses.dtype)
    if len(weights.shape) == 2 and weights.shape[1] == 1:
        weights = weights[:, 0]
    if len(weights.shape) != 1:
        raise ValueError(
            "`sample_weight` must be a weight for each row, shape (B,), since a label "
            "sequence has one probability. Received: sample_weight of shape "
            f"{tuple(weights.shape)}. Use the mean over the labels."
        )
    return weights


def refuse_rules(prefix: TensorLike | None, constraints: Sequence[Constraint]) -> None:
    """Raise if there is a prefix or a constraint without a search."""
    if prefix is not None or constraints:
        raise ValueError(
            "The best path does not support a prefix or constraints. Received: "
            f"prefix={prefix!r}, constraints={constraints!r} with search=None. Use "
            "`search=kseq.decoding.BeamSearch(8)`."
        )


def checked_search(search: Search) -> Search:
    """Return the search, and raise if CTC does not support it."""
    for name, value in (
        ("guidance", search.guidance),
        ("coverage_penalty", getattr(search, "coverage_penalty", None)),
    ):
        if value:
            raise ValueError(
                "CTC has no attention for a coverage penalty, and cannot run without "
                f"its source, as guidance requires. Received: {name}={value!r}. Leave "
                "it out."
            )
    return search


def as_labels(outputs: dict[str, Any], end_token_id: int) -> Generation:
    """Return the `Generation` of the outputs of a loop, without end tokens."""
    token_ids = outputs["token_ids"]  # B N L
    is_label = (token_ids != 0) & (token_ids != end_token_id)
    lengths = is_label.sum(axis=-1).astype("int32")
    longest = max(int(lengths.max()), 1)
    token_log_probs: Any = outputs.get("token_log_probs")
    if token_log_probs is not None:
        token_log_probs = token_log_probs[..., : longest + 1]
    return Generation(
        token_ids=np.where(is_label, token_ids, 0)[..., :longest],
        log_probs=outputs["log_probs"],
        token_log_probs=token_log_probs,
        lengths=lengths,
        ended=np.isfinite(outputs["log_probs"]),
    )
