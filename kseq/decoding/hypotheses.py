"""State of the hypotheses during a search, for constraints and for `select`.

Axes in shape comments: B batch, K beams, L maximum length, C candidates, V vocabulary.
"""

import dataclasses

from keras import ops

from kseq.decoding.forced import Forced
from kseq.decoding.randomness import uniform
from kseq.typing import Tensor


@dataclasses.dataclass(frozen=True)
class Hypotheses:
    """The hypotheses of each example before the next token.

    All hypotheses that have not ended have the length `step`.

    Attributes:
        token_ids: Integers `(B, K, L)` without the start token, padded at the end.
        token_log_probs: `(B, K, L)`, the model's log-probability of each token.
        log_probs: `(B, K)`, their sum; minus infinity where there is no hypothesis.
        scores: `(B, K)`, the sum after the constraints, which ranks the hypotheses. It
            leaves out tokens that were forced by a prefix or `ForcedTokens`.
        lengths: Integers `(B, K)`, the number of tokens, including the end token.
        finished: Booleans `(B, K)`, True where no more tokens are added.
        step: The number of the step, a scalar, from 0.
        end_token_id: The token that ends a sequence.
        logits: `(B, K, V)`, the model's logits of the next token in float32, for
            constraints that need more than log-probabilities.
        max_lengths: Integers `(B, 1)`, the maximum number of tokens of each example.
            None if it is L for all.
        coverage: `(B, K, S)`, the attention that each source step has received so far.
            None if the state does not contain it; see `BeamSearch`.
        ended_ranks: `(B, K)`, the ranks of ended hypotheses, best first, in a search
            that stores them separately; minus infinity where there is none.
        forced: The tokens that are forced, not chosen.
        row_seeds: Integers `(B,)`, the seeds of random numbers, or None.
    """

    token_ids: Tensor
    token_log_probs: Tensor
    log_probs: Tensor
    scores: Tensor
    lengths: Tensor
    finished: Tensor
    step: Tensor
    end_token_id: int
    logits: Tensor
    max_lengths: Tensor | None = None
    coverage: Tensor | None = None
    ended_ranks: Tensor | None = None
    forced: Forced = Forced(None, (), 0)
    row_seeds: Tensor | None = None

    @property
    def is_written(self) -> Tensor:
        """The positions at which open hypotheses have a token: booleans `(L,)`."""
        return ops.arange(self.token_ids.shape[-1], dtype="int32") < self.step

    def random_numbers(self) -> Tensor:
        """Return random numbers in [0, 1) for this step, `(B, K)`.

        The search must have `is_random = True`.
        """
        if self.row_seeds is None:
            raise ValueError(
                "Random numbers need a seed for each row. Received: row_seeds=None. "
                "Set `is_random = True` in a search that calls `random_numbers`."
            )
        return uniform(self.row_seeds, self.finished.shape[1], self.step)

    def recent(self, length: int) -> list[Tensor]:
        """Return the last tokens of the open hypotheses: a list of `(B, K)`.

        The newest token comes last. A token that does not exist yet is -1.
        """
        positions = ops.arange(self.token_ids.shape[-1], dtype="int32")  # L
        tokens = []
        for back in range(length, 0, -1):
            is_there = positions == self.step - back  # L
            found = ops.sum(ops.where(is_there, self.token_ids + 1, 0), axis=-1)  # B K
            tokens.append(found - 1)
        return tokens


def occurs(token_ids: Tensor, is_counted: Tensor, vocabulary_size: int) -> Tensor:
    """Return the tokens that are among the candidates: booleans `(B, K, V)`.

    Args:
        token_ids: Integers `(B, K, C)`, the candidates.
        is_counted: Booleans `(B, K, C)`, False for candidates to ignore.
        vocabulary_size: Number of tokens V.
    """
    # Ignored candidates go to an extra column V, which is cut off.
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
