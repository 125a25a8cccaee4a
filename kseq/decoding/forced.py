"""Tokens that a search must generate.

Axes in shape comments: B batch, K beams, N counts, P places of a prefix, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from keras import ops

from kseq.typing import Tensor

if TYPE_CHECKING:
    from kseq.decoding.constraints import Constraint
    from kseq.decoding.hypotheses import Hypotheses


@dataclasses.dataclass(frozen=True, eq=False)
class Forced:
    """The tokens that are forced by a prefix and by `ForcedTokens`.

    They are generated and reported like all others, but do not affect the ranking:
    their gain is 0, and they do not count in the length of a length penalty.

    Args:
        prefix: Integers `(B, P)`, padding where any token may come; or None.
        places: The positions at which constraints leave one token.
        pad_token_id: The padding of the prefix.
    """

    prefix: Tensor | None
    places: tuple[int, ...]
    pad_token_id: int

    @classmethod
    def of(
        cls,
        prefix: Tensor | None,
        constraints: "Sequence[Constraint]",
        pad_token_id: int,
    ) -> Self:
        """Return the tokens forced by a prefix and by constraints.

        A constraint that forces tokens has an attribute `forced_places`.
        """
        forcing: list[Any] = [x for x in constraints if hasattr(x, "forced_places")]
        for constraint in forcing:
            constraint.check_padding(pad_token_id)
        places = {place for each in forcing for place in each.forced_places}
        return cls(prefix, tuple(sorted(places)), pad_token_id)

    def __bool__(self) -> bool:
        return self.prefix is not None or bool(self.places)

    def impose(
        self, token_log_probs: Tensor, gains: Tensor, hypotheses: "Hypotheses"
    ) -> Tensor:
        """Return the gains `(B, K, V)` of the next token, 0 for a forced token.

        No hypothesis ends before the last token of the prefix.
        """
        step, words = hypotheses.step, ops.arange(gains.shape[-1], dtype="int32")  # V
        is_forced = ops.any(ops.convert_to_tensor(self.places, "int32") == step)
        if self.prefix is not None:
            places = ops.arange(ops.shape(self.prefix)[1], dtype="int32")  # P
            is_given = self.prefix != self.pad_token_id  # B P
            is_later = ops.any(ops.logical_and(is_given, places > step), axis=1)  # B
            is_end = words == hypotheses.end_token_id  # V
            is_early = ops.logical_and(is_end, is_later[:, None, None])  # B 1 V
            gains = ops.where(is_early, -float("inf"), gains)
            is_due = ops.logical_and(is_given, places == step)  # B P
            due = ops.sum(ops.where(is_due, self.prefix + 1, 0), axis=1) - 1  # B
            due = due[:, None, None]  # -1 for none
            only = ops.where(words == due, token_log_probs, -float("inf"))
            gains = ops.where(due < 0, gains, only)
            is_forced = ops.logical_or(is_forced, due >= 0)
        unranked = ops.where(gains > -float("inf"), 0.0, -float("inf"))
        unranked = ops.cast(unranked, gains.dtype)
        return ops.where(is_forced, unranked, gains)

    def num_chosen(self, lengths: Tensor) -> Tensor:
        """Return the number of chosen tokens among the first `lengths`, `(B, N)`."""
        return lengths - self._num_forced(lengths) if self else lengths

    def chosen_part(self, values: Tensor) -> Tensor:
        """Return the sum `(B, K)` of values `(B, K, L)` over the chosen tokens."""
        if not self:
            return ops.sum(values, axis=-1)
        lengths = ops.arange(values.shape[-1] + 1, dtype="int32")[None]  # 1 L+1
        counts = self.num_chosen(lengths)
        is_chosen = counts[:, 1:] > counts[:, :-1]  # B L
        return ops.sum(ops.where(is_chosen[:, None], values, 0.0), axis=-1)

    def _num_forced(self, lengths: Tensor) -> Tensor:
        places = ops.convert_to_tensor(self.places, "int32")  # F
        counts = ops.sum(ops.cast(places < lengths[..., None], "int32"), axis=-1)  # B N
        if self.prefix is None:
            return counts
        positions = ops.arange(ops.shape(self.prefix)[1], dtype="int32")  # P
        is_counted = ops.any(positions[:, None] == places, axis=-1)  # P
        is_due = (self.prefix != self.pad_token_id) & ~is_counted  # B P
        is_due = is_due[:, None] & (positions < lengths[..., None])  # B N P
        return counts + ops.sum(ops.cast(is_due, "int32"), axis=-1)
