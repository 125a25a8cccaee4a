"""Short names of attention layers for decoders."""

from typing import Literal, TypeAlias, get_args

import keras

from kseq.layers.alignment_attention import CoverageAttention, LocationAwareAttention
from kseq.layers.attention import BahdanauAttention, LuongAttention
from kseq.layers.monotonic_attention import MonotonicAttention
from kseq.layers.validation import one_of

AttentionName: TypeAlias = Literal[
    "bahdanau", "luong", "local", "location", "coverage", "monotonic"
]
NAMES = get_args(AttentionName)


def resolve_attention(
    attention: str | keras.layers.Layer | None,
    units: int,
    dtype: str | keras.DTypePolicy,
) -> keras.layers.Layer | None:
    """Make an attention layer from its name; return layers and None unchanged."""
    if isinstance(attention, str):
        one_of("attention", attention, NAMES)
        if attention == "luong":
            return LuongAttention("general", dtype=dtype)
        if attention == "local":
            return LuongAttention("general", window=10, dtype=dtype)
        additive = {
            "bahdanau": BahdanauAttention,
            "location": LocationAwareAttention,
            "coverage": CoverageAttention,
            "monotonic": MonotonicAttention,
        }
        return additive[attention](units, dtype=dtype)
    if attention is not None and not hasattr(attention, "project_keys"):
        listed = ", ".join(f'"{name}"' for name in NAMES)
        raise ValueError(
            f"`attention` must be {listed}, None or an attention layer of "
            f"kseq. Received: attention={attention}. A custom layer needs the methods "
            "`build(query_shape, value_shape)`, `project_keys` and `attend`, see "
            "`kseq.layers.BahdanauAttention`."
        )
    return attention
