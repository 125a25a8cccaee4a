"""A constraint for models that shall write words alone.

Axes in shape comments: B batch, K beams, V vocabulary.
"""

import dataclasses

from keras import ops

from kseq.text.token_ids import UNKNOWN


@dataclasses.dataclass(frozen=True)
class BannedUnknown:
    """Never writes the unknown token, which reads U+FFFD."""

    def __call__(self, log_probs, hypotheses):
        is_unknown = ops.arange(log_probs.shape[-1], dtype="int32") == UNKNOWN  # V
        return ops.where(is_unknown, -float("inf"), log_probs)  # B K V


def without_unknown(options, ban_unknown):
    """The options of a model's `generate`, with that constraint if it is asked for."""
    if not ban_unknown:
        return options
    constraints = options.get("constraints", ())
    if not isinstance(constraints, list | tuple):
        return options  # which the model refuses
    return {**options, "constraints": [*constraints, BannedUnknown()]}
