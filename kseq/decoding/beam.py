"""Beam search: the most probable sequences that a bounded number of beams can find.

Axes in shape comments: B batch, K beams, V vocabulary.
"""

import dataclasses
import math
import numbers

from keras import ops

from kseq.decoding.constraints import constraint_tuple
from kseq.decoding.generation import Generation
from kseq.decoding.loop import search_loop


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """Keeps the best `num_beams` hypotheses of each row at every step.

    Hypotheses are ranked by `log_prob / length ** length_penalty`, the end token
    counted. One that has ended is frozen: it keeps its place and its score until
    `num_beams` better ones push it out. With one beam this is greedy search; with as
    many beams as there are sequences it is exhaustive.

    Args:
        num_beams: Number of hypotheses K that are kept. It may exceed the vocabulary.
        length_penalty: Exponent of the length that scores are divided by. 0 ranks by
            probability, which favours short sequences; 1 by the mean per token.
        num_results: Number of hypotheses N to return. Defaults to `num_beams`.
        constraints: Constraints on what may be written, in their order.

    Call arguments:
        step: Function `(token_ids (B, K), state, constants) -> (logits (B, K, V),
            state)`.
        state: Tree of tensors `(B, K, ...)`, reordered with the hypotheses.
        constants: Tree of tensors `(B, ...)`.
        start_token_ids: Integers `(B,)`, the first token that each row reads.
        end_token_id: The token that ends a sequence.
        max_length: Most tokens to write, the end token counted.
        pad_token_id: What is written behind the end, and nowhere else.
        prefix: Integers `(B, P)`, what each row must begin with whatever constraints
            say; padding where any token may stand. Or None.

    Returns:
        A `Generation` with N hypotheses for each row, best first.

    Raises:
        ValueError: A number is out of its range.

    Example:

    Greedy search would begin with token 2 (.5); the best sequence begins with 3.

    >>> import keras, numpy as np
    >>> from kseq.decoding import BeamSearch
    >>> table = np.log([[.0001, .0999, .5, .4], [.25, .25, .25, .25],
    ...                 [.3, .3, .2, .2], [.04, .9, .03, .03]])
    >>> def step(token_ids, state, constants):
    ...     return keras.ops.take(table, token_ids, axis=0), state
    >>> result = BeamSearch(2)(step, (), (), [0], end_token_id=1, max_length=3)
    >>> np.array(result.token_ids)[0, 0].tolist()
    [3, 1, 0]
    >>> round(float(np.exp(result.log_probs[0, 0])), 3)
    0.36

    References:
        - [Graves, 2012](https://arxiv.org/abs/1211.3711), 2.5
        - [Wu et al., 2016](https://arxiv.org/abs/1609.08144), 7 (length penalty)
    """

    num_beams: int = 4
    length_penalty: float = 0.0
    num_results: int | None = None
    constraints: tuple = ()

    def __post_init__(self):
        if not isinstance(self.num_beams, numbers.Integral) or self.num_beams < 1:
            raise ValueError(
                "`num_beams` must be a positive integer. Received: "
                f"num_beams={self.num_beams!r}."
            )
        penalty = self.length_penalty
        if not isinstance(penalty, numbers.Real) or not math.isfinite(penalty):
            raise ValueError(
                "`length_penalty` must be a number, 0 for none. Received: "
                f"length_penalty={self.length_penalty!r}."
            )
        results = self.num_results
        if results is not None and not (
            isinstance(results, numbers.Integral) and 1 <= results <= self.num_beams
        ):
            raise ValueError(
                "`num_results` must be an integer from 1 to `num_beams`. Received: "
                f"num_results={results!r} with num_beams={self.num_beams}."
            )

        object.__setattr__(self, "constraints", constraint_tuple(self.constraints))

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
    ):
        result = search_loop(
            step,
            state,
            constants,
            start_token_ids,
            select=self._select,
            num_beams=self.num_beams,
            max_length=max_length,
            end_token_id=end_token_id,
            pad_token_id=pad_token_id,
            constraints=self.constraints,
            prefix=prefix,
        )
        return Generation(
            **{
                name: None if value is None else value[:, : self.num_results]
                for name, value in vars(result).items()
            }
        )

    def _select(self, gains, hypotheses):
        vocabulary_size = gains.shape[-1]
        finished = hypotheses.finished[..., None]  # B K 1
        # A finished hypothesis has one way to go on: as it is.
        is_first = ops.arange(vocabulary_size) == 0  # V
        frozen = ops.where(is_first, 0.0, -float("inf"))  # V
        scores = hypotheses.scores[..., None] + ops.where(finished, frozen, gains)
        ranks = scores  # B K V
        if self.length_penalty:
            lengths = hypotheses.lengths + ops.cast(~hypotheses.finished, "int32")
            lengths = ops.cast(ops.maximum(lengths, 1), "float32")[..., None]  # B K 1
            ranks = scores / lengths**self.length_penalty
        width = self.num_beams * vocabulary_size
        _, best = ops.top_k(ops.reshape(ranks, (-1, width)), self.num_beams)  # B K
        best = ops.cast(best, "int32")
        scores = ops.take_along_axis(ops.reshape(scores, (-1, width)), best, axis=1)
        return best // vocabulary_size, best % vocabulary_size, scores
