"""Result of a search.

Axes in shape comments: B batch, N hypotheses, T steps, S source steps.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class Generation:
    """The hypotheses of each example, best first.

    `model.generate` returns NumPy arrays. A search that is called with a step function
    returns tensors.

    If there are fewer sequences than beams, the missing hypotheses have length 0 and a
    log-probability of minus infinity.

    Attributes:
        token_ids: Integers `(B, N, T)` without the start token, with the end token,
            then padding.
        log_probs: `(B, N)`, the natural logarithm of each sequence's probability,
            including the end token.
        token_log_probs: `(B, N, T)`, the same for each token, 0 after the end.
        lengths: Integers `(B, N)`, the number of tokens, including the end token.
        ended: Booleans `(B, N)`, whether the end token was generated. A hypothesis
            that has not ended was cut off at the maximum length, or earlier if the
            search could no longer use it.
        attention: `(B, N, T, S)`, the attention weights over the source at each step.
            For a Transformer `(B, N, layers, heads, T, S)`; for several sources a
            dictionary by name. None unless requested.
            Weights that a decoder without cross-attention gives to generated steps are
            left out, so its weights sum to less than 1. Without a source, S is 0.
    """

    token_ids: "np.ndarray"
    log_probs: "np.ndarray"
    token_log_probs: "np.ndarray"
    lengths: "np.ndarray"
    ended: "np.ndarray | None" = None
    attention: Any = None  # an array, a dictionary of arrays or None
