"""What a search returns.

Axes in shape comments: B batch, N hypotheses, T steps, S source steps.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Generation:
    """The hypotheses of each row, best first.

    A hypothesis that could not be formed, because there are fewer sequences than
    beams, has length 0 and a log-probability of minus infinity.

    Attributes:
        token_ids: Integers `(B, N, T)` without the start token, with the end token,
            then padding.
        log_probs: `(B, N)`, the natural logarithm of each sequence's probability, the
            end token's included.
        token_log_probs: `(B, N, T)`, the same for each token, 0 after the end.
        lengths: Integers `(B, N)`, the number of tokens, the end token counted.
        ended: Booleans `(B, N)`, whether the end token was written. What has not ended
            was cut off at the greatest length, or earlier, where a search could no
            longer use it.
        attention: `(B, N, T, S)`, the weights of the source steps at each step, of a
            Transformer `(B, N, layers, heads, T, S)`; of several sources by name. None
            unless they were asked for.
            What a decoder without cross-attention gives to the steps it has written is
            left out: its weights sum to less than 1, and from nothing S is 0.
    """

    token_ids: Any
    log_probs: Any
    token_log_probs: Any
    lengths: Any
    ended: Any = None
    attention: Any = None
