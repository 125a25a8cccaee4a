"""Beam search: the most probable sequences, with a fixed number of open hypotheses.

Axes in shape comments: B batch, K beams, G beams of a group, W successors of a beam,
C candidates of a group, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from keras import ops

from kseq.decoding.allowed import AllowedSequences
from kseq.decoding.constraints import (
    AllowedTokens,
    BannedTokens,
    Constraint,
    ForcedTokens,
    MaximumLength,
    MinimumLength,
    only_where,
)
from kseq.decoding.generation import Generation
from kseq.decoding.guidance import Guidance
from kseq.decoding.hypotheses import Hypotheses
from kseq.decoding.loop import Fields, SearchLoop, Selection, best_first
from kseq.decoding.repetition import (
    BannedSequences,
    NoRepeatNGrams,
    RepetitionPenalty,
)
from kseq.decoding.search import Search
from kseq.decoding.validation import is_integer, number, positive_integer
from kseq.typing import Tensor

LENGTH_PENALTY_FORMS = ("power", "gnmt")
MIN_COVERAGE = 1e-37  # of a source step, so that its logarithm is finite
# Constraints that never give a gain above 0, so that scores never rise.
LOWERING: set[type] = {
    AllowedSequences,
    AllowedTokens,
    BannedSequences,
    BannedTokens,
    ForcedTokens,
    MaximumLength,
    MinimumLength,
    NoRepeatNGrams,
    RepetitionPenalty,  # only if there is one
}


@dataclasses.dataclass(frozen=True)
class BeamSearch(Search):
    """Beam search: the best `num_beams` open hypotheses of each example at every step.

    Hypotheses are ranked by `log_prob / penalty(length)`, including the end token.
    `penalty(n)` is `n ** length_penalty` or, in the form "gnmt",
    `((5 + n) / 6) ** length_penalty`. The tokens of a prefix and of `ForcedTokens` do
    not affect the rank: neither their number nor their log-probability counts.

    Every step finds the best `num_beams` continuations of the open hypotheses. Those
    that end go to a pool, which keeps the best `num_beams` ended hypotheses. The best
    `num_beams` continuations that do not end stay open. With one beam this is greedy
    search. With as many beams as there are sequences it is exhaustive.

    An example is done when no open hypothesis, even at `max_length` tokens, can beat
    the last of the `num_results` best ended ones. With a positive length penalty this
    takes long, since a longer hypothesis may always win. `early_stopping` is faster: an
    example is done when its `num_results` best hypotheses have ended, or `num_beams` of
    any rank. Custom constraints may raise scores, so with them an example is done when
    its `num_beams` best hypotheses have ended. A single beam stops at its end token.

    `coverage_penalty` adds to a rank

        coverage_penalty * sum_i log(min(sum_j attention_ji, 1))

    over the source steps i and the generated tokens j. This is 0 if each source step
    has received a total attention of at least 1, and negative otherwise. So hypotheses
    that leave out a part of the source rank lower. A model of kseq provides the
    attention; a Transformer uses the mean over layers and heads. A custom step function
    must use a dictionary as its state and add up the attention under "coverage".

    With `num_groups`, each group of beams searches on its own. A token loses
    `diversity_strength` for each beam of an earlier group that generated it at the same
    step. These losses only decide which hypotheses a group keeps. The final ranking of
    all groups uses the scores of the model. Two groups may find the same hypothesis.

    Args:
        num_beams: Number of open hypotheses K. It may exceed the vocabulary size.
        length_penalty: Exponent of the penalty. 0 ranks by probability, which favours
            short sequences. 1 in the form "power" ranks by the mean per token.
        num_results: Number of hypotheses N to return. Defaults to `num_beams`.
        constraints: Constraints on the generated tokens, applied in this order.
        length_penalty_form: "power" or "gnmt".
        early_stopping: Whether to finish an example when its `num_results` best
            hypotheses or `num_beams` of any rank have ended, although an open
            hypothesis may still become better.
        num_groups: Number of groups. It must divide `num_beams`.
        diversity_strength: Loss of a token for each beam of an earlier group that
            generated it. The paper uses .2 to .8.
        coverage_penalty: Weight of the coverage penalty, 0 for none. The paper uses .2.
        guidance: As for `GreedySearch`. Not supported with a coverage penalty.

    Call arguments: those of `Search`. With a coverage penalty, the state is a
        dictionary with "coverage".

    Returns:
        A `Generation` with N hypotheses for each example, best first.

    Raises:
        ValueError: An argument is out of range, or the state lacks "coverage" although
            there is a coverage penalty.

    Example:

    Greedy search would begin with token 2 (.5). The best sequence begins with 3.

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
    constraints: Sequence[Constraint] = ()
    length_penalty_form: Literal["power", "gnmt"] = "power"
    early_stopping: bool = False
    num_groups: int = 1
    diversity_strength: float = 0.5
    coverage_penalty: float = 0.0
    guidance: Guidance | float | None = None

    def __post_init__(self) -> None:
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
        super().__post_init__()
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
        what = "a non-negative number"
        for name in ("diversity_strength", "coverage_penalty"):
            number(name, getattr(self, name), what, lambda x: x >= 0)
        if self.guidance is not None and self.needs_coverage:
            raise ValueError(
                "Guidance and a coverage penalty must not be combined: of the two "
                "states of guidance only one attends to the source. Received: "
                f"guidance={self.guidance} with coverage_penalty="
                f"{self.coverage_penalty}. Leave one of them out."
            )

    @property
    def num_ended(self) -> int:
        """Number of places in the pool of ended hypotheses."""
        return self.num_beams

    @property
    def needs_coverage(self) -> bool:
        """True if there is a coverage penalty."""
        return self.coverage_penalty > 0

    def select(self, gains: Tensor, hypotheses: Hypotheses) -> Selection:
        """Choose the next hypotheses, one group after the other."""
        size = self.num_beams // self.num_groups  # G
        names = ["scores", "lengths", "finished", "ended_ranks"]
        names += ["coverage"] * (hypotheses.coverage is not None)
        # A forced token has no diversity loss.
        before, after = (num_chosen(hypotheses, hypotheses.step + n) for n in (0, 1))
        is_chosen = ops.cast(after > before, "float32")[..., None]  # B 1 1
        losses: Tensor = 0.0
        groups: list[tuple[Fields, Fields]] = []
        for first in range(0, self.num_beams, size):
            own = {n: getattr(hypotheses, n)[:, first : first + size] for n in names}
            group = dataclasses.replace(hypotheses, **own)
            own_gains = gains[:, first : first + size]  # B G V
            if groups:
                losses = losses + self._losses(*groups[-1], gains.shape[-1])
                own_gains = own_gains - losses * is_chosen
            groups.append(self._select_in_group(own_gains, group))
        for place, (opened, pooled) in enumerate(groups):
            first = place * size  # parents are counted from the group's first beam
            opened["parents"] = opened["parents"] + first
            in_pool = ops.cast(pooled["parents"] >= size, "int32")
            first = first + in_pool * (self.num_beams - size)
            pooled["parents"] = pooled["parents"] + first
        all_opened, all_pooled = zip(*groups, strict=True)
        fields = joined(*all_opened, *all_pooled)  # B 2K
        return fields.pop("parents"), fields.pop("token_ids"), fields

    def finish(self, loop: SearchLoop, written: dict[str, Tensor]) -> Generation:
        """Return the best of the ended hypotheses."""
        written = {name: value[:, self.num_beams :] for name, value in written.items()}
        result = loop.result(written)
        num_results = self.num_results or self.num_beams
        if self.num_groups > 1:
            return best_first(result, self._model_ranks(loop, written), num_results)
        values = {k: v for k, v in vars(result).items() if v is not None}
        return Generation(**{k: v[:, :num_results] for k, v in values.items()})

    def _select_in_group(
        self, gains: Tensor, hypotheses: Hypotheses
    ) -> tuple[Fields, Fields]:
        """Return the open hypotheses and the pool of a group after the next step.

        Each is a dictionary of tensors `(B, G)`. Parents below G are open hypotheses;
        from G on they are in the pool.
        """
        size = gains.shape[1]
        candidates = self._candidates(gains, hypotheses)  # B C
        is_over = ops.logical_or(
            candidates["token_ids"] == hypotheses.end_token_id,
            hypotheses.step + 1 >= longest(hypotheses),
        )
        ranks = candidates["ranks"]
        # At most G of the best 2 G end, one for each hypothesis, so at least G stay
        # open.
        opened = best({**candidates, "ranks": only_where(~is_over, ranks)}, size)
        ended = {**candidates, "ranks": only_where(is_over, ranks)}
        ended = {name: value[:, :size] for name, value in ended.items()}
        ranks = hypotheses.ended_ranks
        places = ops.zeros_like(ended["parents"])
        pool = {"token_ids": places, "scores": ranks, "ranks": ranks}
        pool["parents"] = places + ops.arange(size, 2 * size, dtype="int32")
        pooled = best(joined(pool, ended), size)
        is_open = ~self._is_done(opened, pooled, hypotheses)[:, None]  # B 1
        for name in ("scores", "ranks"):
            opened[name] = only_where(is_open, opened[name])
        return opened, pooled

    def _candidates(self, gains: Tensor, hypotheses: Hypotheses) -> Fields:
        """Return the best continuations of all open hypotheses, best first."""
        size, vocabulary_size = gains.shape[1:]
        # Apart from the end token, a hypothesis has at most G successors among the
        # best G.
        width = min(size + 1, vocabulary_size)
        gains, token_ids = ops.top_k(gains, width)  # B G W
        scores = hypotheses.scores[..., None] + gains
        scores = only_where(~hypotheses.finished[..., None], scores)
        length = num_chosen(hypotheses, hypotheses.step + 1)  # B 1
        ranks = self._by_length(scores, length[..., None])
        if self.coverage_penalty:
            covered = ops.clip(
                ops.cast(hypotheses.coverage, "float32"), MIN_COVERAGE, 1.0
            )
            covered = ops.sum(ops.log(covered), axis=-1)  # B G
            ranks = ranks + self.coverage_penalty * covered[..., None]
        token_ids = ops.cast(token_ids, "int32")
        parents = ops.zeros_like(token_ids) + ops.arange(size, dtype="int32")[:, None]
        fields = {"parents": parents, "token_ids": token_ids}
        fields = {**fields, "scores": scores, "ranks": ranks}
        fields = {k: ops.reshape(v, (-1, size * width)) for k, v in fields.items()}
        return best(fields, min(2 * size, size * width))

    def _by_length(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """Return scores divided by the penalty of their lengths, broadcast."""
        if not self.length_penalty:
            return scores
        lengths = ops.cast(ops.maximum(lengths, 1), "float32")
        if self.length_penalty_form == "gnmt":
            lengths = (5 + lengths) / 6
        return scores / lengths**self.length_penalty

    def _is_done(
        self, opened: Fields, pooled: Fields, hypotheses: Hypotheses
    ) -> Tensor:
        """Return a mask `(B,)` of examples whose open hypotheses cannot win."""
        pool = pooled["ranks"]  # B G, best first
        size = pool.shape[1]
        num_results = self.num_results if self.num_groups == 1 else None
        worst = pool[:, (num_results or size) - 1]
        now = opened["ranks"][:, 0]
        if size == 1 or self.early_stopping:
            return ops.logical_or(now <= worst, pool[:, -1] > -float("inf"))
        kinds = [type(constraint) for constraint in self.constraints]
        if not LOWERING.issuperset(kinds) or kinds.count(RepetitionPenalty) > 1:
            return now <= pool[:, -1]
        # Scores never rise. The best possible rank is that of the minimum or the
        # maximum length, with a coverage penalty of 0.
        least = num_chosen(hypotheses, hypotheses.step + 2)
        most = num_chosen(hypotheses, longest(hypotheses))  # B 1
        bounds = [self._by_length(opened["scores"], n) for n in (least, most)]
        return ops.max(ops.maximum(*bounds), axis=1) <= worst

    def _losses(self, opened: Fields, pooled: Fields, vocabulary_size: int) -> Tensor:
        """Return each token's loss from the last choice of a group: `(B, 1, V)`."""
        written = joined(opened, pooled)  # B 2G
        is_new = written["parents"] < opened["parents"].shape[1]
        is_new = ops.logical_and(is_new, written["scores"] > -float("inf"))
        is_word = written["token_ids"][..., None] == ops.arange(
            vocabulary_size, dtype="int32"
        )
        is_word = ops.cast(ops.logical_and(is_word, is_new[..., None]), "float32")
        return self.diversity_strength * ops.sum(is_word, axis=1, keepdims=True)

    def _model_ranks(self, loop: SearchLoop, written: dict[str, Tensor]) -> Tensor:
        """Return the ranks of ended hypotheses by the model's scores: `(B, K)`."""
        lengths = loop.forced.num_chosen(written["lengths"])
        log_probs = loop.forced.chosen_part(written["token_log_probs"])
        others = written["ranks"] - self._by_length(written["scores"], lengths)
        ranks = self._by_length(log_probs, lengths) + others
        return only_where(written["ranks"] > -float("inf"), ranks)


def best(fields: Fields, size: int) -> Fields:
    """Select from fields `(B, C)` those of highest rank, `(B, G)`, best first."""
    ranks, places = ops.top_k(fields["ranks"], size)
    places = ops.cast(places, "int32")
    fields = {k: ops.take_along_axis(v, places, axis=1) for k, v in fields.items()}
    scores = only_where(ranks > -float("inf"), fields["scores"])
    return {**fields, "ranks": ranks, "scores": scores}


def joined(*parts: Fields) -> Fields:
    """Concatenate the fields of several groups of hypotheses along the beams."""
    names = parts[0]
    return {n: ops.concatenate([part[n] for part in parts], axis=1) for n in names}


def longest(hypotheses: Hypotheses) -> Tensor | int:
    """Return the maximum length of each example: `(B, 1)`, or a number for all."""
    limits = hypotheses.max_lengths
    return hypotheses.token_ids.shape[-1] if limits is None else limits


def num_chosen(hypotheses: Hypotheses, length: Tensor | int) -> Tensor:
    """Return the number of chosen tokens among the first `length`: `(B, 1)`."""
    length = ops.reshape(ops.convert_to_tensor(length, "int32"), (-1, 1))
    return hypotheses.forced.num_chosen(length)
