"""Greedy search: the most probable token at every step."""

import dataclasses
from collections.abc import Sequence

from keras import ops

from kseq.decoding.constraints import Constraint
from kseq.decoding.guidance import Guidance
from kseq.decoding.hypotheses import Hypotheses
from kseq.decoding.loop import Selection
from kseq.decoding.search import Search
from kseq.typing import Tensor


@dataclasses.dataclass(frozen=True)
class GreedySearch(Search):
    """Greedy search: the most probable token at every step.

    Args:
        constraints: Constraints on the generated tokens, applied in this order.
        guidance: A `Guidance`, or its scale, for a model that was also trained without
            its source. None for no guidance.

    Call arguments: those of `Search`.

    Returns:
        A `Generation` with one hypothesis for each example.

    Raises:
        ValueError: `constraints` is not a list of constraints.

    Example:

    A model that is a table of the next token's log-probabilities:

    >>> import keras, numpy as np
    >>> from kseq.decoding import GreedySearch
    >>> table = np.log([[.1, .1, .8], [.2, .2, .6], [.1, .7, .2]])
    >>> def step(token_ids, state, constants):
    ...     return keras.ops.take(table, token_ids, axis=0), state
    >>> result = GreedySearch()(step, (), (), [0], end_token_id=1, max_length=5)
    >>> np.array(result.token_ids).tolist()
    [[[2, 1, 0, 0, 0]]]
    >>> float(keras.ops.exp(result.log_probs[0, 0]))
    0.56...

    References:
        - [Sutskever et al., 2014](https://arxiv.org/abs/1409.3215), 3.2 (a beam of one)
    """

    constraints: Sequence[Constraint] = ()
    guidance: Guidance | float | None = None

    can_stream = True

    def select(self, gains: Tensor, hypotheses: Hypotheses) -> Selection:
        best = ops.max(gains, axis=-1)  # B 1
        last = gains.shape[-1] - 1
        # The first of the best tokens. With XLA, `argmax` and `top_k` are four times
        # slower.
        words = ops.arange(last + 1, dtype="int32")  # V
        is_best = gains == best[..., None]
        token_ids = ops.min(ops.where(is_best, words, last), axis=-1)
        gained = ops.where(hypotheses.finished, 0.0, best)
        return None, token_ids, {"scores": hypotheses.scores + gained}
