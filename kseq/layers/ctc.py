"""A head that spells labels without knowing at which step each stands: CTC.

Axes in shape comments: B batch, S steps, T labels of a row, U units, K beams, V labels
with the blank.
"""

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


@keras.saving.register_keras_serializable(package="kseq")
class CTC(Layer):
    """Connectionist temporal classification, as the head of a reader.

    A row of labels is learned from a longer sequence that nobody has cut into them: the
    text of a line of writing, the sounds of a recording. A dense layer gives each label
    of each step a logit, `W x + b`. A path has a label or the blank, 0, at each real
    step; it spells its labels, where equal neighbours count once, without the blanks.
    The probability of a row of labels is the sum over all paths that spell it:

        P(l) = sum over paths that spell l of prod_s softmax(W x_s + b)[path_s]

    As `head="ctc"` of `kseq.many_to_many` it needs nothing more. A functional model of
    your own that ends with it is a `kseq.builders.CTCModel(inputs, outputs)`, which has
    `fit`, `generate` and `score`. In other models the methods below are what to train
    with, and `start` and `step` what a search of `kseq.decoding` takes.

    A row of n labels, of which m are equal to the one before, needs n + m real steps.

    Args:
        num_labels: Number of labels V, the blank counted: ids from 0, which is the
            blank, and padding.
        kernel_initializer: Initializer of `W`.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, S, U)`.
        mask: Boolean `(B, S)`, True where a step is real; elsewhere zeros are read.
            Defaults to the Keras mask of `inputs`, which the logits keep.

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
    >>> labels = np.array([[1, 1, 0]])  # padded; the one path is 1, blank, 1
    >>> loss = np.asarray(ctc.negative_log_likelihood(labels, logits))
    >>> round(float(np.exp(-loss[0])), 3)
    0.192
    >>> np.asarray(ctc.align(labels, logits)[0]).tolist()
    [[0, 2, -1]]

    Any search writes labels, with the exact probability of each row:

    >>> state, constants = ctc.start(logits, num_beams=3)
    >>> result = BeamSearch(3)(ctc.step, state, constants, [0], ctc.end_token_id, 4)
    >>> np.asarray(result.token_ids)[0].tolist()  # 3 ends a row
    [[1, 3, 0, 0], [1, 1, 3, 0], [2, 1, 3, 0]]
    >>> [round(float(np.exp(x)), 3) for x in np.asarray(result.log_probs)[0]]
    [0.672, 0.192, 0.064]

    References:
        - [Graves et al., 2006](https://doi.org/10.1145/1143844.1143891), 3 and 4
    """

    def __init__(self, num_labels, kernel_initializer="glorot_uniform", **kwargs):
        super().__init__(**kwargs)
        self.num_labels = positive_integer("num_labels", num_labels)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    @property
    def end_token_id(self):
        """The id that ends a row in a search: V, behind all labels."""
        return self.num_labels

    def build(self, inputs_shape):
        self.kernel = self.add_weight(
            shape=(inputs_shape[-1], self.num_labels),
            initializer=initializer_of("kernel", self.kernel_initializer),
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.num_labels,), initializer="zeros", name="bias"
        )

    def compute_output_shape(self, inputs_shape):
        return (*inputs_shape[:-1], self.num_labels)

    def call(self, inputs, mask=None):
        return dense_scores(inputs, mask, self.kernel, self.bias)

    def negative_log_likelihood(self, labels, logits, mask=None):
        """Minus the logarithm of the probability of labels, row by row.

        It is `keras.ops.ctc_loss` of the real steps.

        Args:
            labels: Integers `(B, T)` from 0 to V - 1, rows that are padded with 0. An
                empty row is one like any other.
            logits: Those of a call, `(B, S, V)`, in any precision.
            mask: Boolean `(B, S)`, the real steps. Defaults to the Keras mask of the
                logits, or without one to all steps.

        Returns:
            `(B,)`, in float32 at least, 0 for a row without labels and real steps.

        Raises:
            ValueError: A label is none, a row needs more steps than there are, or the
                shapes do not fit. Compiled, such a row makes the loss NaN, and on
                TensorFlow without XLA it stops the training with the same words.

        Example: see the class.
        """
        logits, mask = self._read(logits, mask)
        labels = self._known_labels(labels, logits)
        is_known = ops.logical_and(labels >= 0, labels < self.num_labels)
        is_known = ops.all(is_known, axis=1)
        labels = ops.clip(ops.cast(labels, "int32"), 0, self.num_labels - 1)
        check_room(labels, mask)
        losses = ctc_paths.negative_log_likelihood(labels, logits, mask)
        is_right = ops.logical_and(is_known, losses < float("inf"))
        return ops.where(is_right, losses, float("nan"))

    def log_likelihood(self, labels, logits, mask=None):
        """The logarithm of the probability of labels, to compare rows and not to train.

        Args:
            labels: As for `negative_log_likelihood`, as are `logits` and `mask`.

        Returns:
            `(B,)`, in float32 at least, without a gradient; minus infinity for a row
            that needs more steps than there are.

        Raises:
            ValueError: A label is none, or the shapes do not fit.
        """
        logits, mask = self._read(logits, mask)
        labels = ops.cast(self._known_labels(labels, logits), "int32")
        return ctc_paths.log_likelihood(labels, logits, mask)

    def best_path(self, logits, mask=None):
        """The labels that the most probable path spells.

        Its row need not be the most probable one, of which other paths may be more:
        that is what `step` is for, with a beam search.

        Args:
            logits: As for `negative_log_likelihood`, as is `mask`.

        Returns:
            Integers `(B, S)`, padded behind with 0.

        Example: see the class.
        """
        logits, mask = self._read(logits, mask)
        return ctc_paths.best_path(logits, mask)

    def align(self, labels, logits, mask=None):
        """The step at which each label begins, on the most probable path of its row.

        Args:
            labels: As for `negative_log_likelihood`, as are `logits` and `mask`.

        Returns:
            `(steps, log_probs)`: integers `(B, T)`, -1 behind the labels, and for a row
            that needs more steps than there are; and the logarithm of the probability
            of that path, `(B,)`.

        Raises:
            ValueError: A label is none, or the shapes do not fit.

        Example: see the class.
        """
        logits, mask = self._read(logits, mask)
        labels = ops.cast(self._known_labels(labels, logits), "int32")
        return ctc_paths.alignment(labels, logits, mask)

    def start(self, logits, mask=None, num_beams=1):
        """Begins a search, label by label.

        Args:
            logits: As for `negative_log_likelihood`, as is `mask`.
            num_beams: Number of hypotheses K of a row.

        Returns:
            `(state, constants)`, as a `kseq.decoding.Search` takes them; its start
            tokens are 0.

        Example: see the class.
        """
        logits, mask = self._read(logits, mask)
        return ctc_paths.start(logits, mask, num_beams)

    def step(self, token_ids, state, constants):
        """The label that comes next, or the end, in view of all paths.

        Args:
            token_ids: Integers `(B, K)`, the last label of each hypothesis.
            state: As `start` gave it, or the step before.
            constants: As `start` gave them.

        Returns:
            `(logits (B, K, V + 1), state)`, of which the softmax is exact: the
            probability, given the labels so far, of each as the next, and behind them
            of the end.

        Example: see the class.
        """
        return ctc_paths.step(token_ids, state, constants)

    def _read(self, logits, mask):
        return checked_scores(self, "logits", logits, mask)

    def _known_labels(self, labels, logits):
        """The labels, unless it can be seen that they are none."""
        if isinstance(labels, (list, tuple)):
            labels = ops.convert_to_tensor(labels)
        shape = tuple(getattr(labels, "shape", ()))
        rows = (logits.shape[0],)
        if len(shape) != 2 or not shapes_compatible(shape[:1], rows):
            raise ValueError(
                "`labels` must be a row of integers for each row of logits, shape "
                f"(B, T) = ({logits.shape[0]}, T), padded with 0. Received: labels of "
                f"shape {shape}. Of one-hot vectors take `labels.argmax(-1)`."
            )
        labels = whole_numbers("labels", ops.convert_to_tensor(labels))
        seen = concrete_values(labels)
        if seen is None:
            return labels
        is_wrong = (seen < 0) | (seen >= self.num_labels)
        if is_wrong.any():
            raise ValueError(
                f"`labels` must be from 1 to {self.num_labels - 1}, padded with 0, the "
                f"blank. Received: labels with {seen[is_wrong].flat[0]}. Make the head "
                "for one label more than the greatest: `num_labels=int(labels.max()) + "
                "1`."
            )
        return labels

    def get_config(self):
        return {
            **super().get_config(),
            "num_labels": self.num_labels,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


ROOM = (
    "`labels` need a step for each, and one more between equal neighbours, in the real "
    "steps of their row."
)


def check_room(labels, mask):
    """Raises if it can be seen that a row has more labels than its steps can spell."""
    labels = ctc_paths.packed(labels)
    needed, given = ctc_paths.steps_needed(labels), ctc_paths.count(mask)
    is_short = needed > given
    seen = concrete_values(is_short)
    if seen is None:
        message = (
            f"{ROOM} Received: rows that need more. Leave such rows out, or let the "
            "encoder keep more steps."
        )
        backends.require(ops.logical_not(ops.any(is_short)), message)
    elif seen.any():
        row = int(seen.argmax())
        steps = [int(concrete_values(x)[row]) for x in (needed, given)]
        raise ValueError(
            f"{ROOM} Received: labels[{row}], which need {steps[0]} steps and have "
            f"{steps[1]}. Leave such rows out, or let the encoder keep more steps."
        )
