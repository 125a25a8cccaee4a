"""Recurrent encoder: a stack of SimpleRNN, LSTM, GRU or MinGRU layers.

Axes in shape comments: B batch, S steps, D features, U units.
"""

from typing import Any, Literal, Self

import keras

from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.dropout import sequence_dropout
from kseq.layers.masking import apply_mask, step_mask
from kseq.layers.recurrent.bidirectional import MERGES, Bidirectional, MergeMode
from kseq.layers.recurrent.cells import (
    CELLS,
    copy_cell,
    deserialize_cell,
    resolve_cell,
    serialize_cell,
)
from kseq.layers.recurrent.layers import GRU, LSTM, MinGRU, SimpleRNN
from kseq.layers.recurrent.rnn import RNN
from kseq.layers.recurrent.zoneout import Zoneout
from kseq.layers.validation import one_of, positive_integer, rate, sequence_shape
from kseq.typing import Config, Shape, Tensor

LAYERS = {"rnn": SimpleRNN, "lstm": LSTM, "gru": GRU, "mingru": MinGRU}


@keras.saving.register_keras_serializable(package="kseq")
class RecurrentEncoder(Composite):
    """A deep, optionally bidirectional, recurrent encoder that returns every step.

    Each layer computes `y = rnn(dropout(x))`; with `layer_normalization`, `x` is
    normalized first. If `x` and `y` have the same width, `residual=True` returns
    `x + y` and `residual="highway"` returns `t y + (1 - t) x`, with a gate
    `t = sigmoid(W x + b)` whose bias `b` starts at -1, so that `x` dominates at first.

    Args:
        cell: `"rnn"`, `"lstm"`, `"gru"`, `"mingru"` (see `MinGRU`), or a Keras cell
            such as `keras.layers.LSTMCell(64)`. The first layer uses the cell itself,
            the others use copies.
        units: Size U of the state. With a cell object, omit it or pass the same size.
        num_layers: Number of stacked layers.
        bidirectional: Whether each layer also reads backwards.
        merge_mode: Way to merge the directions: `"concat"` (width 2U), `"sum"`,
            `"mul"` or `"ave"` (width U).
        dropout: Fraction of the features of each layer's input to drop in training, the
            same features at every step.
        recurrent_dropout: Fraction of the recurrent state to drop in training. For a
            cell object, set it on the cell. A `"mingru"` has none.
        zoneout: Probability that a unit keeps its old state in training, or a list with
            one probability for each state, see `Zoneout`.
        residual: Whether to add each layer's input to its output, or `"highway"` for a
            gate that mixes the two.
        layer_normalization: Whether to normalize each layer's input.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sequences: `(B, S, D)`.
        mask: Boolean `(B, S)`; masked steps are skipped. Defaults to the Keras mask
            of `sequences`, which the outputs keep.
        return_state: Whether to return the final states as well.

    Returns:
        Outputs `(B, S, U)` (`(B, S, 2U)` for concatenated directions), or
        `(outputs, states)`. The states are a list for each layer, from the bottom up:
        `[h]`, or `[h, c]` for an LSTM, with the directions merged.

    Raises:
        ValueError: The cell, the merge mode or `residual` is unknown, a size is not
            positive, a rate is not in [0, 1), a `"mingru"` has recurrent dropout, or a
            mask is neither boolean nor made of 0 and 1.

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
        - [Feng et al., 2024](https://arxiv.org/abs/2410.01201), 3.1 (minGRU)
        - [Ba et al., 2016](https://arxiv.org/abs/1607.06450) (normalization)
        - [Krueger et al., 2017](https://arxiv.org/abs/1606.01305), 3.2 (zoneout)
        - [Wu et al., 2016](https://arxiv.org/abs/1609.08144), 3.1 (residual)
        - [Srivastava et al., 2015](https://arxiv.org/abs/1505.00387), 2 (highway)
    """

    def __init__(
        self,
        cell: keras.layers.Layer | Literal["rnn", "lstm", "gru", "mingru"] = "gru",
        units: int | None = None,
        num_layers: int = 1,
        bidirectional: bool = False,
        merge_mode: MergeMode = "concat",
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: float | list[float] | tuple[float, ...] = 0.0,
        residual: bool | Literal["highway"] = False,
        layer_normalization: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cell, self.units = resolve_cell(cell, units)
        self.num_layers = positive_integer("num_layers", num_layers)
        self.bidirectional = bool(bidirectional)
        self.merge_mode = one_of("merge_mode", merge_mode, tuple(MERGES))
        self.dropout = rate("dropout", dropout)
        self.recurrent_dropout = rate("recurrent_dropout", recurrent_dropout)
        if self.recurrent_dropout and cell == "mingru":
            raise ValueError(
                'A "mingru" has no product with its state, so no recurrent dropout. '
                f"Received: recurrent_dropout={recurrent_dropout}. Use `dropout` or "
                "`zoneout`."
            )
        if self.recurrent_dropout and not isinstance(cell, str):
            raise ValueError(
                "A cell object uses its own `recurrent_dropout`. Received: "
                f"recurrent_dropout={recurrent_dropout} with cell={cell.name}. Pass it "
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

    def _make_layer(self, index: int) -> keras.layers.Layer:
        options = {
            "return_sequences": True,
            "return_state": True,
            "dtype": self.dtype_policy,
            "name": f"layer_{index}",
        }
        if self.zoneout:
            layer = Zoneout(self._make_cell(index), self.zoneout, **options)
        elif isinstance(self.cell, str):
            layer = LAYERS[self.cell](self.units, **self._cell_options(), **options)
        else:
            layer = RNN(self._make_cell(index), **options)
        if not self.bidirectional:
            return layer
        return Bidirectional(layer, self.merge_mode, name=f"bidirectional_{index}")

    def _make_cell(self, index: int) -> keras.layers.Layer:
        if isinstance(self.cell, str):
            return CELLS[self.cell](
                self.units,
                **self._cell_options(),
                dtype=self.dtype_policy,
                name=f"cell_{index}",
            )
        return self.cell if index == 0 else copy_cell(self.cell, index)

    def _cell_options(self) -> dict[str, Any]:
        if self.cell == "mingru":
            return {}
        return {"recurrent_dropout": self.recurrent_dropout}

    @property
    def output_width(self) -> int:
        """Size of the last axis of the outputs."""
        concatenated = self.bidirectional and self.merge_mode == "concat"
        return self.units * 2 if concatenated else self.units

    def build(self, sequences_shape: Shape) -> None:
        self.gates: list[keras.layers.Dense | None] = []  # None: no gate
        shape = sequence_shape("sequences", sequences_shape)
        for index, layer in enumerate(self.recurrent_layers):
            if self.layer_normalization:
                self.normalizations[index].build(shape)
            layer.build(shape)
            self.gates.append(self._build_gate(index, shape))
            shape = (*sequences_shape[:2], self.output_width)
        freeze_parts(self)

    def _build_gate(self, index: int, shape: Shape) -> keras.layers.Dense | None:
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

    def compute_output_shape(self, sequences_shape: Shape) -> Shape:
        sequence_shape("sequences", sequences_shape)
        return (*sequences_shape[:-1], self.output_width)

    def call(
        self,
        sequences: Tensor,
        mask: Tensor | None = None,
        return_state: bool = False,
        training: bool = False,
    ) -> Tensor | tuple[Tensor, list[list[Tensor]]]:
        mask = step_mask(mask, sequences)
        sequences, states = apply_mask(sequences, mask), []
        for index, layer in enumerate(self.recurrent_layers):
            inputs = sequences  # B S D
            if self.layer_normalization:
                inputs = self.normalizations[index](inputs)
            inputs = self.dropout_layer(inputs, training=training)
            outputs, *state = layer(inputs, mask=mask, training=training)  # B S U
            if outputs.shape[-1] == sequences.shape[-1]:
                outputs = self._add_residual(index, sequences, outputs)
            sequences = outputs
            states.append(list(state))
        return (sequences, states) if return_state else sequences

    def _add_residual(self, index: int, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Combine the outputs of a layer with its inputs, `(B, S, U)`."""
        gate = self.gates[index]
        if gate is not None:
            return inputs + gate(inputs) * (outputs - inputs)
        return inputs + outputs if self.residual else outputs

    def get_config(self) -> Config:
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
    def from_config(cls, config: Config) -> Self:
        return cls(**{**config, "cell": deserialize_cell(config["cell"])})
