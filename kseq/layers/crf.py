"""A head that knows which labels go together: the conditional random field.

Axes in shape comments: B batch, S steps, U units, L labels, N paths.
"""

import keras
from keras import ops

from kseq.layers import best_paths, linear_chain
from kseq.layers.initializers import initializer_of
from kseq.layers.label_rules import allowed_labels
from kseq.layers.layer import Layer
from kseq.layers.step_scores import checked_scores, dense_scores
from kseq.layers.validation import (
    concrete_values,
    positive_integer,
    shapes_compatible,
    whole_numbers,
)


@keras.saving.register_keras_serializable(package="kseq")
class CRF(Layer):
    """A linear-chain conditional random field, as the head of a tagger.

    A dense layer gives each label of each step a potential, `W x + b`. The score of a
    path, which has a label at each real step, is the sum of the potentials of its
    labels, of a learned weight for each transition from a label to the next, and of one
    for its first and its last label. The probability of a path is `exp(score)` over the
    sum of it over all paths. So the best path is not made of the best labels: `I-city`
    does not follow `B-day`, however likely each is alone.

    As `head="crf"` of `kseq.many_to_many` it needs nothing more. A functional model of
    your own that ends with it is a `kseq.builders.ManyToMany(inputs, outputs)`, whose
    loss, metrics, `predict` and `export` know what to do with potentials. In other
    models the methods below are what to train with and to decode.

    Some transitions can be forbidden: with names of labels by the rules of BIO (IOB2),
    where a span begins with `B-kind` and goes on with `I-kind`. What is forbidden is on
    no best path, and its probability is 0. The likelihood is over all paths, for in
    corpora labels are wrong at times, and would then have an infinite loss.

    Args:
        num_labels: Number of labels L. Not needed with `labels`.
        labels: The names of the labels in their order. With them, `I-kind` follows
            `B-kind` and `I-kind` alone, of each kind that has a `B-kind`.
        allowed: Booleans `(L, L)`, True where the label of the column may follow that
            of the row. Defaults to those rules, or without names to all.
        allowed_first: Booleans `(L,)`, the labels that a path may begin with. Defaults
            to the same.
        allowed_last: Booleans `(L,)`, the labels that it may end with. Defaults to all.
        kernel_initializer: Initializer of `W`. The weights of transitions begin with 0.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, S, U)`.
        mask: Boolean `(B, S)`, True where a step is real; elsewhere zeros are read.
            Defaults to the Keras mask of `inputs`, which the potentials keep.

    Returns:
        Potentials `(B, S, L)`. Their highest are not the best path: that is the highest
        of `best_scores`.

    Raises:
        ValueError: There is no number of labels, or two; labels are not different
            strings; what is allowed has another shape, or leaves no path of some
            length.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import CRF
    >>> crf = CRF(labels=["O", "B-city", "I-city"])
    >>> potentials = crf(np.ones((2, 5, 8)))
    >>> mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], "bool")
    >>> labels = np.array([[0, 1, 2, 2, 0], [1, 2, 0, 0, 0]])
    >>> tuple(crf.negative_log_likelihood(labels, potentials, mask).shape)
    (2,)
    >>> potentials = np.array([[[0, 1, 5], [0, 0, 2]]], "float32")
    >>> scores = np.asarray(crf.best_scores(potentials))
    >>> scores.argmax(-1).tolist()  # no city begins with I-city
    [[1, 2]]
    >>> paths, log_probs = crf.best_paths(potentials, num_paths=2)
    >>> np.asarray(paths).tolist()
    [[[1, 2], [1, 0]]]

    References:
        - [Lafferty et al., 2001](https://repository.upenn.edu/handle/20.500.14332/6188),
          3
        - [Huang et al., 2015](https://arxiv.org/abs/1508.01991), 2.4
        - [Sutton and McCallum, 2012](https://arxiv.org/abs/1011.4088), 4.1 (recursions)
    """

    def __init__(
        self,
        num_labels=None,
        labels=None,
        allowed=None,
        allowed_first=None,
        allowed_last=None,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.labels = None if labels is None else checked_labels(labels)
        self.num_labels = checked_number(num_labels, self.labels)
        self.allowed, self.allowed_first = allowed, allowed_first
        self.allowed_last = allowed_last
        self.rules = allowed_labels(
            self.num_labels, self.labels, allowed, allowed_first, allowed_last
        )
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def build(self, inputs_shape):
        size = self.num_labels
        self.kernel = self.add_weight(
            shape=(inputs_shape[-1], size),
            initializer=initializer_of("kernel", self.kernel_initializer),
            name="kernel",
        )
        self.bias = self._zeros("bias", size)
        self.transitions = self._zeros("transitions", size, size)
        self.starts = self._zeros("starts", size)
        self.ends = self._zeros("ends", size)

    def _zeros(self, name, *shape):
        return self.add_weight(shape=shape, initializer="zeros", name=name)

    def compute_output_shape(self, inputs_shape):
        return (*inputs_shape[:-1], self.num_labels)

    def call(self, inputs, mask=None):
        return dense_scores(inputs, mask, self.kernel, self.bias)

    def negative_log_likelihood(self, labels, potentials, mask=None):
        """Minus the logarithm of the probability of labels, row by row.

        Args:
            labels: Integers `(B, S)` from 0 to L - 1. Where a step is masked they do
                not matter.
            potentials: Those of a call, `(B, S, L)`, in any precision.
            mask: Boolean `(B, S)`, the steps of the path. Defaults to the Keras mask of
                the potentials, or without one to all steps.

        Returns:
            `(B,)`, in float32 at least, 0 for a row without a real step. It has no
            second gradient.

        Raises:
            ValueError: A label is none, or the shapes do not fit. Compiled, such a
                label makes the loss NaN.

        Example: see the class.
        """
        potentials, mask = checked_scores(
            self, "potentials", potentials, mask, self.built
        )
        labels = self._known_labels(labels, mask)
        is_known = ops.logical_and(labels >= 0, labels < self.num_labels)
        is_wrong = ops.logical_and(mask, ops.logical_not(is_known))
        labels = ops.clip(ops.cast(labels, "int32"), 0, self.num_labels - 1)
        losses = linear_chain.negative_log_likelihood(
            labels, potentials, self._weights(), mask
        )
        return ops.where(ops.any(is_wrong, axis=1), float("nan"), losses)

    def marginals(self, potentials, mask=None):
        """The probability of each label at each step, over all allowed paths.

        Args:
            potentials: As for `negative_log_likelihood`, as is `mask`.

        Returns:
            `(B, S, L)`, in float32 at least, 0 where a step is masked; without a
            gradient.

        Example:

        >>> import numpy as np
        >>> from kseq.layers import CRF
        >>> crf = CRF(2)
        >>> potentials = crf(np.ones((1, 3, 4)))
        >>> round(float(np.asarray(crf.marginals(potentials))[0, 1].sum()), 4)
        1.0
        """
        potentials, mask = checked_scores(
            self, "potentials", potentials, mask, self.built
        )
        return linear_chain.marginals(potentials, self._weights(allowed=True), mask)

    def best_scores(self, potentials, mask=None):
        """The best score of an allowed path through each label of each step.

        The label with the highest score of each step is that of the best path (Viterbi
        decoding): `keras.ops.argmax(crf.best_scores(potentials), -1)`. Of paths that
        are equally good one is chosen.

        Args:
            potentials: As for `negative_log_likelihood`, as is `mask`.

        Returns:
            `(B, S, L)`, in float32 at least, 0 where a step is masked; without a
            gradient.

        Example: see the class.
        """
        potentials, mask = checked_scores(
            self, "potentials", potentials, mask, self.built
        )
        return best_paths.best_scores(potentials, self._weights(allowed=True), mask)

    def best_paths(self, potentials, num_paths=1, mask=None):
        """The most probable of all allowed paths, the best first.

        Args:
            potentials: As for `negative_log_likelihood`, as is `mask`.
            num_paths: How many, N.

        Returns:
            `(paths, log_probs)`: labels `(B, N, S)`, 0 where a step is masked, and the
            logarithm of the probability of each path, `(B, N)`, minus infinity where
            there is no further path.

        Raises:
            ValueError: `num_paths` is not a positive integer.

        Example: see the class.
        """
        num_paths = positive_integer("num_paths", num_paths)
        potentials, mask = checked_scores(
            self, "potentials", potentials, mask, self.built
        )
        weights = self._weights(allowed=True)
        return best_paths.best_paths(potentials, weights, mask, num_paths)

    def _read(self, potentials, mask):
        return checked_scores(self, "potentials", potentials, mask, self.built)

    def _known_labels(self, labels, mask):
        """The labels, unless it can be seen that they are none."""
        if isinstance(labels, (list, tuple)):
            labels = ops.convert_to_tensor(labels)
        shape = tuple(getattr(labels, "shape", ()))
        if not shapes_compatible(shape, tuple(mask.shape)):
            raise ValueError(
                "`labels` must be an integer for each step, shape (B, S) = "
                f"{tuple(mask.shape)}. Received: labels of shape {shape}. Of one-hot "
                "vectors take `labels.argmax(-1)`."
            )
        labels = whole_numbers("labels", ops.convert_to_tensor(labels))
        seen = concrete_values(ops.where(mask, labels, ops.zeros_like(labels)))
        if seen is None:
            return labels
        is_wrong = (seen < 0) | (seen >= self.num_labels)
        if is_wrong.any():
            raise ValueError(
                f"`labels` must be from 0 to {self.num_labels - 1} at each real step. "
                f"Received: labels with {seen[is_wrong].flat[0]}. Mask the steps that "
                "have no label."
            )
        return labels

    def _weights(self, allowed=False):
        """The weights of transitions, first and last labels, in float32 at least."""
        dtype = keras.backend.result_type(self.variable_dtype, "float32")
        # Tensors, which TensorFlow does not take for variables.
        weights = [
            ops.cast(ops.reshape(x, x.shape), dtype)
            for x in (self.transitions, self.starts, self.ends)
        ]
        if not allowed:
            return weights
        return [
            x if rule is None else ops.where(rule, x, linear_chain.FORBIDDEN)
            for x, rule in zip(weights, self.rules, strict=True)
        ]

    def get_config(self):
        return {
            **super().get_config(),
            "num_labels": self.num_labels,
            "labels": self.labels,
            "allowed": as_lists(self.allowed),
            "allowed_first": as_lists(self.allowed_first),
            "allowed_last": as_lists(self.allowed_last),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def checked_labels(labels):
    """Returns the names as a list, if they are different strings."""
    is_list = isinstance(labels, (list, tuple)) and len(labels) > 0
    if not is_list or not all(isinstance(x, str) for x in labels):
        raise ValueError(
            f"`labels` must be a list of strings. Received: labels={labels!r}. A "
            "number of labels is `num_labels`."
        )
    if len(set(labels)) < len(labels):
        raise ValueError(f"`labels` must be different. Received: labels={labels!r}.")
    return list(labels)


def checked_number(num_labels, labels):
    """Returns how many labels there are."""
    if num_labels is None and labels is not None:
        return len(labels)
    num_labels = positive_integer("num_labels", num_labels)
    if labels is not None and num_labels != len(labels):
        raise ValueError(
            "`num_labels` must be the number of `labels`. Received: num_labels="
            f"{num_labels}, and {len(labels)} labels. Leave it out."
        )
    return num_labels


def as_lists(values):
    """What a config can hold."""
    return values.tolist() if hasattr(values, "tolist") else values
