"""A constraint that keeps a model from generating the unknown token.

Axes in shape comments: B batch, K beams, V vocabulary.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

from keras import ops

from kseq.text.token_ids import UNKNOWN
from kseq.typing import Tensor

if TYPE_CHECKING:
    from kseq.decoding import Hypotheses


@dataclasses.dataclass(frozen=True)
class BannedUnknown:
    """A constraint that bans the unknown token, which is decoded to U+FFFD."""

    def __call__(self, log_probs: Tensor, hypotheses: "Hypotheses") -> Tensor:
        is_unknown = ops.arange(log_probs.shape[-1], dtype="int32") == UNKNOWN  # V
        return ops.where(is_unknown, -float("inf"), log_probs)  # B K V


def without_unknown(options: dict[str, Any], ban_unknown: bool) -> dict[str, Any]:
    """Return options for a model's `generate`; add `BannedUnknown` if asked."""
    if not ban_unknown:
        return options
    constraints = options.get("constraints", ())
    if not isinstance(constraints, list | tuple):
        return options  # the model raises an error
    return {**options, "constraints": [*constraints, BannedUnknown()]}
