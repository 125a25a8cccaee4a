"""Bidirectional recurrent layer whose states fit a decoder.

Axes in shape comments: B batch, S steps, D features, U units.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self, TypeAlias

import keras
from keras import ops

from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.initializers import reseeded
from kseq.layers.masking import apply_mask, step_mask
from kseq.layers.validation import one_of, sequence_shape
from kseq.typing import Config, Shape, Tensor, Tree

MergeMode: TypeAlias = Literal["concat", "sum", "mul", "ave"]
MERGES: dict[MergeMode, Callable[[Tensor, Tensor], Tensor]] = {
    "concat": lambda forward, backward: ops.concatenate([forward, backward], axis=-1),
    "sum": lambda forward, backward: forward + backward,
    "mul": lambda forward, backward: forward * backward,
    "ave": lambda forward, backward: (forward + backward) / 2,
}


@keras.saving.register_keras_serializable(package="kseq")
class Bidirectional(Composite):
    """A recurrent layer run in both directions, with merged outputs and states.

    `keras.layers.Bidirectional` returns the states of each direction separately. This
    layer merges them like the outputs, so it returns as many states as the wrapped
    layer, in the form that a decoder takes. At masked steps the output repeats the last
    state; with `zero_output_for_mask=True` on the layer it is zero, as it always is in
    Keras' layer.

    Args:
        layer: A `keras.layers.RNN`, `LSTM`, `GRU` or `SimpleRNN` that runs forwards
            and has `return_sequences=True`. It becomes the forward direction; a copy
            of it becomes the backward direction.
        merge_mode: `"concat"`, `"sum"`, `"mul"` or `"ave"` (the mean).
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        mask: Boolean `(B, S)`; masked steps are skipped in both directions. Defaults
            to the Keras mask of `sequences`.
        initial_state: A list of states `(B, U)`: those of the forward direction, then
            those of the backward direction, as in Keras. Defaults to zeros.
        training: Whether to apply the dropout of the layer.

    Returns:
        Outputs `(B, S, U)`, or `(B, S, 2U)` for `"concat"`. With `return_state=True` on
        the layer: `[outputs, *states]`, each merged state `(B, U)` or `(B, 2U)`.
        Stacked cells have a list of states for each cell, as in the layer.

    Raises:
        ValueError: The layer returns one vector, runs backwards or is not recurrent,
            the merge mode is unknown, a mask is neither boolean nor made of 0 and 1, or
            the number of initial states is not that of both directions.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.layers import Bidirectional
    >>> layer = keras.layers.LSTM(3, return_sequences=True, return_state=True)
    >>> outputs, h, c = Bidirectional(layer, "sum")(np.ones((2, 7, 5)))
    >>> tuple(outputs.shape), tuple(h.shape), tuple(c.shape)
    ((2, 7, 3), (2, 3), (2, 3))

    References:
        - [Schuster and Paliwal, 1997](https://doi.org/10.1109/78.650093), II.B
    """

    def __init__(
        self,
        layer: keras.layers.RNN,
        merge_mode: MergeMode = "concat",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.merge_mode = one_of("merge_mode", merge_mode, tuple(MERGES))
        if not isinstance(layer, keras.layers.RNN) or layer.go_backwards:
            raise ValueError(
                "`layer` must be a recurrent Keras layer that runs forwards. Received: "
                f"layer={layer}. Pass, for example, "
                "`keras.layers.GRU(64, return_sequences=True)`."
            )
        if not layer.return_sequences:
            raise ValueError(
                "`layer` must return one vector for each step. Received: "
                f"layer={layer.name} with return_sequences=False. Build it with "
                "`return_sequences=True`, and with `return_state=True` for the final "
                "states."
            )
        self.forward_layer = layer
        config = reseeded(layer.get_config(), "backward")
        config["go_backwards"] = True
        config["name"] = f"backward_{layer.name}"
        self.backward_layer = layer.__class__.from_config(config)
        self.supports_masking = True

    def build(self, sequences_shape: Shape) -> None:
        sequence_shape("sequences", sequences_shape)
        self.forward_layer.build(sequences_shape)
        self.backward_layer.build(sequences_shape)
        freeze_parts(self)

    def compute_output_shape(
        self, sequences_shape: Shape, initial_state_shape: Tree = None
    ) -> Tree:
        shapes = self.forward_layer.compute_output_shape(sequences_shape)
        times = 2 if self.merge_mode == "concat" else 1
        return keras.tree.map_shape_structure(
            lambda shape: (*shape[:-1], times * shape[-1]), shapes
        )

    def call(
        self,
        sequences: Tensor,
        mask: Tensor | None = None,
        initial_state: Tree = None,
        training: bool = False,
    ) -> Tensor | list[Tensor]:
        sequences = apply_mask(sequences, mask)
        options = {"mask": step_mask(mask, sequences), "training": training}
        ahead, back = self._first_states(initial_state)
        forward = self.forward_layer(sequences, initial_state=ahead, **options)
        backward = self.backward_layer(sequences, initial_state=back, **options)
        merge = MERGES[self.merge_mode]
        if not self.forward_layer.return_state:
            return merge(forward, ops.flip(backward, axis=1))
        outputs = merge(forward[0], ops.flip(backward[0], axis=1))  # B S U
        pairs = zip(*map(keras.tree.flatten, (forward[1:], backward[1:])), strict=True)
        states = [merge(f, b) for f, b in pairs]
        return [outputs, *keras.tree.pack_sequence_as(list(forward[1:]), states)]

    def _first_states(self, initial_state: Tree) -> Sequence[Tree]:
        """Return the initial states of each direction, or None for both."""
        if initial_state is None:
            return None, None
        states = keras.tree.flatten(initial_state)
        sizes = self.forward_layer.cell.state_size  # stacked cells: a list for each
        count = len(keras.tree.flatten(sizes))
        if len(states) != 2 * count:
            raise ValueError(
                f"`initial_state` must be a list of {2 * count} states, {count} for "
                "each direction, those of the forward direction first. Received: "
                f"{len(states)} states."
            )
        if count == 1:
            return states[:1], states[1:]
        # Keras wraps the lists that a cell holds, and JAX does not know the wrappers.
        sizes = [list(size) if isinstance(size, list) else size for size in sizes]
        halves = states[:count], states[count:]
        return [keras.tree.pack_sequence_as(sizes, half) for half in halves]

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.forward_layer),
            "merge_mode": self.merge_mode,
        }

    @classmethod
    def from_config(cls, config: Config) -> Self:
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})
