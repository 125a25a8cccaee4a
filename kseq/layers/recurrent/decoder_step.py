"""One step of a recurrent decoder: cells, attention and readout.

Axes in shape comments: B batch, T target steps, S source steps, K beams, D features,
F features of a state, U units.
"""

from typing import Any

import keras
from keras import ops

from kseq.layers.alignment_attention import AlignmentAttention
from kseq.layers.composition import Composite
from kseq.layers.decoder import Decoder
from kseq.layers.recurrent.cells import step_cell
from kseq.layers.recurrent.decoder_loop import top_hidden_state
from kseq.typing import Tensor


class RecurrentDecoderStep(Composite, Decoder):
    """Base of `RecurrentDecoder`, which sets the attributes: the step computation."""

    units: int
    attention: Any  # an attention layer, or None
    attention_order: str
    input_feeding: bool
    cells: list[keras.layers.Layer]
    readout: Any  # a dense layer, or None without attention

    @property
    def attends(self) -> bool:  # type: ignore[override]
        return self.attention is not None

    @property
    def attends_before(self) -> bool:
        """True if a step starts with attention, from the previous state."""
        return self.attends and self.attention_order == "bahdanau"

    @property
    def attends_after(self) -> bool:
        """True if a step ends with attention, from the new state."""
        return self.attends and self.attention_order == "luong"

    @property
    def feeds_output(self) -> bool:
        """True if a step also reads the previous output."""
        return self.attends_after and self.input_feeding

    @property
    def keeps_alignment(self) -> bool:
        """True if attention depends on the alignments of earlier steps."""
        return isinstance(self.attention, AlignmentAttention)

    @property
    def attends_in_loop(self) -> bool:
        """True if attention cannot be computed for all steps at once."""
        return self.attends_before or self.feeds_output or self.keeps_alignment

    @property
    def keeps_context(self) -> bool:
        """True if the state has the context, which the outputs depend on."""
        return self.attends_in_loop and not self.feeds_output

    def features(self, state: dict[str, Any]) -> Tensor:
        """Return what the outputs depend on in a state, `(B, K, F)`.

        That is the hidden state of the top cell, with the context that was read or the
        output, if the state has them.
        """
        others = [state[k] for k in ("context", "output") if k in state]
        hidden = top_hidden_state(state)
        return ops.concatenate([hidden, *others], axis=-1) if others else hidden

    def advance(
        self,
        inputs: Tensor,
        state: dict[str, Any],
        constants: dict[str, Tensor],
        between: list[Tensor] | None = None,
        training: bool = False,
    ) -> dict[str, Any]:
        """Return the next state, from the inputs `(B, K, D)` and the previous state.

        `between` holds the dropout masks between the cells, `(B, 1, U)` each.
        """
        alignment = state.get("alignment")
        if self.attends_before:
            context, _, alignment = self.attend(
                top_hidden_state(state), constants, alignment, training
            )  # B K D_m
            inputs = ops.concatenate([inputs, context], axis=-1)
        elif self.feeds_output:
            inputs = ops.concatenate([inputs, state["output"]], axis=-1)
        cells: list[list[Tensor]] = []
        for index, (cell, cell_state) in enumerate(
            zip(self.cells, state["cells"], strict=True)
        ):
            if index > 0:
                inputs = cells[-1][0]
                if between is not None:
                    inputs = inputs * between[index - 1]
            cells.append(step_cell(cell, inputs, cell_state))
        if self.attends_in_loop and not self.attends_before:
            context, _, alignment = self.attend(
                cells[-1][0], constants, alignment, training
            )
        new_state: dict[str, Any] = {"cells": cells}
        if self.keeps_context:
            new_state["context"] = context
        if self.feeds_output:
            new_state["output"] = self._attentional_vector(cells[-1][0], context)
        if self.keeps_alignment:
            new_state["alignment"] = alignment
        return new_state

    def _outputs(
        self, inputs: Tensor, features: Tensor, constants: dict[str, Tensor]
    ) -> Tensor:
        """Return the outputs; axis 1 is the beams or all T steps."""
        if self.attends_before:
            return self.readout(ops.concatenate([features, inputs], axis=-1))
        if self.feeds_output:
            return ops.split(features, [self.units], axis=-1)[1]
        if self.keeps_context:
            return self.readout(features)
        if self.attends_after:
            context = self.attend(features, constants)[0]
            return self._attentional_vector(features, context)
        return features

    def _attentional_vector(self, hidden: Tensor, context: Tensor) -> Tensor:
        return self.readout(ops.concatenate([hidden, context], axis=-1))  # B K U

    def attend(
        self,
        query: Tensor,
        constants: dict[str, Tensor],
        alignment: Tensor | None = None,
        training: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the context, the weights and the next alignment of queries.

        Args:
            query: `(B, T, U)`.
            constants: From `start`.
            alignment: `(B, T, S)`, from the state before; None without it.
            training: Whether the call is in training.
        """
        keys, memory, mask = (constants.get(k) for k in ("keys", "memory", "mask"))
        if not self.keeps_alignment:
            return (*self.attention.attend(query, keys, memory, mask), None)
        return self.attention.attend(query, keys, memory, mask, alignment, training)

    def _check_attends(self, return_attention_scores: bool) -> None:
        if return_attention_scores and self.attention is None:
            raise ValueError(
                "Attention scores need attention. Received: "
                "return_attention_scores=True on a decoder with attention=None."
            )
