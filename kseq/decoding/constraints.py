"""Constraints on the next token of a search.

A constraint is a function `(log_probs (B, K, V), Hypotheses) -> (B, K, V)`. The model's
logits are in `hypotheses.logits`. Every search takes any number of constraints and
applies them in order. The log-probabilities that they return decide the choice of
tokens and the ranking of hypotheses. A search reports the log-probabilities of the
model, so `model.score` agrees with it. A hypothesis without any allowed token is dead:
its length is 0 and its log-probability minus infinity.

A constraint must be hashable, like a frozen dataclass. CONTRIBUTING.md explains how to
add one.

A compiled search is reused until a constraint would use a different attribute, array,
or variable outside of its function.

Axes in shape comments: B batch, K beams, V vocabulary.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

from keras import ops

from kseq.decoding.hypotheses import Hypotheses
from kseq.decoding.validation import (
    check_vocabulary,
    is_among,
    is_token,
    positive_integer,
    token_tuple,
)
from kseq.typing import Tensor

Constraint: TypeAlias = Callable[[Tensor, Hypotheses], Tensor]


def constraint_tuple(constraints: Any) -> tuple[Constraint, ...]:
    """Return constraints as a hashable tuple, a key of compiled searches."""
    is_single = callable(constraints) or not hasattr(constraints, "__iter__")
    items = () if is_single else tuple(constraints)
    if is_single or not all(callable(x) and not isinstance(x, type) for x in items):
        raise ValueError(
            "`constraints` must be a list of constraints, such as "
            "`[kseq.decoding.MinimumLength(3)]`, or of functions `(log_probs "
            "(B, K, V), hypotheses) -> (B, K, V)`. Received: "
            f"constraints={constraints!r}."
        )
    for item in items:
        try:
            hash(item)
        except TypeError:
            raise ValueError(
                "A constraint must be hashable, since it is part of the key of a "
                "compiled search: a function, or a dataclass with `frozen=True` that "
                f"holds tuples, not lists. Received: {item!r}."
            ) from None
    return items


def only_where(is_allowed: Tensor, log_probs: Tensor) -> Tensor:
    """Set the log-probabilities of all other tokens to minus infinity."""
    return ops.where(is_allowed, log_probs, -float("inf"))


@dataclasses.dataclass(frozen=True)
class MinimumLength:
    """Minimum length: no end token before a number of tokens.

    Args:
        length: Minimum number of tokens, including the end token.

    Call arguments:
        log_probs: `(B, K, V)`.
        hypotheses: The `kseq.decoding.Hypotheses` so far.

    Returns:
        `(B, K, V)`, minus infinity for the end token while it comes too early.

    Raises:
        ValueError: `length` is not a positive integer.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.decoding import GreedySearch, MinimumLength
    >>> table = np.log([[.1, .6, .3]] * 3)
    >>> def step(token_ids, state, constants):
    ...     return keras.ops.take(table, token_ids, axis=0), state
    >>> search = GreedySearch(constraints=[MinimumLength(3)])
    >>> result = search(step, (), (), [0], end_token_id=1, max_length=5)
    >>> np.array(result.token_ids).tolist()
    [[[2, 2, 1, 0, 0]]]
    """

    length: int

    def __post_init__(self) -> None:
        positive_integer("length", self.length)

    def __call__(self, log_probs: Tensor, hypotheses: Hypotheses) -> Tensor:
        is_end = (
            ops.arange(log_probs.shape[-1], dtype="int32") == hypotheses.end_token_id
        )  # V
        is_early = hypotheses.step + 1 < self.length
        return only_where(~ops.logical_and(is_end, is_early), log_probs)


@dataclasses.dataclass(frozen=True)
class MaximumLength:
    """Maximum length: the end token within a number of tokens.

    In contrast, the `max_length` of a search cuts off hypotheses that have not ended.

    Args:
        length: Maximum number of tokens, including the end token.

    Call arguments:
        log_probs: `(B, K, V)`.
        hypotheses: The `kseq.decoding.Hypotheses` so far.

    Returns:
        `(B, K, V)`, minus infinity for all but the end token at the last position.

    Raises:
        ValueError: `length` is not a positive integer.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.decoding import GreedySearch, MaximumLength
    >>> table = np.log([[.1, .2, .7]] * 3)
    >>> def step(token_ids, state, constants):
    ...     return keras.ops.take(table, token_ids, axis=0), state
    >>> search = GreedySearch(constraints=[MaximumLength(3)])
    >>> result = search(step, (), (), [0], end_token_id=1, max_length=5)
    >>> np.array(result.token_ids).tolist()
    [[[2, 2, 1, 0, 0]]]
    """

    length: int

    def __post_init__(self) -> None:
        positive_integer("length", self.length)

    def __call__(self, log_probs: Tensor, hypotheses: Hypotheses) -> Tensor:
        is_end = (
            ops.arange(log_probs.shape[-1], dtype="int32") == hypotheses.end_token_id
        )  # V
        is_last = hypotheses.step + 1 >= self.length
        return only_where(ops.logical_or(is_end, ~is_last), log_probs)


@dataclasses.dataclass(frozen=True)
class BannedTokens:
    """Tokens that are never generated.

    Args:
        token_ids: The banned tokens.

    Call arguments:
        log_probs: `(B, K, V)`.
        hypotheses: The `kseq.decoding.Hypotheses` so far.

    Returns:
        `(B, K, V)`, minus infinity for these tokens.

    Raises:
        ValueError: `token_ids` is empty or has a token that is not in the model's
            vocabulary.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.decoding import BannedTokens, GreedySearch
    >>> table = np.log([[.1, .2, .4, .3]] * 4)
    >>> def step(token_ids, state, constants):
    ...     return keras.ops.take(table, token_ids, axis=0), state
    >>> search = GreedySearch(constraints=[BannedTokens([2])])
    >>> result = search(step, (), (), [0], end_token_id=1, max_length=3)
    >>> np.array(result.token_ids).tolist()
    [[[3, 3, 3]]]
    """

    token_ids: Collection[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ids", token_tuple("token_ids", self.token_ids))

    def __call__(self, log_probs: Tensor, hypotheses: Hypotheses) -> Tensor:
        return only_where(
            ~is_among(self, self.token_ids, log_probs.shape[-1]), log_probs
        )


@dataclasses.dataclass(frozen=True)
class ForcedTokens:
    """Given tokens at given positions, for example at the beginning.

    A hypothesis does not end before the last of them. For a prefix that differs between
    examples, pass `prefix` when you call the search. Forced tokens are not chosen, so
    the rank of a hypothesis ignores them: it uses the log-probability and length of the
    other tokens. The reported numbers include all tokens.

    Args:
        token_ids: The token of each position, starting with the first. None where any
            token may come.

    Call arguments:
        log_probs: `(B, K, V)`.
        hypotheses: The `kseq.decoding.Hypotheses` so far.

    Returns:
        `(B, K, V)`, minus infinity for all but the forced token.

    Raises:
        ValueError: `token_ids` has no token, or one that is not in the model's
            vocabulary.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.decoding import ForcedTokens, GreedySearch
    >>> table = np.log([[.1, .2, .4, .3]] * 4)
    >>> def step(token_ids, state, constants):
    ...     return keras.ops.take(table, token_ids, axis=0), state
    >>> search = GreedySearch(constraints=[ForcedTokens([3, None, 3, 1])])
    >>> result = search(step, (), (), [0], end_token_id=1, max_length=5)
    >>> np.array(result.token_ids).tolist()
    [[[3, 2, 3, 1, 0]]]
    """

    token_ids: Sequence[int | None]

    def __post_init__(self) -> None:
        given = self.token_ids
        has_order = hasattr(given, "__iter__") and not isinstance(given, (dict, set))
        given = tuple(given) if has_order else ()
        tokens = [token for token in given if token is not None]
        if not tokens or not all(map(is_token, tokens)):
            raise ValueError(
                "`token_ids` must be a list that holds a token id or None for each "
                "position, and at least one token, such as [5, None, 7]. Received: "
                f"{self.token_ids!r}."
            )
        while given[-1] is None:
            given = given[:-1]
        object.__setattr__(self, "token_ids", given)

    def check_padding(self, pad_token_id: int) -> None:
        """Raise if a forced token is padding, which a search never generates."""
        if pad_token_id in self.token_ids:
            raise ValueError(
                f"`token_ids` must not contain the padding token, {pad_token_id}. "
                f"Received: {self}. Use None where any token may come."
            )

    @property
    def forced_places(self) -> tuple[int, ...]:
        """The positions that have a forced token, from 0."""
        return tuple(i for i, token in enumerate(self.token_ids) if token is not None)

    def __call__(self, log_probs: Tensor, hypotheses: Hypotheses) -> Tensor:
        vocabulary_size = log_probs.shape[-1]
        words = ops.arange(vocabulary_size, dtype="int32")  # V
        tokens = [token for token in self.token_ids if token is not None]
        check_vocabulary(self, tokens, vocabulary_size)
        is_allowed = words >= 0
        for place, token in enumerate(self.token_ids):
            fits = words != hypotheses.end_token_id if token is None else words == token
            fits = ops.logical_or(fits, hypotheses.step != place)
            is_allowed = ops.logical_and(is_allowed, fits)
        return only_where(is_allowed, log_probs)


@dataclasses.dataclass(frozen=True)
class AllowedTokens:
    """Constraint to the tokens that a function of the hypothesis allows.

    Args:
        function: Function `(token_ids (B, K, L), lengths (B, K)) -> (B, K, V)` made of
            `keras.ops`, True for the tokens that may come next. It may return `(V,)`
            if the same tokens are allowed for all hypotheses. It is compiled, so L is
            the `max_length` of the search. Positions after the length are padding.

    Call arguments:
        log_probs: `(B, K, V)`.
        hypotheses: The `kseq.decoding.Hypotheses` so far.

    Returns:
        `(B, K, V)`, minus infinity for all other tokens.

    Raises:
        ValueError: `function` is not a function, or does not return a mask.

    Example:

    Even and odd tokens in turn, without an end:

    >>> import keras, numpy as np
    >>> from kseq.decoding import AllowedTokens, GreedySearch
    >>> def in_turn(token_ids, lengths):
    ...     words = keras.ops.arange(7)
    ...     return (words % 2 == lengths[..., None] % 2) & (words > 1)
    >>> def step(token_ids, state, constants):
    ...     return keras.ops.tile(np.arange(7.0), (1, 1, 1)), state
    >>> search = GreedySearch(constraints=[AllowedTokens(in_turn)])
    >>> result = search(step, (), (), [0], end_token_id=1, max_length=4)
    >>> np.array(result.token_ids).tolist()
    [[[6, 5, 6, 5]]]
    """

    function: Callable[[Tensor, Tensor], Tensor]

    def __post_init__(self) -> None:
        if not callable(self.function) or isinstance(self.function, type):
            raise ValueError(
                "`function` must be a function `(token_ids (B, K, L), lengths (B, K)) "
                "-> (B, K, V)`; for a list of sequences use `AllowedSequences`. "
                f"Received: function={self.function!r}."
            )

    def __call__(self, log_probs: Tensor, hypotheses: Hypotheses) -> Tensor:
        is_allowed = self.function(hypotheses.token_ids, hypotheses.lengths)
        shape = tuple(getattr(is_allowed, "shape", ()))
        if shape[-1:] != log_probs.shape[-1:]:
            raise ValueError(
                "The function of `AllowedTokens` must return True or False for each "
                f"token of the vocabulary, (V,) or (B, K, V) = {log_probs.shape}. "
                f"Received: {type(is_allowed).__name__} of shape {shape}."
            )
        return only_where(ops.cast(is_allowed, "bool"), log_probs)
