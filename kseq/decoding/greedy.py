"""Greedy search: the most probable token at every step."""

import dataclasses

from keras import ops

from kseq.decoding.constraints import constraint_tuple
from kseq.decoding.loop import SearchLoop


@dataclasses.dataclass(frozen=True)
class GreedySearch:
    """Takes the most probable token at every step.

    Args:
        constraints: Constraints on what may be written, in their order.

    Call arguments:
        step: Function `(token_ids (B, 1), state, constants) -> (logits (B, 1, V),
            state)`.
        state: Tree of tensors `(B, 1, ...)`.
        constants: Tree of tensors `(B, ...)`.
        start_token_ids: Integers `(B,)`, the first token that each row reads: a list,
            an array or a tensor.
        end_token_id: The token that ends a sequence.
        max_length: Most tokens to write, the end token counted.
        pad_token_id: What is written behind the end, and nowhere else.
        prefix: Integers `(B, P)`, what each row must begin with whatever constraints
            say; padding where any token but the end may stand. Or None.
        max_lengths: Integers `(B,)`, where a row is cut off before `max_length`; or
            None.

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

    def __post_init__(self):
        object.__setattr__(self, "constraints", constraint_tuple(self.constraints))

    @property
    def num_beams(self):
        return 1

    @property
    def can_stream(self):
        return True

    def __call__(
        self,
        step,
        state,
        constants,
        start_token_ids,
        end_token_id,
        max_length,
        pad_token_id=0,
        prefix=None,
        max_lengths=None,
    ):
        loop = self.loop(
            step, constants, end_token_id, max_length, pad_token_id, prefix, max_lengths
        )
        _, _, written, _ = loop.run(start_token_ids, state)
        return loop.result(written)

    def loop(
        self,
        step,
        constants,
        end_token_id,
        max_length,
        pad_token_id=0,
        prefix=None,
        max_lengths=None,
    ):
        return SearchLoop(
            step,
            constants,
            self._select,
            num_beams=1,
            max_length=max_length,
            end_token_id=end_token_id,
            pad_token_id=pad_token_id,
            constraints=self.constraints,
            prefix=prefix,
            max_lengths=max_lengths,
        )

    def _select(self, gains, hypotheses):
        best, token_ids = ops.top_k(gains, 1)  # B 1 1
        token_ids = ops.cast(token_ids[..., 0], "int32")
        gained = ops.where(hypotheses.finished, 0.0, best[..., 0])
        return None, token_ids, {"scores": hypotheses.scores + gained}
