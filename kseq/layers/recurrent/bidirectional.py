"""Reading a sequence from both ends, with states that a decoder can take.

Axes in shape comments: B batch, S steps, D features, U units.
"""

import keras
from keras import ops

from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.initializers import reseeded
from kseq.layers.masking import apply_mask, step_mask
from kseq.layers.validation import one_of, sequence_shape

MERGES = {
    "concat": lambda forward, backward: ops.concatenate([forward, backward], axis=-1),
    "sum": lambda forward, backward: forward + backward,
    "mul": lambda forward, backward: forward * backward,
    "ave": lambda forward, backward: (forward + backward) / 2,
}


@keras.saving.register_keras_serializable(package="kseq")
class Bidirectional(Composite):
    """Runs a recurrent layer in both directions and merges outputs and states.

    Unlike `keras.layers.Bidirectional`, which returns the states of the directions
    apart, it merges them like the outputs. So it hands over as many states as the
    layer has, in the form that a decoder takes. At masked steps the output repeats the
    last state; with `zero_output_for_mask=True` on the layer it is zero, as Keras'
    always is.

    Args:
        layer: A `keras.layers.RNN`, `LSTM`, `GRU` or `SimpleRNN` that runs forwards
            and has `return_sequences=True`. It becomes the forward direction; a copy
            reads backwards.
        merge_mode: `"concat"`, `"sum"`, `"mul"` or `"ave"` (the mean).
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        mask: Boolean `(B, S)`; masked steps are skipped in both directions. Defaults
            to the Keras mask of `sequences`.
        initial_state: A list of states `(B, U)`, first those of the direction that
            reads forwards, then as many for the other, as in Keras. Defaults to zeros.
        training: Whether to apply the dropout of the layer.

    Returns:
        Outputs `(B, S, U)`, or `(B, S, 2U)` for `"concat"`. With `return_state=True` on
        the layer: `[outputs, *states]`, each merged state `(B, U)` or `(B, 2U)`; of
        stacked cells a list for each cell, as from the layer.

    Raises:
        ValueError: The layer returns one vector, runs backwards or is not recurrent,
            the merge mode is unknown, a mask is neither boolean nor of 0 and 1, or
            there are not as many first states as the two directions have.

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

    def __init__(self, layer, merge_mode="concat", **kwargs):
        super().__init__(**kwargs)
        self.merge_mode = one_of("merge_mode", merge_mode, tuple(MERGES))
        if not isinstance(layer, keras.layers.RNN) or layer.go_backwards:
            raise ValueError(
                "`layer` must be a recurrent Keras layer that runs forwards. Received: "
                f"layer={layer}. Pass for example "
                "`keras.layers.GRU(64, return_sequences=True)`."
            )
        if not layer.return_sequences:
            raise ValueError(
                "`layer` must return one vector for each step. Received: "
                f"layer={layer.name} with return_sequences=False. Build it with "
                "`return_sequences=True`; the last states come with "
                "`return_state=True`."
            )
        self.forward_layer = layer
        config = reseeded(layer.get_config(), "backward")
        config["go_backwards"] = True
        config["name"] = f"backward_{layer.name}"
        self.backward_layer = layer.__class__.from_config(config)
        self.supports_masking = True

    def build(self, sequences_shape):
        sequence_shape("sequences", sequences_shape)
        self.forward_layer.build(sequences_shape)
        self.backward_layer.build(sequences_shape)
        freeze_parts(self)

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        shapes = self.forward_layer.compute_output_shape(sequences_shape)
        times = 2 if self.merge_mode == "concat" else 1
        return keras.tree.map_shape_structure(
            lambda shape: (*shape[:-1], times * shape[-1]), shapes
        )

    def call(self, sequences, mask=None, initial_state=None, training=False):
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

    def _first_states(self, initial_state):
        """The first states of each direction, or None."""
        if initial_state is None:
            return None, None
        states = keras.tree.flatten(initial_state)
        sizes = self.forward_layer.cell.state_size  # of stacked cells a list for each
        count = len(keras.tree.flatten(sizes))
        if len(states) != 2 * count:
            raise ValueError(
                f"`initial_state` must be a list of {2 * count} states, {count} for "
                "each direction, that which reads forwards first. Received: "
                f"{len(states)} states."
            )
        if count == 1:
            return states[:1], states[1:]
        # JAX does not know the lists that Keras makes of those that a cell holds.
        sizes = [list(size) if isinstance(size, list) else size for size in sizes]
        halves = states[:count], states[count:]
        return [keras.tree.pack_sequence_as(sizes, half) for half in halves]

    def get_config(self):
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.forward_layer),
            "merge_mode": self.merge_mode,
        }

    @classmethod
    def from_config(cls, config):
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})
