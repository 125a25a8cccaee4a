"""Custom search, the example of `kseq.decoding.Search`."""

import dataclasses

from keras import ops

from kseq.decoding import Search


@dataclasses.dataclass(frozen=True)
class EpsilonGreedy(Search):
    epsilon: float = 0.1
    seed: int | None = None
    constraints: tuple = ()
    is_random, can_stream = True, True

    def select(self, gains, hypotheses):
        gains, token_ids = ops.top_k(gains, 2)  # B K 2
        takes_second = hypotheses.random_numbers() < self.epsilon  # B K
        takes_second &= gains[..., 1] > -float("inf")

        def taken(two):
            return ops.where(takes_second, two[..., 1], two[..., 0])

        scores = hypotheses.scores + taken(gains)
        return None, ops.cast(taken(token_ids), "int32"), {"scores": scores}
