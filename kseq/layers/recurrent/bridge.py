"""State bridge: a decoder's initial states, made from an encoder's final states.

Axes in shape comments: B batch, S source steps, D features, U units.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import keras
from keras import ops

from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.masking import apply_mask, step_mask
from kseq.layers.sums import mean_of_steps
from kseq.layers.validation import one_of, sequence_shape, shapes_compatible
from kseq.typing import Config, Shape, Tensor, Tree

BridgeKind: TypeAlias = Literal["copy", "dense", "zero"]


@keras.saving.register_keras_serializable(package="kseq")
class StateBridge(Composite):
    """Adapter from the final states of any encoder to a decoder's initial states.

    - `"copy"` passes the states on unchanged. Number of layers, cell and sizes must
      match.
    - `"dense"` computes each state as `tanh(W s + b)`, where `s` is the concatenation
      of the states of the encoder layer at the same depth, counted from the top. So an
      LSTM can feed a GRU, a deep stack a shallow one, and the reverse. If the encoder
      has no states (it is not recurrent), `s` is the mean of the memory.
    - `"zero"` uses zeros.

    Args:
        state_sizes: A list of state sizes for each decoder layer, from the bottom up:
            `[[64]]` for a GRU, `[[64, 64]]` for an LSTM.
        kind: `"copy"`, `"dense"` or `"zero"`.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        memory: `(B, S, D)`, the encoder's outputs.
        states: A list of states `(B, U)` for each encoder layer, or None.
        memory_mask: Boolean `(B, S)`, True where the memory is real.

    Returns:
        A list of states `(B, size)` for each decoder layer.

    Raises:
        ValueError: The kind is unknown, the states are not one list per layer, their
            sizes differ from those at build time or do not fit `"copy"`, or a mask is
            neither boolean nor made of 0 and 1.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import StateBridge
    >>> bridge = StateBridge([[3], [3]], kind="dense")
    >>> states = bridge(np.ones((2, 7, 5)), [[np.ones((2, 4)), np.ones((2, 4))]])
    >>> [[tuple(s.shape) for s in layer] for layer in states]
    [[(2, 3)], [(2, 3)]]

    References:
        - [Bahdanau et al., 2015](https://arxiv.org/abs/1409.0473), A.2.2
    """

    def __init__(
        self,
        state_sizes: Sequence[Sequence[int]],
        kind: BridgeKind = "dense",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.state_sizes = [list(sizes) for sizes in state_sizes]
        self.kind = one_of("kind", kind, ("copy", "dense", "zero"))
        self.projections = [
            [
                keras.layers.Dense(
                    size,
                    activation="tanh",
                    dtype=self.dtype_policy,
                    name=f"projection_{layer}_{state}",
                )
                for state, size in enumerate(sizes)
            ]
            for layer, sizes in enumerate(self.state_sizes if kind == "dense" else [])
        ]
        self.supports_masking = True

    def build(self, memory_shape: Shape, states_shape: Tree = None) -> None:
        sequence_shape("memory", memory_shape)
        check_nesting(states_shape)
        if self.kind == "copy":
            received = [
                [shape[-1] for shape in layer] for layer in (states_shape or [])
            ]
            if received != self.state_sizes:
                raise ValueError(
                    'bridge="copy" needs encoder states like the decoder\'s, which has '
                    f"sizes {self.state_sizes} (a list for each layer). Received: "
                    f'states of sizes {received}. Use bridge="dense", which adapts '
                    'them, or, with attention, bridge="zero".'
                )
        for index, projections in enumerate(self.projections):
            if states_shape:
                layer = states_shape[self._source_layers(len(states_shape))[index]]
                width = sum(shape[-1] for shape in layer)
            else:
                width = memory_shape[-1]
            for projection in projections:
                projection.build((memory_shape[0], width))
        freeze_parts(self)

    def compute_output_shape(
        self, memory_shape: Shape, states_shape: Tree = None
    ) -> list[list[Shape]]:
        return [[(memory_shape[0], size) for size in x] for x in self.state_sizes]

    def compute_mask(self, memory: Tensor, previous_mask: Tree = None) -> None:
        return None

    def call(
        self,
        memory: Tensor,
        states: Sequence[Sequence[Tensor]] | None = None,
        memory_mask: Tensor | None = None,
    ) -> list[list[Tensor]]:
        if states is not None and self.kind != "zero":
            self._check_states(states, memory.shape[0])
        if self.kind == "copy":
            return [list(layer) for layer in states or ()]
        if self.kind == "zero":
            batch = ops.shape(memory)[0]
            return [
                [ops.zeros((batch, size), self.compute_dtype) for size in sizes]
                for sizes in self.state_sizes
            ]
        if states is None:
            mask = step_mask(memory_mask, memory)
            states = [[mean_of_steps(apply_mask(memory, mask), mask)]]
        sources = [ops.concatenate(list(layer), axis=-1) for layer in states]
        return [
            [projection(sources[source]) for projection in projections]
            for projections, source in zip(
                self.projections, self._source_layers(len(sources)), strict=True
            )
        ]

    def _check_states(
        self, states: Sequence[Sequence[Tensor]], rows: int | None
    ) -> None:
        """Raise unless states have the widths of the build and the batch size."""
        shapes = keras.tree.map_structure(lambda state: tuple(state.shape), states)
        check_nesting(shapes)
        received = [[shape[-1] for shape in layer] for layer in shapes]
        expected = self.state_sizes
        if self.kind == "dense":  # the states of a layer are concatenated
            received = [sum(received[i]) for i in self._source_layers(len(shapes))]
            expected = [layer[0].kernel.shape[0] for layer in self.projections]
        is_for_rows = all(
            shapes_compatible(shape[:1], (rows,)) for layer in shapes for shape in layer
        )
        if received != expected or not is_for_rows:
            raise ValueError(
                "`initial_state` must have the sizes that the decoder was built with, "
                f"{expected} in total for each layer, and {rows} rows, like `memory`. "
                f"Received: states of the shapes {shapes}."
            )

    def _source_layers(self, num_sources: int) -> list[int]:
        """Return the index of the encoder layer that feeds each decoder layer.

        Layers are aligned at the top.
        """
        offset = num_sources - len(self.state_sizes)
        return [max(index + offset, 0) for index in range(len(self.state_sizes))]

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "state_sizes": self.state_sizes,
            "kind": self.kind,
        }


def check_nesting(shapes: Tree) -> None:
    """Raise unless states are a list of lists, one for each layer."""
    depth, inner = 0, shapes
    while isinstance(inner, (list, tuple)) and inner:
        depth, inner = depth + 1, inner[0]
    if shapes is not None and depth != 3:  # layers, states, axes
        advice = {1: "[[initial_state]]", 2: "[initial_state]"}.get(depth)
        raise ValueError(
            "`initial_state` must be a list of states for each encoder layer: [[h]] "
            "for one GRU, [[h, c]] for one LSTM, each state (B, U). Received: states "
            f"of the shapes {shapes}."
            + (f" Use `initial_state={advice}`." if advice else "")
        )
