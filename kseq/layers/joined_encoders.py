"""Encoders of several sources, with their outputs joined to one decoder memory.

Axes in shape comments: B batch, T target steps, S source steps, D features, U units.
"""

import inspect
from collections.abc import Mapping
from typing import Any, Self

import keras
from keras import ops

from kseq.layers.composition import Composite, freeze_parts
from kseq.layers.masking import apply_mask, combine_masks, step_mask
from kseq.layers.named_parts import (
    check_names,
    check_parts,
    deserialize_parts,
    serialize_parts,
)
from kseq.layers.recurrent.encoder import RecurrentEncoder
from kseq.layers.sums import mean_of_steps
from kseq.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kseq")
class JoinedEncoders(Composite):
    """One encoder per source, with all outputs joined to one memory.

        "lemma": (B, S1, D1) ──encoder──> (B, S1, U) ─┐
                                                      ├─> (B, S1 + S2, U), states
        "tags":  (B, S2, D2) ──encoder──> (B, S2, U) ─┘

    The outputs are concatenated along the steps, so attention chooses among the steps
    of all sources at once, and any decoder works with them. Narrower outputs are
    projected to the greatest width.

    Args:
        encoders: Dictionary with an encoder for each source: any layer `(B, S, D) ->
            (B, S, U)`, or None to use the embedded source directly. Several names may
            share one layer.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        sources: Dictionary of `(B, S, D)`, as returned by `NamedEmbeddings`.
        mask: Dictionary of boolean masks `(B, S)`, None for a source without padding;
            or None. Defaults to the Keras masks of `sources`.
        return_state: Whether to return final states as well.

    Returns:
        Memory `(B, S1 + S2 + ..., U)` in the order of `encoders`, with the Keras mask
        of all steps. With `return_state`, `(memory, states)`. The states are a list for
        each layer from bottom to top, as `StateBridge` takes them. The top layers of
        all encoders share one list, the layers below them the next, and so on. An
        encoder that is not recurrent has one layer, whose state is the mean of its
        outputs.

    Raises:
        ValueError: `encoders` is not a dictionary of layers, the names of the sources
            differ, an encoder does not return one vector for each step, or a mask
            contains values other than booleans or 0 and 1.

    Example:

    >>> import numpy as np
    >>> from kseq.layers import JoinedEncoders, RecurrentEncoder, TransformerEncoder
    >>> encoder = JoinedEncoders(
    ...     {"lemma": RecurrentEncoder("gru", 8), "tags": TransformerEncoder(1, 2, 8)}
    ... )
    >>> sources = {"lemma": np.ones((2, 7, 5)), "tags": np.ones((2, 3, 6))}
    >>> tuple(encoder(sources).shape)
    (2, 10, 8)

    References:
        - [Zoph and Knight, 2016](https://arxiv.org/abs/1601.00710), 3 (several sources)
        - [Libovicky and Helcl, 2017](https://arxiv.org/abs/1704.06567), 3.1 (one
          attention over all)
    """

    def __init__(
        self, encoders: Mapping[str, keras.layers.Layer | None], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        kind = keras.layers.Layer | None
        example = "`JoinedEncoders({'lemma': RecurrentEncoder('gru', 64)})`"
        self.encoders = check_parts("encoders", encoders, kind, example)
        self.supports_masking = True

    def build(self, sources_shape: Mapping[str, Shape]) -> None:
        check_names("sources", sources_shape, self.encoders)
        shapes = {}
        for name, encoder in self.encoders.items():
            if encoder is not None and not encoder.built:
                encoder.build(tuple(sources_shape[name]))
            shapes[name] = self._memory_shape(name, sources_shape[name])
        width = max(shape[-1] for shape in shapes.values())
        self.projections = {
            name: keras.layers.Dense(
                width, dtype=self.dtype_policy, name=f"{name}_projection"
            )
            for name, shape in shapes.items()
            if shape[-1] != width
        }
        for name, projection in self.projections.items():
            projection.build(shapes[name])
        freeze_parts(self)

    def _memory_shape(self, name: str, shape: Shape) -> tuple[Any, ...]:
        """Return the output shape of an encoder; raise unless it is a sequence's."""
        encoder = self.encoders[name]
        if encoder is not None:
            shape = encoder.compute_output_shape(tuple(shape))
        is_sequence = len(shape) == 3 and not isinstance(shape[0], tuple | list)
        if not is_sequence:
            raise ValueError(
                "An encoder must return one vector for each step, shape (B, S, U). "
                f"Received: the encoder of {name!r}, {encoder}, which returns "
                f"{shape}. A recurrent layer needs `return_sequences=True`, and no "
                "`return_state`."
            )
        return tuple(shape)

    def compute_output_shape(self, sources_shape: Mapping[str, Shape]) -> Shape:
        shapes = [self._memory_shape(x, sources_shape[x]) for x in self.encoders]
        steps = [shape[1] for shape in shapes]
        total = None if None in steps else sum(steps)
        return shapes[0][0], total, max(shape[-1] for shape in shapes)

    def compute_mask(
        self,
        sources: Mapping[str, Tensor],
        previous_mask: Mapping[str, Tensor | None] | None = None,
    ) -> Tensor | None:
        masks = previous_mask or {}
        if all(masks.get(name) is None for name in self.encoders):
            return None
        return ops.concatenate(
            [
                ops.ones_like(sources[name][..., 0], dtype="bool")
                if masks.get(name) is None
                else combine_masks(masks[name])
                for name in self.encoders
            ],
            axis=1,
        )

    def call(
        self,
        sources: Mapping[str, Tensor],
        mask: Mapping[str, Tensor | None] | None = None,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, list[list[Tensor]]]:
        check_names("sources", sources, self.encoders)
        if mask is not None:
            check_names("mask", mask, self.encoders)
        memories, states = [], []
        for name in self.encoders:
            own_mask = step_mask(None if mask is None else mask[name], sources[name])
            memory, own_states = self._encode(name, sources[name], own_mask)
            if name in self.projections:
                memory = self.projections[name](memory)
            memories.append(memory)  # B S U
            states.append(own_states)
        memory = ops.concatenate(memories, axis=1)  # B S1+S2 U
        return (memory, joined_states(states)) if return_state else memory

    def _encode(
        self, name: str, sequence: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, list[list[Tensor]]]:
        """Encode one source; return `(memory (B, S, U), states)`."""
        encoder = self.encoders[name]
        if isinstance(encoder, RecurrentEncoder):
            return encoder(sequence, mask=mask, return_state=True)
        memory = sequence
        if encoder is not None:
            takes_mask = "mask" in inspect.signature(encoder.call).parameters
            memory = encoder(sequence, **({"mask": mask} if takes_mask else {}))
        return memory, [[mean_of_steps(apply_mask(memory, mask), mask)]]

    def split(
        self, weights: Tensor, sources: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Split attention weights by source.

        Args:
            weights: Attention weights of a decoder, `(B, ..., T, S1 + S2)`.
            sources: Inputs of the encoders, `(B, S, D)` by name.

        Returns:
            Dictionary of weights `(B, ..., T, S)`.
        """
        split, start = {}, 0
        for name in self.encoders:
            end = start + ops.shape(sources[name])[1]
            split[name] = weights[..., start:end]
            start = end
        return split

    def get_config(self) -> Config:
        return {**super().get_config(), "encoders": serialize_parts(self.encoders)}

    @classmethod
    def from_config(cls, config: Config) -> Self:
        return cls(**{**config, "encoders": deserialize_parts(config["encoders"])})


def joined_states(states: list[list[list[Tensor]]]) -> list[list[Tensor]]:
    """Join the states of several encoders layer by layer, aligned at the top layer."""
    depth = max(map(len, states))
    return [
        [
            state
            for layers in states
            if height <= len(layers)
            for state in layers[-height]
        ]
        for height in range(depth, 0, -1)
    ]
