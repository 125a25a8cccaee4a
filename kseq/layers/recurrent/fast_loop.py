"""Fast loop of the recurrent layers: compiled by XLA, or one call of a torch kernel.

Axes in shape comments: B batch, T steps, D features, U units.
"""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
from keras import ops

from kseq.layers import backends, torch_kernels
from kseq.layers.composition import freeze_parts
from kseq.layers.masking import apply_mask, step_mask
from kseq.layers.recurrent import formula_loop, formulas
from kseq.layers.recurrent.cells import (
    check_states,
    check_steps,
    output_state,
    start_with,
)
from kseq.layers.recurrent.steps import fill_up, first_steps
from kseq.typing import Shape, Tensor, Tree

if TYPE_CHECKING:  # each layer inherits from `FastLoop` and then from a layer of Keras
    KerasLayer: TypeAlias = keras.layers.RNN
else:
    KerasLayer = object


class FastLoop(KerasLayer):
    """Base of the fast layers: the loop of `keras.layers.RNN`, made faster.

    XLA compiles the loop even if it does not compile the model; on torch the loop is
    one call of a kernel. Keras runs the cases that neither covers. A subclass defines
    `_is_covered`, `_run` and `kernel_name`.
    """

    def build(self, sequences_shape: Shape, initial_state_shape: Tree = None) -> None:
        super().build(sequences_shape, initial_state_shape)
        for state in keras.tree.flatten(self.states or []):
            state._autocast = False  # torch cannot assign to an autocast variable
        freeze_parts(self)

    def call(
        self,
        sequences: Tensor,
        initial_state: Tree = None,
        mask: Tensor | None = None,
        training: bool = False,
    ) -> Tensor | list[Tensor]:
        # Check here: when `inner_loop` runs, dropout masks have already been sampled.
        check_steps("sequences", sequences)
        mask = step_mask(single_mask(mask), sequences)
        if initial_state is not None:
            check_states(self.cell, initial_state, sequences.shape[0])
        return super().call(
            sequences, initial_state=initial_state, mask=mask, training=training
        )

    def inner_loop(
        self,
        sequences: Tensor,
        initial_state: list[Any],
        mask: Tensor | None,
        training: bool = False,
    ) -> tuple[Tensor, Tensor, list[Any]]:
        sequences = apply_mask(sequences, mask)
        if self._has_kernel():
            return self._run_by_kernel(sequences, initial_state, mask, training)
        if not self._is_covered(sequences):
            return self._run_by_keras(sequences, initial_state, mask, training)
        sequences = ops.cast(sequences, self.compute_dtype)
        length = ops.shape(sequences)[1]
        sequences, mask = fill_up(sequences, mask)
        pairs = zip(keras.tree.flatten(initial_state), self.state_size, strict=True)
        states = [ops.reshape(state, (-1, size)) for state, size in pairs]
        outputs, states = self._run(sequences, states, mask, length, training)
        if self.zero_output_for_mask and mask is not None:
            outputs = ops.where(ops.expand_dims(mask, -1), outputs, 0)
        outputs = first_steps(outputs, length)
        if self.go_backwards:
            outputs = ops.flip(outputs, axis=1)
        last = outputs[:, -1]
        return last, outputs if self.return_sequences else last[:, None], states

    def _has_kernel(self) -> bool:
        cell = self.cell
        return (
            torch_kernels.available()
            and self.kernel_name is not None
            and not self.unroll
            and is_plain(cell)
            and getattr(self, "use_cudnn", "auto") is not False
            and not cell.recurrent_dropout
            and not (cell.dropout and hasattr(cell, "dropout_mask_count"))
        )

    def _run_by_kernel(
        self,
        sequences: Tensor,
        initial_state: list[Tensor],
        mask: Tensor | None,
        training: bool,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        cell = self.cell
        sequences = ops.cast(sequences, self.compute_dtype)
        if training and getattr(cell, "dropout", False):
            kept = ops.expand_dims(cell.get_dropout_mask(sequences[:, 0]), 1)
            sequences = sequences * ops.cast(kept, sequences.dtype)
        outputs, states = torch_kernels.run(
            self.kernel_name,
            sequences,
            [ops.cast(state, self.compute_dtype) for state in initial_state],
            [ops.cast(weight, self.compute_dtype) for weight in self._kernel_weights()],
            mask,
            self.go_backwards,
        )
        if self.zero_output_for_mask and mask is not None:
            mask = ops.flip(mask, axis=1) if self.go_backwards else mask
            outputs = ops.where(ops.expand_dims(mask, -1), outputs, 0)
        last = outputs[:, -1]
        return last, outputs if self.return_sequences else last[:, None], states

    def _kernel_weights(self) -> list[Tensor]:
        """Return the weights in the order of `torch_kernels.run`."""
        weights = [self.cell.kernel, self.cell.recurrent_kernel]
        if self.cell.bias is not None:
            weights += formulas.split_bias(self.cell)
        return weights

    def _run_by_keras(
        self,
        sequences: Tensor,
        initial_state: list[Any],
        mask: Tensor | None,
        training: bool,
    ) -> tuple[Tensor, Tensor, list[Any]]:
        """Run Keras' loop, with outputs at masked steps as in the fast loop."""
        if self.go_backwards and (mask is None or self.unroll):
            # Keras orders the outputs differently with cuDNN on JAX, and the mask
            # differently when it unrolls.
            sequences = ops.flip(sequences, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
            with temporary_attributes(self, go_backwards=False):
                return self._run_by_keras(sequences, initial_state, mask, training)
        last, outputs, states = self._keras_loop(
            sequences, initial_state, mask, training
        )
        if mask is None:
            return last, outputs, states
        mask = ops.flip(mask, axis=1) if self.go_backwards else mask
        if self.zero_output_for_mask:
            last = ops.where(mask[:, -1:], last, 0)
            outputs = ops.where(mask[..., None], outputs, 0)
        else:
            last, outputs = self._with_first_state(last, outputs, initial_state, mask)
        return last, outputs if self.return_sequences else last[:, None], states

    def _keras_loop(
        self,
        sequences: Tensor,
        initial_state: list[Any],
        mask: Tensor | None,
        training: bool,
    ) -> tuple[Tensor, Tensor, list[Any]]:
        return super().inner_loop(sequences, initial_state, mask, training)

    def _with_first_state(
        self,
        last: Tensor,
        outputs: Tensor,
        initial_state: list[Any],
        mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Put the initial state at the steps before the first real one."""
        first = ops.cast(output_state(self.cell, initial_state), last.dtype)  # B U
        if first.shape[-1] != last.shape[-1]:  # a custom cell with another output
            return last, outputs
        last = ops.where(ops.any(mask, axis=1, keepdims=True), last, first)
        return last, start_with(first, outputs, mask) if self.return_sequences else last

    def _is_covered(self, sequences: Tensor) -> bool:
        is_worth_it = backends.is_worth_compiling(self.cell.units)
        return is_worth_it and not self.unroll and is_plain(self.cell)

    def _run(
        self,
        sequences: Tensor,
        states: list[Tensor],
        mask: Tensor | None,
        length: Tensor,
        training: bool,
    ) -> tuple[Tensor, list[Tensor]]:
        cell, dtype = self.cell, sequences.dtype
        states = [ops.cast(state, dtype) for state in states]
        biases = formulas.split_bias(cell)
        kept = kept_recurrent = []
        if training:
            kept = as_list(cell.get_dropout_mask(sequences[:, 0]))
            kept_recurrent = as_list(cell.get_recurrent_dropout_mask(states[0]))
        return formula_loop.run(
            self.formula,
            sequences,
            states,
            [ops.cast(x, dtype) for x in (cell.kernel, biases[0])],
            [ops.cast(x, dtype) for x in (cell.recurrent_kernel, biases[1])],
            mask,
            ops.cast(length, "int32"),
            (kept, kept_recurrent),
            reverse=self.go_backwards,
            training=training,
        )


@contextlib.contextmanager
def temporary_attributes(
    layer: keras.layers.Layer, **attributes: Any
) -> Iterator[None]:
    """Give a layer other attribute values inside the context."""
    before = {name: getattr(layer, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(layer, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(layer, name, value)


def single_mask(mask: Tree) -> Tensor | None:
    """Return the mask, or the first one if Keras passes several."""
    first = next(iter(keras.tree.flatten(mask)), None)
    is_nested_list = isinstance(first, (bool, int, float))
    return ops.convert_to_tensor(mask) if is_nested_list else first


def is_plain(cell: keras.layers.Layer) -> bool:
    """Return True if one of Keras' cells has the formula given in `formulas.py`."""
    return (
        cell.activation is keras.activations.tanh
        and getattr(cell, "recurrent_activation", keras.activations.sigmoid)
        is keras.activations.sigmoid
        and getattr(cell, "reset_after", True)
    )


def as_list(masks: Tensor | list[Tensor] | None) -> list[Tensor]:
    """Return a cell's dropout masks, which are none, one, or one for each gate."""
    if masks is None:
        return []
    return list(masks) if isinstance(masks, (list, tuple)) else [masks]
