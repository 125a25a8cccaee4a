"""Pointer-generator: a mixture of generating tokens and copying source tokens.

Axes in shape comments: B batch, T target steps or hypotheses, S source steps,
D features, U units, V vocabulary.
"""

import numbers
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from kseq.layers import backends
from kseq.layers.attention import add_kernel
from kseq.layers.backends import matmul
from kseq.layers.layer import Layer
from kseq.layers.masking import apply_mask, step_mask
from kseq.layers.named_parts import check_names
from kseq.layers.sums import precise
from kseq.layers.validation import not_negative
from kseq.typing import Config, Initializer, Shape, SupportsArray, Tensor, Tree

# The target id of each source id; for several sources, ids or a boolean by name.
Ids: TypeAlias = Sequence[int] | SupportsArray
Alignment: TypeAlias = Ids | Mapping[str, bool | Ids]

# Smaller probabilities count as 0, so that logarithms and their gradients are finite.
LEAST = 1e-30


@keras.saving.register_keras_serializable(package="kseq")
class PointerGenerator(Layer):
    """Mixture of generating a word of the vocabulary and copying a source word.

    The attention of a decoder is also a distribution over the words of its source. With
    the weights `a` of a step, the memory `m`, the decoder's output `s` and input `x`,

        p_gen = sigmoid(w_c . sum_i a_i m_i + w_s . s + w_x . x + b)
        P(word) = p_gen softmax(logits)[word] + (1 - p_gen) sum_{i: word_i = word} a_i

    so the model can copy names, numbers and rare words that it has not learned to
    generate. The results are log probabilities, so they can be used wherever logits
    can: in losses, searches and ensembles.

    The memory may join several sources, of which some are only read: a lemma is copied,
    its tags are not. If `c` is the attention to the steps that can be copied, then

        P(word) = (p_gen softmax(logits)[word] + (1 - p_gen) sum_{i: word_i = word} a_i)
                  / (p_gen + (1 - p_gen) c)

    so attention to other steps favours neither way, and without anything to copy the
    model generates.

    With `coverage`, training adds a loss for repeated attention, averaged over the
    steps, so that the decoder does not repeat itself:

        coverage * sum_i min(a_i, c_i),    c = the sum of the weights of earlier steps

    Args:
        alignment: Integers: for each source token id the target id that copying it
            generates, or -1 if it is never copied. None if source and target have the
            same ids. For several sources a dictionary of all, in the order of the
            memory: such integers, True for the ids of the target, or False for a source
            that is only read.
        coverage: Weight of the coverage loss. See et al. use 1, and only add the loss
            after training the model without it. With several sources, only steps that
            can be copied count.
        kernel_initializer: Initializer of the three kernels.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        logits: `(B, T, V)`, computed by the head from the outputs.
        outputs: Outputs of the decoder, `(B, T, U)`.
        inputs: Inputs of the decoder, `(B, T, D)`.
        memory: Outputs of the encoder, `(B, S, D_m)`.
        token_ids: Integers `(B, S)`, the source. Negative ids are not copied. For
            several sources a dictionary; for a source that is only read, any tensor
            `(B, S, ...)` that has its steps.
        weights: Attention weights of the decoder, `(B, T, S)`, or of a Transformer,
            `(B, layers, H, T, S)`. For a Transformer, the mean over the heads of the
            last layer is used.
        memory_mask: Boolean `(B, S)`, True where the source may be copied. Defaults to
            the Keras mask of `memory`.
        inputs_mask: Boolean `(B, T)`, True where a step counts for the coverage loss.
            Defaults to the Keras mask of `inputs`.

    Returns:
        Natural logarithms of `P`, `(B, T, V)`, computed in float32 and returned in the
        layer's dtype, with the Keras mask of `logits`. With one source, if some
        attention is on steps that cannot be copied, `P` sums to less than 1; losses and
        searches use its softmax.

    Raises:
        ValueError: `alignment` does not consist of ids, or copies no source; `coverage`
            is not a non-negative number; the names of the sources, or the steps of
            memory, source and weights differ; or a mask contains values other than
            booleans or 0 and 1.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.layers import PointerGenerator
    >>> steps, memory = np.zeros((1, 1, 3)), np.zeros((1, 2, 3))
    >>> source, weights = np.array([[4, 2]]), np.array([[[0.8, 0.2]]])
    >>> log_probs = PointerGenerator()(
    ...     np.zeros((1, 1, 5)), steps, steps, memory, source, weights)
    >>> keras.ops.convert_to_numpy(keras.ops.exp(log_probs)).round(2)  # p_gen = 0.5
    array([[[0.1, 0.1, 0.2, 0.1, 0.5]]], dtype=float32)

    References:
        - [See et al., 2017](https://arxiv.org/abs/1704.04368), 2.2 (equations 8, 9),
          2.3 (10, 12, 13)
    """

    def __init__(
        self,
        alignment: Alignment | None = None,
        coverage: float = 0.0,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alignment = checked_alignment(alignment)
        self.coverage = not_negative("coverage", coverage)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def build(
        self,
        logits_shape: Shape,
        outputs_shape: Shape,
        inputs_shape: Shape,
        memory_shape: Shape,
        token_ids_shape: Tree,
        weights_shape: Shape,
    ) -> None:
        self._check_steps(memory_shape, token_ids_shape, weights_shape)
        self.context_kernel = add_kernel(self, "context", memory_shape[-1], 1)
        self.output_kernel = add_kernel(self, "output", outputs_shape[-1], 1)
        self.input_kernel = add_kernel(self, "input", inputs_shape[-1], 1)
        self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias")

    def compute_output_shape(self, logits_shape: Shape, *other_shapes: Shape) -> Shape:
        return logits_shape

    def compute_output_spec(
        self, logits: Tensor, *others: Any, **options: Any
    ) -> keras.KerasTensor:
        return keras.KerasTensor(logits.shape, self.compute_dtype)

    def call(
        self,
        logits: Tensor,
        outputs: Tensor,
        inputs: Tensor,
        memory: Tensor,
        token_ids: Tree,
        weights: Tensor,
        memory_mask: Tensor | None = None,
        inputs_mask: Tensor | None = None,
        training: bool = False,
    ) -> Tensor:
        shapes = keras.tree.map_structure(lambda x: tuple(x.shape), token_ids)
        self._check_steps(memory.shape, shapes, weights.shape)
        inputs_mask = step_mask(inputs_mask, inputs)
        constants = self.start(memory, token_ids, memory_mask)
        if training and self.coverage:
            covering = copy_attention(weights)
            if self._has_several_sources:
                covering = copyable(covering, constants["token_ids"])
            self._add_coverage_loss(covering, inputs_mask)
        return self.mix(logits, outputs, inputs, weights, constants)

    def start(
        self, memory: Tensor, token_ids: Tree, memory_mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the constants of a search, which are the same at every step.

        Args:
            memory: `(B, S, D_m)`.
            token_ids: Integers `(B, S)`, the source, or several by name as in `call`.
            memory_mask: Boolean `(B, S)`.

        Returns:
            A dictionary of tensors `(B, S)`: "read", the contribution `w_c . m_i` of
            each memory step to `p_gen`, and "token_ids", the target ids to copy, -1
            where a step cannot be copied.
        """
        memory_mask = step_mask(memory_mask, memory)
        memory = apply_mask(memory, memory_mask)
        read = matmul(
            self._precise(memory), self._precise(self.context_kernel)
        )  # B S 1
        if self._has_several_sources:
            each = [aligned(token_ids[x], ids) for x, ids in self.alignment.items()]
            token_ids = ops.concatenate(each, axis=1)
        else:
            token_ids = aligned(token_ids, self.alignment)
        if memory_mask is not None:
            token_ids = ops.where(memory_mask, token_ids, -1)
        return {"read": ops.squeeze(read, -1), "token_ids": token_ids}

    def mix(
        self,
        logits: Tensor,
        outputs: Tensor,
        inputs: Tensor,
        weights: Tensor,
        constants: dict[str, Tensor],
    ) -> Tensor:
        """Return the logarithms of `P`, `(B, T, V)`, for any number of steps.

        Args:
            logits: `(B, T, V)`. This and the next three are as in `call`.
            outputs: `(B, T, U)`.
            inputs: `(B, T, D)`.
            weights: `(B, T, S)`, or of a Transformer `(B, layers, H, T, S)`.
            constants: The result of `start`.
        """
        weights = self._precise(copy_attention(weights))  # B T S
        # A search calls this outside of `call`, where Keras does not cast the kernels.
        gate = (
            matmul(weights, ops.expand_dims(constants["read"], -1))
            + matmul(self._precise(outputs), self._precise(self.output_kernel))
            + matmul(self._precise(inputs), self._precise(self.input_kernel))
            + self._precise(self.bias)
        )  # B T 1, equation 8
        log_generating, log_copying = ops.log_sigmoid(gate), ops.log_sigmoid(-gate)
        written = ops.log_softmax(self._precise(logits), axis=-1) + log_generating
        copied = backends.sum_by_id(weights, constants["token_ids"], logits.shape[-1])
        log_probs = log_of_sum(written, log_copying, copied)  # B T V
        if self._has_several_sources:
            weights = copyable(weights, constants["token_ids"])
            share = ops.sum(weights, axis=-1, keepdims=True)  # B T 1
            log_probs = log_probs - log_of_sum(log_generating, log_copying, share)
        return ops.cast(log_probs, self.compute_dtype)

    @property
    def _has_several_sources(self) -> bool:
        return isinstance(self.alignment, dict)

    def _check_steps(
        self, memory_shape: Shape, token_ids_shape: Tree, weights_shape: Shape
    ) -> None:
        """Raise if names, or the steps of memory, source and attention, differ."""
        if self._has_several_sources:
            check_names("token_ids", token_ids_shape, self.alignment)
            steps = [token_ids_shape[name][1] for name in self.alignment]
            token_ids_shape = None, None if None in steps else sum(steps)
        check_steps(memory_shape, token_ids_shape, weights_shape)

    def _precise(self, x: Tensor) -> Tensor:
        """Cast a tensor to the layer's dtype, but to float32 at least."""
        dtype = keras.backend.result_type(self.compute_dtype, "float32")
        return ops.cast(x, dtype)

    def _add_coverage_loss(self, weights: Tensor, inputs_mask: Tensor | None) -> None:
        weights = precise(weights)  # B T S
        is_real = ops.ones_like(weights[..., :1])  # B T 1
        if inputs_mask is not None:
            mask = ops.expand_dims(inputs_mask, -1)
            weights, is_real = (ops.where(mask, x, 0.0) for x in (weights, is_real))
        covered = ops.cumsum(weights, axis=1) - weights  # equation 10
        losses = ops.minimum(weights, covered)  # equation 12
        count = ops.sum(is_real)
        mean = ops.sum(losses) / ops.maximum(count, 1.0)
        mean = mean * backends.share_of_replica(count)
        self.add_loss(ops.cast(self.coverage * mean, keras.config.floatx()))

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "alignment": as_lists(self.alignment),
            "coverage": self.coverage,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def log_of_sum(log_x: Tensor, log_factor: Tensor, share: Tensor) -> Tensor:
    """Return `log(x + factor * share)`, equation 9; exactly `log(x)` if share = 0."""
    is_some = share > LEAST
    highest = ops.where(is_some, ops.maximum(log_x, log_factor), log_x)
    highest = ops.stop_gradient(highest)  # it cancels
    factor = ops.exp(ops.where(is_some, log_factor - highest, 0.0))
    added = ops.where(is_some, share * factor, 0.0)
    return highest + ops.log(ops.exp(log_x - highest) + added)


def aligned(token_ids: Tensor, alignment: Any) -> Tensor:
    """Return the target ids that the steps of a source are copied as, `(B, S)`.

    Args:
        token_ids: Integers `(B, S)`; or `(B, S, ...)` if `alignment` is False.
        alignment: A tuple of ids; None or True for equal ids; False for -1 everywhere.
    """
    if alignment is False:
        while len(token_ids.shape) > 2:
            token_ids = token_ids[..., 0]
        return -ops.ones_like(token_ids, dtype="int32")
    token_ids = ops.cast(token_ids, "int32")
    if alignment is None or alignment is True:
        return token_ids
    ids = ops.convert_to_tensor(alignment, "int32")
    ids = ops.take(ids, ops.maximum(token_ids, 0), axis=0)
    return ops.where(token_ids < 0, -1, ids)


def copyable(weights: Tensor, token_ids: Tensor) -> Tensor:
    """Return attention `(B, T, S)` with zeros where the ids `(B, S)` are below 0."""
    return ops.where(ops.expand_dims(token_ids >= 0, 1), weights, 0.0)


def copy_attention(weights: Tensor) -> Tensor:
    """Return the attention weights `(B, T, S)` used for copying."""
    if len(weights.shape) == 5:
        weights = weights[:, -1]  # B H T S
    if len(weights.shape) == 4:
        weights = ops.cast(ops.mean(precise(weights), axis=1), weights.dtype)
    return weights


def checked_alignment(alignment: Any) -> Any:
    """Return an alignment as a tuple of ids, or as tuples and booleans by name."""
    if alignment is None:
        return None
    if not isinstance(alignment, dict):
        return checked_ids(alignment)
    checked = {
        name: ids if isinstance(ids, bool) else checked_ids(ids)
        for name, ids in alignment.items()
    }
    if all(ids is False for ids in checked.values()):
        raise ValueError(
            "`alignment` must have a source to copy from. Received: "
            f"alignment={alignment!r}. Pass True, or the target id of each source id, "
            "for one of them."
        )
    return checked


def as_lists(alignment: Any) -> Any:
    """Return a checked alignment in the form of a config."""
    if isinstance(alignment, dict):
        return {name: as_lists(ids) for name, ids in alignment.items()}
    return list(alignment) if isinstance(alignment, tuple) else alignment


def checked_ids(alignment: Any) -> tuple[int, ...]:
    """Return an alignment as a tuple of integers; raise if it is anything else."""
    ids = alignment.tolist() if hasattr(alignment, "tolist") else alignment
    is_list = isinstance(ids, list | tuple) and len(ids) > 0
    if not is_list or not all(is_id(x) for x in ids):
        raise ValueError(
            "`alignment` must be integers: for each source token id a target id, or "
            f"-1. Received: alignment={alignment!r}. For two vocabularies use "
            "`kseq.text.alignment(source_vocabulary, target_vocabulary)`."
        )
    return tuple(int(x) for x in ids)


def is_id(value: Any) -> bool:
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return is_integer and value >= -1


def check_steps(
    memory_shape: Shape, token_ids_shape: Shape, weights_shape: Shape
) -> None:
    """Raise if the steps of memory, source and attention are known to differ."""
    steps = memory_shape[1], token_ids_shape[1], weights_shape[-1]
    if len({size for size in steps if isinstance(size, int)}) > 1:
        raise ValueError(
            "Copying needs one memory vector and one attention weight for each source "
            f"token. Received: memory of shape {tuple(memory_shape)}, token "
            f"ids of shape {tuple(token_ids_shape)}, weights of shape "
            f"{tuple(weights_shape)}. Use an encoder that keeps the number of steps."
        )
