"""Greedy search: the most probable token at every step."""

import dataclasses

from keras import ops

from kseq.decoding.guidance import Guidance
from kseq.decoding.search import Search


@dataclasses.dataclass(frozen=True)
class GreedySearch(Search):
    """Takes the most probable token at every step.

    Args:
        constraints: Constraints on what may be written, in their order.
        guidance: A `Guidance`, or its scale, for a model that has learned without its
            source as well; or None.

    Call arguments: those of `Search`.

    Returns:
        A `Generation` with one hypothesis for each row.

    Raises:
        ValueError: A constraint is none.

    Example:

    A model that has learned one table, which token follows which:

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

    constraints: tuple = ()
    guidance: Guidance | None = None

    can_stream = True

    def select(self, gains, hypotheses):
        best = ops.max(gains, axis=-1)  # B 1
        last = gains.shape[-1] - 1
        # The first of the best. `argmax` and `top_k` take XLA four times as long.
        words = ops.arange(last + 1, dtype="int32")  # V
        is_best = gains == best[..., None]
        token_ids = ops.min(ops.where(is_best, words, last), axis=-1)
        gained = ops.where(hypotheses.finished, 0.0, best)
        return None, token_ids, {"scores": hypotheses.scores + gained}
