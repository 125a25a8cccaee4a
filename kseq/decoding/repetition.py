"""Constraints against repetition and against given sequences.

Axes in shape comments: B batch, K beams, L maximum length, C candidates, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from keras import ops

from kseq.decoding.constraints import only_where
from kseq.decoding.hypotheses import Hypotheses, occurs
from kseq.decoding.validation import (
    check_vocabulary,
    number,
    positive_integer,
    token_sequences,
)
from kseq.typing import Tensor


@dataclasses.dataclass(frozen=True)
class NoRepeatNGrams:
    """Constraint that no n-gram occurs twice in a hypothesis.

    Args:
        n: Number of tokens of an n-gram. With 1, no token is generated twice.

    Call arguments:
        log_probs: `(B, K, V)`.
        hypotheses: The `kseq.decoding.Hypotheses` so far.

    Returns:
        `(B, K, V)`, minus infinity for tokens that would complete an n-gram that the
        hypothesis already has.

    Raises:
        ValueError: `n` is not a positive integer.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.decoding import GreedySearch, NoRepeatNGrams
    >>> table = np.log([[.1, .2, .4, .3]] * 4)
    >>> def step(token_ids, state, constants):
    ...     return keras.ops.take(table, token_ids, axis=0), state
    >>> search = GreedySearch(constraints=[NoRepeatNGrams(2)])
    >>> result = search(step, (), (), [0], end_token_id=1, max_length=9)
    >>> np.array(result.token_ids).tolist()
    [[[2, 2, 3, 2, 1, 0, 0, 0, 0]]]

    References:
        - [Paulus et al., 2017](https://arxiv.org/abs/1705.04304), 2.5
    """

    n: int

    def __post_init__(self) -> None:
        positive_integer("n", self.n)

    def __call__(self, log_probs: Tensor, hypotheses: Hypotheses) -> Tensor:
        token_ids = hypotheses.token_ids  # B K L
        num_ngrams = token_ids.shape[-1] - self.n + 1  # C
        if num_ngrams < 1:
            return log_probs
        last = token_ids[..., self.n - 1 :]  # B K C, the last token of each n-gram
        is_repeated = hypotheses.is_written[self.n - 1 :]  # C
        is_repeated = ops.logical_and(is_repeated, ops.ones_like(last, "bool"))
        for place, recent in enumerate(hypotheses.recent(self.n - 1)):
            tokens = token_ids[..., place : place + num_ngrams]  # B K C
            is_repeated = ops.logical_and(is_repeated, tokens == recent[..., None])
        return only_where(~occurs(last, is_repeated, log_probs.shape[-1]), log_probs)


@dataclasses.dataclass(frozen=True)
class RepetitionPenalty:
    """Penalty for tokens that the hypothesis already has.

    With `on="logits"`, the rule of the paper, the logit of a repeated token is divided
    by `penalty`, or multiplied if it is negative, so that it always falls. This also
    works for tokens that the model is nearly certain of. The constraint adds the change
    of the log-probability,

        log softmax(penalised logits) - log softmax(logits)

    With `on="log_probs"`, the log-probability of a repeated token is multiplied by
    `penalty`. A constant added to all logits then has no effect, but a token that the
    model is certain of hardly changes: a probability of .98 with a penalty of 2 becomes
    .96. Both rules choose the same tokens if the logits are log-probabilities, as those
    of `kseq.ensemble` are.

    Args:
        penalty: A positive number. 1 has no effect, and less than 1 favours repetition.
            The paper uses 1.2.
        on: "logits" or "log_probs".

    Call arguments:
        log_probs: `(B, K, V)`.
        hypotheses: The `kseq.decoding.Hypotheses` so far.

    Returns:
        `(B, K, V)`, not normalized if `on="log_probs"`.

    Raises:
        ValueError: `penalty` is not a positive number, or `on` is neither.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.decoding import GreedySearch, RepetitionPenalty
    >>> table = np.array([[0., 0., 6., 2.]] * 4)
    >>> def step(token_ids, state, constants):
    ...     return keras.ops.take(table, token_ids, axis=0), state
    >>> for on in ("logits", "log_probs"):
    ...     search = GreedySearch(constraints=[RepetitionPenalty(4.0, on)])
    ...     result = search(step, (), (), [0], end_token_id=1, max_length=3)
    ...     print(on, np.array(result.token_ids)[0, 0].tolist())
    logits [2, 3, 2]
    log_probs [2, 2, 2]

    References:
        - [Keskar et al., 2019](https://arxiv.org/abs/1909.05858), 4.1
    """

    penalty: float
    on: Literal["logits", "log_probs"] = "logits"

    def __post_init__(self) -> None:
        number("penalty", self.penalty, "a positive number", lambda x: x > 0)
        if self.on not in ("logits", "log_probs"):
            raise ValueError(
                '`on` must be "logits", the rule of the paper, or "log_probs". '
                f"Received: on={self.on!r}."
            )

    def __call__(self, log_probs: Tensor, hypotheses: Hypotheses) -> Tensor:
        token_ids = hypotheses.token_ids  # B K L
        is_written = ops.logical_and(
            hypotheses.is_written, ops.ones_like(token_ids, "bool")
        )
        is_repeated = occurs(token_ids, is_written, log_probs.shape[-1])  # B K V
        if self.on == "log_probs":
            return ops.where(is_repeated, log_probs * self.penalty, log_probs)
        logits = hypotheses.logits  # B K V
        factor = ops.where(logits > 0, 1 / self.penalty, self.penalty)
        factor = ops.cast(factor, logits.dtype)
        penalised = ops.where(is_repeated, logits * factor, logits)
        change = ops.log_softmax(penalised) - ops.log_softmax(logits)
        is_possible = logits > -float("inf")  # otherwise the difference is NaN
        return log_probs + ops.where(is_possible, change, 0.0)


@dataclasses.dataclass(frozen=True)
class BannedSequences:
    """Sequences that are never generated at any position ("bad words").

    The end token is a token like any other. With `[4, end_token_id]` no hypothesis ends
    after a 4. With `[end_token_id]` no hypothesis ends at all, and each is cut off at
    the maximum length. To ban a sequence everywhere, leave out the end token.

    Args:
        sequences: Lists of token ids.

    Call arguments:
        log_probs: `(B, K, V)`.
        hypotheses: The `kseq.decoding.Hypotheses` so far.

    Returns:
        `(B, K, V)`, minus infinity for tokens that would complete one of the sequences.

    Raises:
        ValueError: There are no sequences, one is empty, or one has a token that is not
            in the model's vocabulary.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.decoding import BannedSequences, GreedySearch
    >>> table = np.log([[.1, .2, .4, .3]] * 4)
    >>> def step(token_ids, state, constants):
    ...     return keras.ops.take(table, token_ids, axis=0), state
    >>> search = GreedySearch(constraints=[BannedSequences([[2, 2], [2, 3, 2]])])
    >>> result = search(step, (), (), [0], end_token_id=1, max_length=5)
    >>> np.array(result.token_ids).tolist()
    [[[2, 3, 3, 2, 3]]]
    """

    sequences: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        sequences = token_sequences("sequences", self.sequences)
        object.__setattr__(self, "sequences", sequences)

    def __call__(self, log_probs: Tensor, hypotheses: Hypotheses) -> Tensor:
        for sequence in self.sequences:
            check_vocabulary(self, sequence, log_probs.shape[-1])
        num_recent = max(map(len, self.sequences)) - 1
        last = ops.convert_to_tensor([x[-1] for x in self.sequences], "int32")
        last = ops.zeros_like(hypotheses.lengths)[..., None] + last  # B K C
        is_banned = ops.ones_like(last, "bool")
        for back, recent in enumerate(reversed(hypotheses.recent(num_recent)), 2):
            # The token of each sequence at this position from its end. -2 means that
            # the sequence is shorter, so any token fits.
            tokens = [x[-back] if len(x) >= back else -2 for x in self.sequences]
            tokens = ops.convert_to_tensor(tokens, "int32")  # C
            fits = ops.logical_or(tokens == -2, recent[..., None] == tokens)
            is_banned = ops.logical_and(is_banned, fits)
        return only_where(~occurs(last, is_banned, log_probs.shape[-1]), log_probs)
