"""What has been written so far, as constraints and searches see it.

Axes in shape comments: B batch, K beams, L maximum length, C candidates, V vocabulary.
"""

import dataclasses
from typing import Any

from keras import ops

from kseq.decoding.forced import Forced
from kseq.decoding.randomness import uniform


@dataclasses.dataclass(frozen=True)
class Hypotheses:
    """The hypotheses of each row before the next token.

    Those that have not ended all have the length `step`.

    Attributes:
        token_ids: Integers `(B, K, L)` without the start token, padded behind.
        token_log_probs: `(B, K, L)`, what the model gives to each token.
        log_probs: `(B, K)`, the sum of them; minus infinity where there is none.
        scores: `(B, K)`, the same after the constraints, of the tokens that were chosen
            and not forced by a prefix or `ForcedTokens`: what hypotheses are ranked by.
        lengths: Integers `(B, K)`, the number of tokens, the end token counted.
        finished: Boolean `(B, K)`, True where nothing is added any more.
        step: The number of the step, a scalar, from 0.
        end_token_id: The token that ends a sequence.
        max_lengths: Integers `(B, 1)`, the most tokens of each row, or None where that
            is L for all.
        coverage: `(B, K, S)`, how much each source step has been attended to, or None
            where the state does not tell; see `BeamSearch`.
        ended_ranks: `(B, K)`, the ranks of hypotheses that have ended, best first, of a
            search that keeps them apart; minus infinity where there is none.
        forced: Which tokens are not chosen.
        logits: `(B, K, V)`, what the model gives to the next token before the softmax,
            in float32; for constraints that need more than log-probabilities.
        row_seeds: Integers `(B,)`, the seeds of random numbers, or None.
    """

    token_ids: Any
    token_log_probs: Any
    log_probs: Any
    scores: Any
    lengths: Any
    finished: Any
    step: Any
    end_token_id: int
    max_lengths: Any = None
    coverage: Any = None
    ended_ranks: Any = None
    forced: Forced = Forced(None, (), 0)
    logits: Any = None
    row_seeds: Any = None

    @property
    def is_written(self):
        """Boolean `(L,)`: whether a hypothesis that is open has a token there."""
        return ops.arange(self.token_ids.shape[-1], dtype="int32") < self.step

    def random_numbers(self):
        """Numbers in [0, 1) for this step, `(B, K)`, of a search that is random."""
        if self.row_seeds is None:
            raise ValueError(
                "Random numbers need seeds of the rows. Received: row_seeds=None. A "
                "search that calls `random_numbers` says `is_random = True`."
            )
        return uniform(self.row_seeds, self.finished.shape[1], self.step)

    def recent(self, length):
        """The last tokens of those that are open, a list of `(B, K)`, the last behind.

        Where that many have not been written yet, a token is -1.
        """
        positions = ops.arange(self.token_ids.shape[-1], dtype="int32")  # L
        tokens = []
        for back in range(length, 0, -1):
            is_there = positions == self.step - back  # L
            found = ops.sum(ops.where(is_there, self.token_ids + 1, 0), axis=-1)  # B K
            tokens.append(found - 1)
        return tokens


def occurs(token_ids, is_counted, vocabulary_size):
    """Which tokens are among the candidates: boolean `(B, K, V)`.

    Args:
        token_ids: Integers `(B, K, C)`.
        is_counted: Boolean `(B, K, C)`, False for candidates to be left out.
        vocabulary_size: Number of tokens V.
    """
    # Those left out are written to a column V, which is cut off.
    columns = ops.where(is_counted, ops.cast(token_ids, "int32"), vocabulary_size)
    shape = ops.shape(columns)
    rows = ops.arange(shape[0] * shape[1], dtype="int32")[:, None]
    columns = ops.reshape(columns, (-1, shape[2])) + rows * (vocabulary_size + 1)
    found = ops.scatter_update(
        ops.zeros((shape[0] * shape[1] * (vocabulary_size + 1),), "int32"),
        ops.reshape(columns, (-1, 1)),
        ops.ones_like(ops.reshape(columns, (-1,))),
    )
    found = ops.reshape(found, (shape[0], shape[1], vocabulary_size + 1))
    return found[..., :vocabulary_size] > 0
