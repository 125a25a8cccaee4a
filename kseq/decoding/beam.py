"""Beam search: the most probable sequences that a bounded number of beams can find.

Axes in shape comments: B batch, K beams, G beams of a group, W successors of a beam,
C candidates of a group, V vocabulary.
"""

import dataclasses

from keras import ops

from kseq.decoding.allowed import AllowedSequences
from kseq.decoding.constraints import (
    AllowedTokens,
    BannedTokens,
    ForcedTokens,
    MaximumLength,
    MinimumLength,
    only_where,
)
from kseq.decoding.generation import Generation
from kseq.decoding.guidance import Guidance
from kseq.decoding.loop import best_first
from kseq.decoding.repetition import (
    BannedSequences,
    NoRepeatNGrams,
    RepetitionPenalty,
)
from kseq.decoding.search import Search
from kseq.decoding.validation import is_integer, number, positive_integer

LENGTH_PENALTY_FORMS = ("power", "gnmt")
UNSEEN = 1e-37  # the least coverage of a source step, of which there is a logarithm
# Constraints under which no gain is above 0, so that scores only fall.
LOWERING = {
    AllowedSequences,
    AllowedTokens,
    BannedSequences,
    BannedTokens,
    ForcedTokens,
    MaximumLength,
    MinimumLength,
    NoRepeatNGrams,
    RepetitionPenalty,  # one alone
}


@dataclasses.dataclass(frozen=True)
class BeamSearch(Search):
    """Keeps the best `num_beams` open hypotheses of each row at every step.

    Hypotheses are ranked by `log_prob / penalty(length)`, the end token counted, where
    `penalty(n)` is `n ** length_penalty` or, in the form "gnmt",
    `((5 + n) / 6) ** length_penalty`. Of a prefix, and of what `ForcedTokens` demands,
    nothing counts in the rank: neither its length nor its log-probability.

    At every step the best `num_beams` continuations of the open hypotheses are found.
    Those that end go to a pool, which keeps the best `num_beams` of all that have
    ended, whatever becomes of the others; the best that do not end, `num_beams` again,
    stay open. With one beam this is greedy search; with as many beams as there are
    sequences it is exhaustive.

    A row is done when no open hypothesis can still become better than the last of the
    `num_results` best that have ended, had it `max_length` tokens. With a positive
    length penalty that is late: a longer hypothesis may always win. `early_stopping`
    is quicker: a row is done when its `num_results` best of all have ended, or
    `num_beams` of any rank. Own constraints may raise scores, so with them a row is
    done when its `num_beams` best have ended. One beam stops at its end token.

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
            hypothesis becomes better: when `num_results` of the best or `num_beams` of
            any rank have ended.
        num_groups: Number of groups, which divides `num_beams`.
        diversity_strength: What a token loses for each beam of other groups that wrote
            it. The paper uses .2 to .8.
        coverage_penalty: Weight of the coverage penalty, 0 for none. The paper uses .2.
        guidance: As for `GreedySearch`. It does not go with a coverage penalty.

    Call arguments: those of `Search`. With a coverage penalty the state is a dictionary
        with "coverage".

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
    guidance: Guidance | None = None

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
        what = "a number of at least 0"
        for name in ("diversity_strength", "coverage_penalty"):
            number(name, getattr(self, name), what, lambda x: x >= 0)
        if self.guidance is not None and self.needs_coverage:
            raise ValueError(
                "Guidance writes with two states, of which only one attends to the "
                f"source. Received: guidance={self.guidance} with coverage_penalty="
                f"{self.coverage_penalty}. Leave one of them out."
            )

    @property
    def num_ended(self):
        return self.num_beams

    @property
    def needs_coverage(self):
        return self.coverage_penalty > 0

    def select(self, gains, hypotheses):
        """The next step, one group after the other."""
        size = self.num_beams // self.num_groups  # G
        names = ["scores", "lengths", "finished", "ended_ranks"]
        names += ["coverage"] * (hypotheses.coverage is not None)
        # What is forced loses nothing.
        before, after = (num_chosen(hypotheses, hypotheses.step + n) for n in (0, 1))
        is_chosen = ops.cast(after > before, "float32")[..., None]  # B 1 1
        losses, groups = 0.0, []
        for first in range(0, self.num_beams, size):
            own = {n: getattr(hypotheses, n)[:, first : first + size] for n in names}
            group = dataclasses.replace(hypotheses, **own)
            own_gains = gains[:, first : first + size]  # B G V
            if groups:
                losses = losses + self._losses(*groups[-1], gains.shape[-1])
                own_gains = own_gains - losses * is_chosen
            groups.append(self._select_in_group(own_gains, group))
        for place, (opened, pooled) in enumerate(groups):
            first = place * size  # what parents are counted from
            opened["parents"] = opened["parents"] + first
            in_pool = ops.cast(pooled["parents"] >= size, "int32")
            first = first + in_pool * (self.num_beams - size)
            pooled["parents"] = pooled["parents"] + first
        opened, pooled = zip(*groups, strict=True)
        fields = joined(*opened, *pooled)  # B 2K
        return fields.pop("parents"), fields.pop("token_ids"), fields

    def finish(self, loop, written):
        """The best of those that have ended."""
        written = {name: value[:, self.num_beams :] for name, value in written.items()}
        result = loop.result(written)
        num_results = self.num_results or self.num_beams
        if self.num_groups > 1:
            return best_first(result, self._model_ranks(loop, written), num_results)
        values = {k: v for k, v in vars(result).items() if v is not None}
        return Generation(**{k: v[:, :num_results] for k, v in values.items()})

    def _select_in_group(self, gains, hypotheses):
        """The open hypotheses and the pool of a group at its next step.

        Each is a dictionary of tensors `(B, G)`. Parents below G are open hypotheses,
        from G on they are in the pool.
        """
        size = gains.shape[1]
        candidates = self._candidates(gains, hypotheses)  # B C
        is_over = ops.logical_or(
            candidates["token_ids"] == hypotheses.end_token_id,
            hypotheses.step + 1 >= longest(hypotheses),
        )
        ranks = candidates["ranks"]
        # At most G of the best 2 G end, one of each hypothesis: G others stay open.
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

    def _candidates(self, gains, hypotheses):
        """The best continuations of all open hypotheses, best first."""
        size, vocabulary_size = gains.shape[1:]
        # Beside the end no hypothesis has more than G successors among the best G.
        width = min(size + 1, vocabulary_size)
        gains, token_ids = ops.top_k(gains, width)  # B G W
        scores = hypotheses.scores[..., None] + gains
        scores = only_where(~hypotheses.finished[..., None], scores)
        length = num_chosen(hypotheses, hypotheses.step + 1)  # B 1
        ranks = self._by_length(scores, length[..., None])
        if self.coverage_penalty:
            covered = ops.clip(ops.cast(hypotheses.coverage, "float32"), UNSEEN, 1.0)
            covered = ops.sum(ops.log(covered), axis=-1)  # B G
            ranks = ranks + self.coverage_penalty * covered[..., None]
        token_ids = ops.cast(token_ids, "int32")
        parents = ops.zeros_like(token_ids) + ops.arange(size, dtype="int32")[:, None]
        fields = {"parents": parents, "token_ids": token_ids}
        fields = {**fields, "scores": scores, "ranks": ranks}
        fields = {k: ops.reshape(v, (-1, size * width)) for k, v in fields.items()}
        return best(fields, min(2 * size, size * width))

    def _by_length(self, scores, lengths):
        """Scores by the penalty of the number of tokens, both broadcast."""
        if not self.length_penalty:
            return scores
        lengths = ops.cast(ops.maximum(lengths, 1), "float32")
        if self.length_penalty_form == "gnmt":
            lengths = (5 + lengths) / 6
        return scores / lengths**self.length_penalty

    def _is_done(self, opened, pooled, hypotheses):
        """Tell whether the open hypotheses of a group are of no more use: `(B,)`."""
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
        # Scores only fall. A rank is best at the least length or at the greatest; and
        # at best a hypothesis covers all that it has left out.
        least = num_chosen(hypotheses, hypotheses.step + 2)
        most = num_chosen(hypotheses, longest(hypotheses))  # B 1
        bounds = [self._by_length(opened["scores"], n) for n in (least, most)]
        return ops.max(ops.maximum(*bounds), axis=1) <= worst

    def _losses(self, opened, pooled, vocabulary_size):
        """Return what each word loses, as a group has just written it: `(B, 1, V)`."""
        written = joined(opened, pooled)  # B 2G
        is_new = written["parents"] < opened["parents"].shape[1]
        is_new = ops.logical_and(is_new, written["scores"] > -float("inf"))
        is_word = written["token_ids"][..., None] == ops.arange(
            vocabulary_size, dtype="int32"
        )
        is_word = ops.cast(ops.logical_and(is_word, is_new[..., None]), "float32")
        return self.diversity_strength * ops.sum(is_word, axis=1, keepdims=True)

    def _model_ranks(self, loop, written):
        """The ranks of those that have ended by what the model gives: `(B, K)`."""
        lengths = loop.forced.num_chosen(written["lengths"])
        log_probs = loop.forced.chosen_part(written["token_log_probs"])
        others = written["ranks"] - self._by_length(written["scores"], lengths)
        ranks = self._by_length(log_probs, lengths) + others
        return only_where(written["ranks"] > -float("inf"), ranks)


def best(fields, size):
    """The fields `(B, C)` of those of greatest rank, `(B, G)`, best first."""
    ranks, places = ops.top_k(fields["ranks"], size)
    places = ops.cast(places, "int32")
    fields = {k: ops.take_along_axis(v, places, axis=1) for k, v in fields.items()}
    scores = only_where(ranks > -float("inf"), fields["scores"])
    return {**fields, "ranks": ranks, "scores": scores}


def joined(*parts):
    """The fields of several parts side by side."""
    names = parts[0]
    return {n: ops.concatenate([part[n] for part in parts], axis=1) for n in names}


def longest(hypotheses):
    """The most tokens of each row: `(B, 1)`, or one number for all."""
    limits = hypotheses.max_lengths
    return hypotheses.token_ids.shape[-1] if limits is None else limits


def num_chosen(hypotheses, length):
    """Return the number of chosen ones among so many tokens: `(B, 1)`."""
    length = ops.reshape(ops.convert_to_tensor(length, "int32"), (-1, 1))
    return hypotheses.forced.num_chosen(length)
