"""The bridge: how an encoder's final states become a decoder's first ones.

Axes in shape comments: B batch, S source steps, D features, U units.
"""

import keras
from keras import ops

from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.masking import apply_mask, step_mask
from kseq.layers.sums import mean_of_steps
from kseq.layers.validation import one_of, sequence_shape, shapes_compatible


@keras.saving.register_keras_serializable(package="kseq")
class StateBridge(Composite):
    """Adapts the final states of any encoder to the first states of a decoder.

    - `"copy"` hands them over as they are; layers, cells and sizes must agree.
    - `"dense"` gives each state as `tanh(W s + b)`, where `s` holds the states of the
      encoder layer at the same height, counted from the top. An LSTM can so feed a
      GRU, a deep stack a shallow one and the reverse. Without states (an encoder that
      is not recurrent), `s` is the mean of the memory.
    - `"zero"` starts from zeros.

    Args:
        state_sizes: For each decoder layer, the first at the bottom, the list of its
            state sizes: `[[64]]` for a GRU, `[[64, 64]]` for an LSTM.
        kind: `"copy"`, `"dense"` or `"zero"`.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        memory: `(B, S, D)`, the encoder's outputs.
        states: For each encoder layer a list of states `(B, U)`, or None.
        memory_mask: Boolean `(B, S)`, True where the memory is real.

    Returns:
        For each decoder layer a list of states `(B, size)`.

    Raises:
        ValueError: The kind is unknown, the states are not a list for each layer or of
            other sizes than at the build, `"copy"` meets states that do not fit, or a
            mask is neither boolean nor of 0 and 1.

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

    def __init__(self, state_sizes, kind="dense", **kwargs):
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

    def build(self, memory_shape, states_shape=None):
        sequence_shape("memory", memory_shape)
        check_nesting(states_shape)
        if self.kind == "copy":
            received = [
                [shape[-1] for shape in layer] for layer in (states_shape or [])
            ]
            if received != self.state_sizes:
                raise ValueError(
                    "A copying bridge needs encoder states like the decoder's, which "
                    f"has sizes {self.state_sizes} (a list for each layer). Received: "
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

    def compute_output_shape(self, memory_shape, states_shape=None):
        return [[(memory_shape[0], size) for size in x] for x in self.state_sizes]

    def compute_mask(self, memory, previous_mask=None):
        return None

    def call(self, memory, states=None, memory_mask=None):
        if states is not None and self.kind != "zero":
            self._check_states(states, memory.shape[0])
        if self.kind == "copy":
            return [list(layer) for layer in states]
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

    def _check_states(self, states, rows):
        """Refuse states of other rows or widths than those of the build."""
        shapes = keras.tree.map_structure(lambda state: tuple(state.shape), states)
        check_nesting(shapes)
        received = [[shape[-1] for shape in layer] for layer in shapes]
        expected = self.state_sizes
        if self.kind == "dense":  # which joins the states of a layer
            received = [sum(received[i]) for i in self._source_layers(len(shapes))]
            expected = [layer[0].kernel.shape[0] for layer in self.projections]
        is_for_rows = all(
            shapes_compatible(shape[:1], (rows,)) for layer in shapes for shape in layer
        )
        if received != expected or not is_for_rows:
            raise ValueError(
                "`initial_state` must have the sizes that the decoder was built with, "
                f"for each layer {expected} in all, and {rows} rows, as `memory`. "
                f"Received: states of the shapes {shapes}."
            )

    def _source_layers(self, num_sources):
        """Return for each decoder layer the encoder layer as far below the top."""
        offset = num_sources - len(self.state_sizes)
        return [max(index + offset, 0) for index in range(len(self.state_sizes))]

    def get_config(self):
        return {
            **super().get_config(),
            "state_sizes": self.state_sizes,
            "kind": self.kind,
        }


def check_nesting(shapes):
    """Refuse states that are not a list for each layer."""
    depth, inner = 0, shapes
    while isinstance(inner, (list, tuple)) and inner:
        depth, inner = depth + 1, inner[0]
    if shapes is not None and depth != 3:  # layers, states, axes
        advice = {1: "[[initial_state]]", 2: "[initial_state]"}.get(depth)
        raise ValueError(
            "`initial_state` must be a list of the states of each encoder layer, "
            "[[h]] of one GRU and [[h, c]] of one LSTM, each (B, U). Received: states "
            f"of the shapes {shapes}."
            + (f" Wrap them: `initial_state={advice}`." if advice else "")
        )
