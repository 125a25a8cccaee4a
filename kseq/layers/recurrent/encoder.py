"""Recurrent encoders: stacks of SimpleRNN, LSTM or GRU layers that read a sequence.

Axes in shape comments: B batch, S steps, D features, U units.
"""

import keras

from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.dropout import sequence_dropout
from kseq.layers.masking import apply_mask, step_mask
from kseq.layers.recurrent.bidirectional import MERGES, Bidirectional
from kseq.layers.recurrent.cells import (
    CELLS,
    copy_cell,
    deserialize_cell,
    resolve_cell,
    serialize_cell,
)
from kseq.layers.recurrent.layers import GRU, LSTM, SimpleRNN
from kseq.layers.recurrent.rnn import RNN
from kseq.layers.recurrent.zoneout import Zoneout
from kseq.layers.validation import one_of, positive_integer, rate, sequence_shape

LAYERS = {"rnn": SimpleRNN, "lstm": LSTM, "gru": GRU}


@keras.saving.register_keras_serializable(package="kseq")
class RecurrentEncoder(Composite):
    """A deep, optionally bidirectional, recurrent network that keeps every step.

    Each layer gives `y = rnn(dropout(x))`; with `layer_normalization` it reads the
    normalized `x`. Where `x` and `y` have the same width, `residual=True` gives `x + y`
    and `residual="highway"` gives `t y + (1 - t) x`, with a gate `t = sigmoid(W x + b)`
    whose bias `b` begins at -1, so that most of `x` goes past the layer at first.

    Args:
        cell: `"rnn"`, `"lstm"`, `"gru"`, or a Keras cell such as
            `keras.layers.LSTMCell(64)`, which becomes the first layer's and is copied
            for the others.
        units: Size U of the state. Must be left out, or agree, with a cell object.
        num_layers: Number of layers on top of each other.
        bidirectional: Whether each layer also reads from the end.
        merge_mode: How the directions are merged: `"concat"` (width 2U), `"sum"`,
            `"mul"` or `"ave"` (width U).
        dropout: Share of the features of each layer's input to drop in training, the
            same ones at every step.
        recurrent_dropout: Share of the recurrent state to drop in training. A cell
            object brings its own.
        zoneout: Probability that a unit keeps its old state in training, or a list with
            one for each state: see `Zoneout`.
        residual: Whether to add each layer's input to its output; `"highway"` for a
            gate that mixes the two.
        layer_normalization: Whether to normalise each layer's input.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        mask: Boolean `(B, S)`; masked steps are skipped. Defaults to the Keras mask
            of `sequences`, which the outputs keep.
        return_state: Whether to return the final states as well.

    Returns:
        Outputs `(B, S, U)` (`(B, S, 2U)` for concatenated directions), or
        `(outputs, states)`: for each layer, the first at the bottom, a list of its
        final states, `[h]` or for an LSTM `[h, c]`, the directions merged.

    Raises:
        ValueError: The cell or the merge mode is unknown, a size is not positive, a
            rate is not in [0, 1), `residual` is something else, or a mask is
            neither boolean nor of 0 and 1.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import RecurrentEncoder
    >>> encoder = RecurrentEncoder("lstm", units=3, num_layers=2, bidirectional=True)
    >>> outputs, states = encoder(np.ones((2, 7, 5)), return_state=True)
    >>> tuple(outputs.shape), [[tuple(s.shape) for s in layer] for layer in states]
    ((2, 7, 6), [[(2, 6), (2, 6)], [(2, 6), (2, 6)]])

    References:
        - [Hochreiter and Schmidhuber, 1997](https://doi.org/10.1162/neco.1997.9.8.1735)
        - [Cho et al., 2014](https://arxiv.org/abs/1406.1078), 2.3 (GRU)
        - [Ba et al., 2016](https://arxiv.org/abs/1607.06450) (normalization)
        - [Krueger et al., 2017](https://arxiv.org/abs/1606.01305), 3.2 (zoneout)
        - [Wu et al., 2016](https://arxiv.org/abs/1609.08144), 3.1 (residual)
        - [Srivastava et al., 2015](https://arxiv.org/abs/1505.00387), 2 (highway)
    """

    def __init__(
        self,
        cell="gru",
        units=None,
        num_layers=1,
        bidirectional=False,
        merge_mode="concat",
        dropout=0.0,
        recurrent_dropout=0.0,
        zoneout=0.0,
        residual=False,
        layer_normalization=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.cell, self.units = resolve_cell(cell, units)
        self.num_layers = positive_integer("num_layers", num_layers)
        self.bidirectional = bool(bidirectional)
        self.merge_mode = one_of("merge_mode", merge_mode, tuple(MERGES))
        self.dropout = rate("dropout", dropout)
        self.recurrent_dropout = rate("recurrent_dropout", recurrent_dropout)
        if self.recurrent_dropout and not isinstance(cell, str):
            raise ValueError(
                "A cell object drops by its own `recurrent_dropout`. Received: "
                f"recurrent_dropout={recurrent_dropout} with cell={cell.name}. Give it "
                "to the cell."
            )
        self.zoneout = zoneout
        self.residual = one_of("residual", residual, (False, True, "highway"))
        self.layer_normalization = bool(layer_normalization)
        self.recurrent_layers = [self._make_layer(i) for i in range(self.num_layers)]
        self.dropout_layer = sequence_dropout(self.dropout, self.dtype_policy)
        self.normalizations = [
            keras.layers.LayerNormalization(
                dtype=self.dtype_policy, name=f"normalization_{index}"
            )
            for index in range(self.num_layers if self.layer_normalization else 0)
        ]
        self.supports_masking = True

    def _make_layer(self, index):
        options = {
            "return_sequences": True,
            "return_state": True,
            "dtype": self.dtype_policy,
            "name": f"layer_{index}",
        }
        if self.zoneout:
            layer = Zoneout(self._make_cell(index), self.zoneout, **options)
        elif isinstance(self.cell, str):
            layer = LAYERS[self.cell](
                self.units, recurrent_dropout=self.recurrent_dropout, **options
            )
        else:
            layer = RNN(self._make_cell(index), **options)
        if not self.bidirectional:
            return layer
        return Bidirectional(layer, self.merge_mode, name=f"bidirectional_{index}")

    def _make_cell(self, index):
        if isinstance(self.cell, str):
            return CELLS[self.cell](
                self.units,
                recurrent_dropout=self.recurrent_dropout,
                dtype=self.dtype_policy,
                name=f"cell_{index}",
            )
        return self.cell if index == 0 else copy_cell(self.cell, index)

    @property
    def output_width(self):
        concatenated = self.bidirectional and self.merge_mode == "concat"
        return self.units * 2 if concatenated else self.units

    def build(self, sequences_shape):
        self.gates = []  # None for a layer that has none
        shape = sequence_shape("sequences", sequences_shape)
        for index, layer in enumerate(self.recurrent_layers):
            if self.layer_normalization:
                self.normalizations[index].build(shape)
            layer.build(shape)
            self.gates.append(self._build_gate(index, shape))
            shape = (*sequences_shape[:2], self.output_width)
        freeze_parts(self)

    def _build_gate(self, index, shape):
        if self.residual != "highway" or shape[-1] != self.output_width:
            return None
        gate = keras.layers.Dense(
            self.output_width,
            activation="sigmoid",
            bias_initializer=keras.initializers.Constant(-1.0),
            dtype=self.dtype_policy,
            name=f"gate_{index}",
        )
        gate.build(shape)
        return gate

    def compute_output_shape(self, sequences_shape):
        sequence_shape("sequences", sequences_shape)
        return (*sequences_shape[:-1], self.output_width)

    def call(self, sequences, mask=None, return_state=False, training=False):
        mask = step_mask(mask, sequences)
        sequences, states = apply_mask(sequences, mask), []
        for index, layer in enumerate(self.recurrent_layers):
            inputs = sequences  # B S D
            if self.layer_normalization:
                inputs = self.normalizations[index](inputs)
            inputs = self.dropout_layer(inputs, training=training)
            outputs, *state = layer(inputs, mask=mask, training=training)  # B S U
            if outputs.shape[-1] == sequences.shape[-1]:
                outputs = self._pass_by(index, sequences, outputs)
            sequences = outputs
            states.append(list(state))
        return (sequences, states) if return_state else sequences

    def _pass_by(self, index, inputs, outputs):
        """What comes out of a layer together with what went past it, `(B, S, U)`."""
        gate = self.gates[index]
        if gate is not None:
            return inputs + gate(inputs) * (outputs - inputs)
        return inputs + outputs if self.residual else outputs

    def get_config(self):
        return {
            **super().get_config(),
            "cell": serialize_cell(self.cell),
            "units": self.units,
            "num_layers": self.num_layers,
            "bidirectional": self.bidirectional,
            "merge_mode": self.merge_mode,
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "zoneout": self.zoneout,
            "residual": self.residual,
            "layer_normalization": self.layer_normalization,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "cell": deserialize_cell(config["cell"])})
