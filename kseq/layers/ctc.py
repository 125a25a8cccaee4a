"""Connectionist temporal classification (CTC), a head for labels without alignment.

Axes in shape comments: B batch, S steps, T labels of a sequence, U units, K beams, V
labels with the blank.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from kseq.layers import backends, ctc_paths
from kseq.layers.initializers import initializer_of
from kseq.layers.layer import Layer
from kseq.layers.step_scores import checked_scores, dense_scores
from kseq.layers.validation import (
    concrete_values,
    positive_integer,
    shapes_compatible,
    whole_numbers,
)
from kseq.typing import Config, Initializer, Shape, Tensor, TensorLike


@keras.saving.register_keras_serializable(package="kseq")
class CTC(Layer):
    """Connectionist temporal classification, as the head of a model.

    It learns labels from a longer sequence that is not segmented into them: the text of
    a line of handwriting, the phonemes of a recording. A dense layer computes a logit,
    `W x + b`, for each label of each step. A path has a label or the blank, 0, at each
    real step. It spells labels: merge equal neighbours, then remove the blanks. The
    probability of a label sequence is the sum over all paths that spell it:

        P(l) = sum over paths that spell l of prod_s softmax(W x_s + b)[path_s]

    `head="ctc"` of `kseq.many_to_many` does all of this for you. If your own functional
    model ends with a CTC layer, make it a `kseq.builders.CTCModel(inputs, outputs)`,
    which has `fit`, `generate` and `score`. In other models, train with the methods
    below, and pass `start` and `step` to a search of `kseq.decoding`.

    A sequence of n labels, of which m equal the label before, needs n + m real steps.

    Args:
        num_labels: Number of labels V, including the blank. Id 0 is both the blank and
            padding.
        kernel_initializer: Initializer of `W`.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, S, U)`.
        mask: Boolean `(B, S)`, True where a step is real. Masked inputs are replaced by
            zeros. Defaults to the Keras mask of `inputs`, which the logits keep.

    Returns:
        Logits `(B, S, V)`.

    Raises:
        ValueError: `num_labels` is not a positive integer.

    Example:

    >>> import numpy as np
    >>> from kseq.decoding import BeamSearch
    >>> from kseq.layers import CTC
    >>> ctc = CTC(num_labels=3)
    >>> tuple(ctc(np.ones((1, 4, 8))).shape)
    (1, 4, 3)
    >>> steps = [[.1, .8, .1], [.6, .4, 0], [.6, .4, 0]]
    >>> logits = np.log(np.array([steps], "float32") + 1e-9)  # B S V
    >>> np.asarray(ctc.best_path(logits)).tolist()  # 1, blank, blank
    [[1, 0, 0]]
    >>> labels = np.array([[1, 1, 0]])  # padded; the only path is 1, blank, 1
    >>> loss = np.asarray(ctc.negative_log_likelihood(labels, logits))
    >>> round(float(np.exp(-loss[0])), 3)
    0.192
    >>> np.asarray(ctc.align(labels, logits)[0]).tolist()
    [[0, 2, -1]]

    Any search generates labels, with the exact probability of each sequence:

    >>> state, constants = ctc.start(logits, num_beams=3)
    >>> result = BeamSearch(3)(ctc.step, state, constants, [0], ctc.end_token_id, 4)
    >>> np.asarray(result.token_ids)[0].tolist()  # 3 is the end token
    [[1, 3, 0, 0], [1, 1, 3, 0], [2, 1, 3, 0]]
    >>> [round(float(np.exp(x)), 3) for x in np.asarray(result.log_probs)[0]]
    [0.672, 0.192, 0.064]

    References:
        - [Graves et al., 2006](https://doi.org/10.1145/1143844.1143891), 3 and 4
    """

    def __init__(
        self,
        num_labels: int,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_labels = positive_integer("num_labels", num_labels)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    @property
    def end_token_id(self) -> int:
        """The id that ends a sequence in a search: V, the one after all labels."""
        return self.num_labels

    def build(self, inputs_shape: Shape) -> None:
        self.kernel = self.add_weight(
            shape=(inputs_shape[-1], self.num_labels),
            initializer=initializer_of("kernel", self.kernel_initializer),
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.num_labels,), initializer="zeros", name="bias"
        )

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        return (*inputs_shape[:-1], self.num_labels)

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return dense_scores(inputs, mask, self.kernel, self.bias)

    def negative_log_likelihood(
        self, labels: TensorLike, logits: TensorLike, mask: TensorLike | None = None
    ) -> Tensor:
        """Return the negative log-probability of the labels of each example.

        It is `keras.ops.ctc_loss` of the real steps.

        Args:
            labels: Integers `(B, T)` from 0 to V - 1, padded with 0. An empty sequence
                is allowed.
            logits: The output of a call, `(B, S, V)`, in any precision.
            mask: Boolean `(B, S)`, the real steps. Defaults to the Keras mask of the
                logits, or to all steps without one.

        Returns:
            `(B,)`, in float32 at least, 0 for an example without labels and real steps.

        Raises:
            ValueError: A label is out of range, an example has fewer steps than its
                labels need, or the shapes do not fit. In a compiled function the loss
                of such an example is NaN; on TensorFlow without XLA, too few steps stop
                the training with the same message.

        Example: see the class.
        """
        logits, mask = self._checked_scores(logits, mask)
        labels = self._known_labels(labels, logits)
        is_known = ops.logical_and(labels >= 0, labels < self.num_labels)
        is_known = ops.all(is_known, axis=1)
        labels = ops.clip(ops.cast(labels, "int32"), 0, self.num_labels - 1)
        check_num_steps(labels, mask)
        losses = ctc_paths.negative_log_likelihood(labels, logits, mask)
        is_right = ops.logical_and(is_known, losses < float("inf"))
        return ops.where(is_right, losses, float("nan"))

    def log_likelihood(
        self, labels: TensorLike, logits: TensorLike, mask: TensorLike | None = None
    ) -> Tensor:
        """Return the log-probability of labels, for comparisons, not for training.

        Args:
            labels: As in `negative_log_likelihood`.
            logits: As in `negative_log_likelihood`.
            mask: As in `negative_log_likelihood`.

        Returns:
            `(B,)`, in float32 at least, without a gradient; minus infinity for an
            example with fewer steps than its labels need.

        Raises:
            ValueError: A label is out of range, or the shapes do not fit.
        """
        logits, mask = self._checked_scores(logits, mask)
        labels = ops.cast(self._known_labels(labels, logits), "int32")
        return ctc_paths.log_likelihood(labels, logits, mask)

    def best_path(self, logits: TensorLike, mask: TensorLike | None = None) -> Tensor:
        """Return the labels that the most probable path spells.

        They need not be the most probable labels, since other labels may be spelled by
        more paths. To search for those, use `step` with a beam search.

        Args:
            logits: As in `negative_log_likelihood`.
            mask: As in `negative_log_likelihood`.

        Returns:
            Integers `(B, S)`, padded at the end with 0.

        Example: see the class.
        """
        logits, mask = self._checked_scores(logits, mask)
        return ctc_paths.best_path(logits, mask)

    def align(
        self, labels: TensorLike, logits: TensorLike, mask: TensorLike | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the step at which each label begins, on the most probable path.

        Args:
            labels: As in `negative_log_likelihood`.
            logits: As in `negative_log_likelihood`.
            mask: As in `negative_log_likelihood`.

        Returns:
            `(steps, log_probs)`: integers `(B, T)`, -1 for padding and for an example
            with fewer steps than its labels need; and the log-probability of the path
            that spells the labels, `(B,)`.

        Raises:
            ValueError: A label is out of range, or the shapes do not fit.

        Example: see the class.
        """
        logits, mask = self._checked_scores(logits, mask)
        labels = ops.cast(self._known_labels(labels, logits), "int32")
        return ctc_paths.alignment(labels, logits, mask)

    def start(
        self, logits: TensorLike, mask: TensorLike | None = None, num_beams: int = 1
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Begin a search, label by label.

        Args:
            logits: As in `negative_log_likelihood`.
            mask: As in `negative_log_likelihood`.
            num_beams: Number of hypotheses K for each example.

        Returns:
            `(state, constants)`, as a `kseq.decoding.Search` takes them. Use 0 as the
            start token.

        Example: see the class.
        """
        logits, mask = self._checked_scores(logits, mask)
        return ctc_paths.start(logits, mask, num_beams)

    def step(
        self,
        token_ids: Tensor,
        state: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute logits of the next label, or of the end, summed over all paths.

        Args:
            token_ids: Integers `(B, K)`, the last label of each hypothesis.
            state: The state from `start`, or from the previous step.
            constants: The constants from `start`.

        Returns:
            `(logits (B, K, V + 1), state)`. The softmax of the logits is exact: the
            probability of each next label, and in the last place of the end, given the
            labels so far.

        Example: see the class.
        """
        return ctc_paths.step(token_ids, state, constants)

    def _checked_scores(
        self, logits: TensorLike, mask: TensorLike | None
    ) -> tuple[Tensor, Tensor]:
        return checked_scores(self, "logits", logits, mask)

    def _known_labels(self, labels: TensorLike, logits: Tensor) -> Tensor:
        """Return the labels; raise if their values are known and out of range."""
        if isinstance(labels, (list, tuple)):
            labels = ops.convert_to_tensor(labels)
        shape = tuple(getattr(labels, "shape", ()))
        rows = (logits.shape[0],)
        if len(shape) != 2 or not shapes_compatible(shape[:1], rows):
            raise ValueError(
                "`labels` must be integers for each example of the logits, shape "
                f"(B, T) = ({logits.shape[0]}, T), padded with 0. Received: labels of "
                f"shape {shape}. If they are one-hot vectors, use `labels.argmax(-1)`."
            )
        labels = whole_numbers("labels", ops.convert_to_tensor(labels))
        seen = concrete_values(labels)
        if seen is None:
            return labels
        is_wrong = (seen < 0) | (seen >= self.num_labels)
        if is_wrong.any():
            raise ValueError(
                f"`labels` must be from 1 to {self.num_labels - 1}, padded with 0, the "
                f"blank. Received: labels with {seen[is_wrong].flat[0]}. Create the "
                "head with one label more than the highest id: "
                "`num_labels=int(labels.max()) + 1`."
            )
        return labels

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_labels": self.num_labels,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


STEPS_NEEDED = (
    "`labels` need one real step for each label, and one more between equal neighbours."
)


def check_num_steps(labels: Tensor, mask: Tensor) -> None:
    """Raise if an example is known to have fewer steps than its labels need."""
    labels = ctc_paths.padded_at_end(labels)
    needed, given = ctc_paths.steps_needed(labels), ctc_paths.count(mask)
    is_short = needed > given
    seen = concrete_values(is_short)
    if seen is None:
        message = (
            f"{STEPS_NEEDED} Received: examples with fewer steps. Leave out such "
            "examples, or let the encoder keep more steps."
        )
        backends.require(ops.logical_not(ops.any(is_short)), message)
    elif seen.any():
        row = int(seen.argmax())
        steps = [int(concrete_values(x)[row]) for x in (needed, given)]
        raise ValueError(
            f"{STEPS_NEEDED} Received: labels[{row}], which need {steps[0]} steps and "
            f"have {steps[1]}. Leave out such examples, or let the encoder keep more "
            "steps."
        )
