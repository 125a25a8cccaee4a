"""Beam search: the most probable sequences that a bounded number of beams can find.

Axes in shape comments: B batch, K beams, G beams of a group, N results, V vocabulary.
"""

import dataclasses

from keras import ops

from kseq.decoding.arguments import is_integer, number, positive_integer
from kseq.decoding.constraints import constraint_tuple
from kseq.decoding.generation import Generation
from kseq.decoding.loop import SearchLoop, best_first, coverage_of, reorder

LENGTH_PENALTY_FORMS = ("power", "gnmt")
UNSEEN = 1e-37  # the least coverage of a source step, of which there is a logarithm


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """Keeps the best `num_beams` hypotheses of each row at every step.

    Hypotheses are ranked by `log_prob / penalty(length)`, the end token counted, where
    `penalty(n)` is `n ** length_penalty` or, in the form "gnmt",
    `((5 + n) / 6) ** length_penalty`. One that has ended is frozen: it keeps its place
    and its score until `num_beams` better ones push it out. With one beam this is
    greedy search; with as many beams as there are sequences it is exhaustive.

    A row is done when its `num_results` best hypotheses have ended and no open one can
    still become better than they are; without constraints that is noticed as soon as it
    is so. With `early_stopping` it is done when they have ended, even if an open one
    could, being longer, get a better rank.

    With `coverage_penalty`, a rank is increased by

        coverage_penalty * sum_i log(min(sum_j attention_ji, 1))

    over the source steps i and the written tokens j, which is 0 where every source step
    has been attended to by 1 in all and negative else, so that a hypothesis that leaves
    out a part of the source falls behind. A model of kseq tells the attention, a
    Transformer the mean over layers and heads. A step function of one's own adds it up
    in its state, which is then a dictionary, under "coverage".

    With `num_groups`, each group of beams searches by itself, but a token that groups
    before it have written at the same step loses `diversity_strength` for each beam
    that wrote it. These losses decide what a group keeps. The hypotheses of all groups
    are then ranked by what the model gives. A hypothesis may be found by two groups.

    Args:
        num_beams: Number of hypotheses K that are kept. It may exceed the vocabulary.
        length_penalty: Exponent of the penalty. 0 ranks by probability, which favours
            short sequences; 1 in the form "power" by the mean per token.
        num_results: Number of hypotheses N to return. Defaults to `num_beams`.
        constraints: Constraints on what may be written, in their order.
        length_penalty_form: "power" or "gnmt".
        early_stopping: Whether to end a row before it is certain that no open
            hypothesis becomes better.
        num_groups: Number of groups, which divides `num_beams`.
        diversity_strength: What a token loses for each beam of other groups that wrote
            it. The paper uses .2 to .8.
        coverage_penalty: Weight of the coverage penalty, 0 for none. The paper uses .2.

    Call arguments:
        step: Function `(token_ids (B, K), state, constants) -> (logits (B, K, V),
            state)`.
        state: Tree of tensors `(B, K, ...)`, reordered with the hypotheses. With a
            coverage penalty a dictionary with "coverage", `(B, K, S)`: how much each
            source step has been attended to, 0 at the beginning, and 1 where there is
            padding.
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
        A `Generation` with N hypotheses for each row, best first.

    Raises:
        ValueError: An argument is out of its range, or the state does not tell what
            has been covered.

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
    >>> round(float(keras.ops.exp(result.log_probs[0, 0])), 3)
    0.36

    References:
        - [Graves, 2012](https://arxiv.org/abs/1211.3711), 2.5
        - [Wu et al., 2016](https://arxiv.org/abs/1609.08144), 7 (length penalty "gnmt",
          coverage penalty), equation 14
        - [Vijayakumar et al., 2016](https://arxiv.org/abs/1610.02424), 4 (groups)
    """

    num_beams: int = 4
    length_penalty: float = 0.0
    num_results: int | None = None
    constraints: tuple = ()
    length_penalty_form: str = "power"
    early_stopping: bool = False
    num_groups: int = 1
    diversity_strength: float = 0.5
    coverage_penalty: float = 0.0

    def __post_init__(self):
        positive_integer("num_beams", self.num_beams)
        what = "a number, 0 for none"
        number("length_penalty", self.length_penalty, what, lambda x: True)
        results = self.num_results
        if results is not None and not (
            is_integer(results) and 1 <= results <= self.num_beams
        ):
            raise ValueError(
                "`num_results` must be an integer from 1 to `num_beams`. Received: "
                f"num_results={results!r} with num_beams={self.num_beams}."
            )
        object.__setattr__(self, "constraints", constraint_tuple(self.constraints))
        if self.length_penalty_form not in LENGTH_PENALTY_FORMS:
            raise ValueError(
                '`length_penalty_form` must be "power", n ** length_penalty, or '
                '"gnmt", ((5 + n) / 6) ** length_penalty. Received: '
                f"length_penalty_form={self.length_penalty_form!r}."
            )
        if not isinstance(self.early_stopping, bool):
            raise ValueError(
                "`early_stopping` must be True or False. Received: "
                f"early_stopping={self.early_stopping!r}."
            )
        groups = positive_integer("num_groups", self.num_groups)
        if self.num_beams % groups:
            raise ValueError(
                "`num_groups` must divide `num_beams`. Received: "
                f"num_groups={groups} with num_beams={self.num_beams}."
            )
        what = "a number of at least 0"
        for name in ("diversity_strength", "coverage_penalty"):
            number(name, getattr(self, name), what, lambda x: x >= 0)

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
        if self.coverage_penalty and coverage_of(state) is None:
            raise ValueError(
                "With a coverage penalty the state must be a dictionary that has "
                '"coverage", (B, K, S), to which each step adds its attention. '
                f"Received: coverage_penalty={self.coverage_penalty} with a state of "
                f"{type(state).__name__}."
            )
        loop = SearchLoop(
            step,
            constants,
            self._select if self.num_groups == 1 else self._select_by_group,
            num_beams=self.num_beams,
            num_groups=self.num_groups,
            max_length=max_length,
            end_token_id=end_token_id,
            pad_token_id=pad_token_id,
            constraints=self.constraints,
            prefix=prefix,
            max_lengths=max_lengths,
            is_done=self._is_done if self._may_be_done_early() else None,
        )
        _, _, written, state = loop.run(start_token_ids, state)
        result = loop.result(written)
        num_results = self.num_results or self.num_beams
        if self.num_groups > 1:
            ranks = self._ranks(result.log_probs, result.lengths, coverage_of(state))
            return best_first(result, ranks, num_results)
        values = {k: v for k, v in vars(result).items() if v is not None}
        return Generation(**{k: v[:, :num_results] for k, v in values.items()})

    def _ranks(self, scores, lengths, coverage):
        """What hypotheses are ranked by: Wu et al., 2016, (14)."""
        ranks = self._by_length(scores, lengths)
        if not self.coverage_penalty:
            return ranks
        covered = ops.clip(ops.cast(coverage, "float32"), UNSEEN, 1.0)  # B K S
        return ranks + self.coverage_penalty * ops.sum(ops.log(covered), axis=-1)

    def _by_length(self, scores, lengths):
        if not self.length_penalty:
            return scores
        lengths = ops.cast(ops.maximum(lengths, 1), "float32")
        if self.length_penalty_form == "gnmt":
            lengths = (5 + lengths) / 6
        return scores / lengths**self.length_penalty

    def _select(self, gains, hypotheses):
        num_beams, vocabulary_size = gains.shape[1:]
        width = min(num_beams, vocabulary_size)
        # No hypothesis has more than K successors among the best K.
        gains, token_ids = ops.top_k(gains, width)  # B K W
        finished = hypotheses.finished[..., None]  # B K 1
        # A finished hypothesis has one way to go on: as it is.
        is_first = ops.arange(width) == 0  # W
        frozen = ops.where(is_first, 0.0, -float("inf"))  # W
        scores = hypotheses.scores[..., None] + ops.where(finished, frozen, gains)
        lengths = hypotheses.lengths + ops.cast(~hypotheses.finished, "int32")
        coverage = hypotheses.coverage  # B K S, the same for all successors
        coverage = None if coverage is None else coverage[:, :, None]  # B K 1 S
        ranks = self._ranks(scores, lengths[..., None], coverage)  # B K W
        _, best = ops.top_k(ops.reshape(ranks, (-1, num_beams * width)), num_beams)
        best = ops.cast(best, "int32")  # B K
        scores, token_ids = (
            ops.take_along_axis(ops.reshape(x, (-1, num_beams * width)), best, axis=1)
            for x in (scores, ops.cast(token_ids, "int32"))
        )
        return best // width, token_ids, scores

    def _select_by_group(self, gains, hypotheses):
        size = self.num_beams // self.num_groups  # G
        words = ops.arange(gains.shape[-1])  # V
        taken = 0.0  # how many beams of the groups so far have written each word
        selected = []
        for first in range(0, self.num_beams, size):
            names = ["scores", "lengths", "finished"]
            names += ["coverage"] * (hypotheses.coverage is not None)
            own = {n: getattr(hypotheses, n)[:, first : first + size] for n in names}
            group = dataclasses.replace(hypotheses, **own)
            losses = self.diversity_strength * taken
            parents, token_ids, scores = self._select(
                gains[:, first : first + size] - losses, group
            )
            selected.append((parents + first, token_ids, scores))
            is_new = ~reorder(group.finished, parents)  # B G
            is_written = (token_ids[..., None] == words) & is_new[..., None]  # B G V
            is_written = ops.cast(is_written, "float32")
            taken = taken + ops.sum(is_written, axis=1, keepdims=True)  # B 1 V
        return [ops.concatenate(x, axis=1) for x in zip(*selected, strict=True)]

    def _may_be_done_early(self):
        is_asked = self.early_stopping or not self.constraints  # which may raise scores
        is_part = self.num_results not in (None, self.num_beams)
        return is_asked and is_part and self.num_groups == 1

    def _is_done(self, hypotheses):
        """Whether open hypotheses, which only lose, are of no use to a row: `(B,)`."""
        scores, lengths = hypotheses.scores, hypotheses.lengths
        ranks = self._ranks(scores, lengths, hypotheses.coverage)  # B K, best first
        results = hypotheses.finished[:, : self.num_results]  # B N
        is_done = ops.all(results, axis=1)
        if self.early_stopping:
            return is_done
        worst = ranks[:, self.num_results - 1 : self.num_results]  # B 1
        # The longer it gets the better, or else it will not rise at all; and at best
        # it covers all that it has left out.
        longest = hypotheses.max_lengths  # B 1
        if longest is None:
            longest = hypotheses.token_ids.shape[-1]
        longest = ops.broadcast_to(longest, ops.shape(lengths))  # B K
        best = ops.maximum(
            self._by_length(scores, longest), self._by_length(scores, lengths)
        )
        may_rise = ops.logical_and(best > worst, ~hypotheses.finished)  # B K
        return ops.logical_and(is_done, ~ops.any(may_rise, axis=1))
