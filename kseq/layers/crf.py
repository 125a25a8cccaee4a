"""The conditional random field, a head that scores whole sequences of labels.

Axes in shape comments: B batch, S steps, U units, L labels, N paths.
"""

from collections.abc import Sequence
from typing import Any

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
from kseq.typing import Config, Initializer, Shape, Tensor, TensorLike


@keras.saving.register_keras_serializable(package="kseq")
class CRF(Layer):
    """A linear-chain conditional random field, as the head of a tagger.

    A dense layer computes a potential, `W x + b`, for each label of each step. A path
    has one label at each real step. Its score is the sum of the potentials of its
    labels, of a learned weight for each transition from one label to the next, and of
    one each for its first and its last label. The probability of a path is its
    `exp(score)`, divided by the sum over all paths. So the best path need not consist
    of the best labels: `I-city` does not follow `B-day`, however likely each is alone.

    `head="crf"` of `kseq.many_to_many` does all of this for you. If your own functional
    model ends with a CRF, make it a `kseq.builders.ManyToMany(inputs, outputs)`: its
    loss, metrics, `predict` and `export` handle potentials. In other models, use the
    methods below to train and to decode.

    Transitions can be forbidden. With label names, the rules of BIO (IOB2) apply: a
    span begins with `B-kind` and continues with `I-kind`. Best paths never contain what
    is forbidden, and its probability is 0. The likelihood still sums over all paths,
    because corpora contain wrong labels, whose loss would otherwise be infinite.

    Args:
        num_labels: Number of labels L. Not needed with `labels`.
        labels: The names of the labels, in order. With them, `I-kind` may only follow
            `B-kind` and `I-kind`, for each kind that has a `B-kind`.
        allowed: Booleans `(L, L)`, True where the label of the column may follow the
            label of the row. Defaults to the BIO rules, or to all without names.
        allowed_first: Booleans `(L,)`, the labels that a path may begin with. Defaults
            to the same.
        allowed_last: Booleans `(L,)`, the labels that a path may end with. Defaults to
            all.
        kernel_initializer: Initializer of `W`. The weights of transitions start at 0.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(B, S, U)`.
        mask: Boolean `(B, S)`, True where a step is real. Masked inputs are replaced by
            zeros. Defaults to the Keras mask of `inputs`, which the potentials keep.

    Returns:
        Potentials `(B, S, L)`. Their argmax is not the best path: take the argmax of
        `best_scores`.

    Raises:
        ValueError: The number of labels is missing, or given twice and different;
            `labels` are not distinct strings; `allowed`, `allowed_first` or
            `allowed_last` has the wrong shape, or together they leave no path of some
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
        num_labels: int | None = None,
        labels: Sequence[str] | None = None,
        allowed: TensorLike | None = None,
        allowed_first: TensorLike | None = None,
        allowed_last: TensorLike | None = None,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
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

    def build(self, inputs_shape: Shape) -> None:
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

    def _zeros(self, name: str, *shape: int) -> keras.Variable:
        return self.add_weight(shape=shape, initializer="zeros", name=name)

    def compute_output_shape(self, inputs_shape: Shape) -> Shape:
        return (*inputs_shape[:-1], self.num_labels)

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        return dense_scores(inputs, mask, self.kernel, self.bias)

    def negative_log_likelihood(
        self, labels: TensorLike, potentials: TensorLike, mask: TensorLike | None = None
    ) -> Tensor:
        """Return the negative log-probability of the labels of each example.

        Args:
            labels: Integers `(B, S)` from 0 to L - 1. Labels of masked steps are
                ignored.
            potentials: The output of a call, `(B, S, L)`, in any precision.
            mask: Boolean `(B, S)`, the steps of the path. Defaults to the Keras mask of
                the potentials, or to all steps without one.

        Returns:
            `(B,)`, in float32 at least, 0 for an example without a real step. It has no
            second gradient.

        Raises:
            ValueError: A label is out of range, or the shapes do not fit. In a compiled
                function, a label out of range makes the loss NaN.

        Example: see the class.
        """
        potentials, mask = self._checked_scores(potentials, mask)
        labels = self._known_labels(labels, mask)
        is_known = ops.logical_and(labels >= 0, labels < self.num_labels)
        is_wrong = ops.logical_and(mask, ops.logical_not(is_known))
        labels = ops.clip(ops.cast(labels, "int32"), 0, self.num_labels - 1)
        losses = linear_chain.negative_log_likelihood(
            labels, potentials, self._weights(), mask
        )
        return ops.where(ops.any(is_wrong, axis=1), float("nan"), losses)

    def marginals(
        self, potentials: TensorLike, mask: TensorLike | None = None
    ) -> Tensor:
        """Return the probability of each label at each step, over all allowed paths.

        Args:
            potentials: As in `negative_log_likelihood`.
            mask: As in `negative_log_likelihood`.

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
        potentials, mask = self._checked_scores(potentials, mask)
        return linear_chain.marginals(potentials, self._weights(allowed=True), mask)

    def best_scores(
        self, potentials: TensorLike, mask: TensorLike | None = None
    ) -> Tensor:
        """Return the best score of an allowed path through each label of each step.

        The labels with the highest scores form the best path (Viterbi decoding):
        `keras.ops.argmax(crf.best_scores(potentials), -1)`. Among equally good paths
        one is chosen.

        Args:
            potentials: As in `negative_log_likelihood`.
            mask: As in `negative_log_likelihood`.

        Returns:
            `(B, S, L)`, in float32 at least, 0 where a step is masked; without a
            gradient.

        Example: see the class.
        """
        potentials, mask = self._checked_scores(potentials, mask)
        return best_paths.best_scores(potentials, self._weights(allowed=True), mask)

    def best_paths(
        self, potentials: TensorLike, num_paths: int = 1, mask: TensorLike | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the most probable allowed paths, the best first.

        Args:
            potentials: As in `negative_log_likelihood`.
            num_paths: Number of paths N.
            mask: As in `negative_log_likelihood`.

        Returns:
            `(paths, log_probs)`: labels `(B, N, S)`, 0 where a step is masked, and the
            log-probability of each path, `(B, N)`, minus infinity where there are fewer
            than N paths.

        Raises:
            ValueError: `num_paths` is not a positive integer.

        Example: see the class.
        """
        num_paths = positive_integer("num_paths", num_paths)
        potentials, mask = self._checked_scores(potentials, mask)
        weights = self._weights(allowed=True)
        return best_paths.best_paths(potentials, weights, mask, num_paths)

    def _checked_scores(
        self, potentials: TensorLike, mask: TensorLike | None
    ) -> tuple[Tensor, Tensor]:
        return checked_scores(self, "potentials", potentials, mask, self.built)

    def _known_labels(self, labels: TensorLike, mask: Tensor) -> Tensor:
        """Return the labels; raise if their values are known and out of range."""
        if isinstance(labels, (list, tuple)):
            labels = ops.convert_to_tensor(labels)
        shape = tuple(getattr(labels, "shape", ()))
        if not shapes_compatible(shape, tuple(mask.shape)):
            raise ValueError(
                "`labels` must be an integer for each step, shape (B, S) = "
                f"{tuple(mask.shape)}. Received: labels of shape {shape}. If they are "
                "one-hot vectors, use `labels.argmax(-1)`."
            )
        labels = whole_numbers("labels", ops.convert_to_tensor(labels))
        seen = concrete_values(ops.where(mask, labels, ops.zeros_like(labels)))
        if seen is None:
            return labels
        is_wrong = (seen < 0) | (seen >= self.num_labels)
        if is_wrong.any():
            raise ValueError(
                f"`labels` must be from 0 to {self.num_labels - 1} at each real step. "
                f"Received: labels with {seen[is_wrong].flat[0]}. Mask steps without a "
                "label."
            )
        return labels

    def _weights(self, allowed: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weights of transitions, starts and ends, in float32 at least."""
        dtype = keras.backend.result_type(self.variable_dtype, "float32")
        # Reshaping makes tensors, which TensorFlow does not treat as variables.
        weights = [
            ops.cast(ops.reshape(x, x.shape), dtype)
            for x in (self.transitions, self.starts, self.ends)
        ]
        if allowed:
            weights = [
                x if rule is None else ops.where(rule, x, linear_chain.FORBIDDEN)
                for x, rule in zip(weights, self.rules, strict=True)
            ]
        transitions, starts, ends = weights
        return transitions, starts, ends

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "num_labels": self.num_labels,
            "labels": self.labels,
            "allowed": as_lists(self.allowed),
            "allowed_first": as_lists(self.allowed_first),
            "allowed_last": as_lists(self.allowed_last),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def checked_labels(labels: Sequence[str]) -> list[str]:
    """Return the names as a list; raise unless they are distinct strings."""
    is_list = isinstance(labels, (list, tuple)) and len(labels) > 0
    if not is_list or not all(isinstance(x, str) for x in labels):
        raise ValueError(
            f"`labels` must be a list of strings. Received: labels={labels!r}. Pass a "
            "number of labels as `num_labels`."
        )
    if len(set(labels)) < len(labels):
        raise ValueError(f"`labels` must be unique. Received: labels={labels!r}.")
    return list(labels)


def checked_number(num_labels: int | None, labels: Sequence[str] | None) -> int:
    """Return the number of labels; raise if it is missing or contradicts `labels`."""
    if num_labels is None and labels is not None:
        return len(labels)
    num_labels = positive_integer("num_labels", num_labels)
    if labels is not None and num_labels != len(labels):
        raise ValueError(
            "`num_labels` must be the number of `labels`. Received: num_labels="
            f"{num_labels} and {len(labels)} labels. Leave out `num_labels`."
        )
    return num_labels


def as_lists(values: Any) -> Any:
    """Return arrays as nested lists, which a config can hold."""
    return values.tolist() if hasattr(values, "tolist") else values
