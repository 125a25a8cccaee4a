"""Constraints: what a search may write next.

A constraint is a function `(log_probs (B, K, V), Hypotheses) -> (B, K, V)`. One that
needs the logits of the model finds them in `hypotheses.logits`. Every search takes any
number of constraints, applied in their order. What they return decides what is chosen
and how hypotheses are ranked. What a search reports stays the log-probability that the
model gives, so `model.score` agrees with it. A hypothesis to which constraints leave
nothing is dead: its length is 0 and its log-probability minus infinity.

A constraint is hashable, as a frozen dataclass is. How to add one: CONTRIBUTING.md.

A compiled search is used again until a constraint would read something else: another
attribute, array, or variable outside of its function.

Axes in shape comments: B batch, K beams, V vocabulary.
"""

import dataclasses
from collections.abc import Callable

from keras import ops

from kseq.decoding.validation import (
    check_vocabulary,
    is_among,
    is_token,
    positive_integer,
    token_tuple,
)


def constraint_tuple(constraints):
    """Returns constraints as a tuple, which can be a key of compiled searches."""
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
                "A constraint must be hashable, since compiled searches are kept by "
                "it: a function, or a dataclass with `frozen=True` and tuples inside. "
                f"Received: {item!r}."
            ) from None
    return items


def only_where(is_allowed, log_probs):
    """Makes all else impossible."""
    return ops.where(is_allowed, log_probs, -float("inf"))


@dataclasses.dataclass(frozen=True)
class MinimumLength:
    """Lets no hypothesis end before it has a number of tokens.

    Args:
        length: Fewest tokens, the end token counted.

    Call arguments:
        log_probs: `(B, K, V)`.
        hypotheses: `kseq.decoding.Hypotheses`, what has been written.

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

    def __post_init__(self):
        positive_integer("length", self.length)

    def __call__(self, log_probs, hypotheses):
        is_end = (
            ops.arange(log_probs.shape[-1], dtype="int32") == hypotheses.end_token_id
        )  # V
        is_early = hypotheses.step + 1 < self.length
        return only_where(~ops.logical_and(is_end, is_early), log_probs)


@dataclasses.dataclass(frozen=True)
class MaximumLength:
    """Makes every hypothesis end, by the end token, within a number of tokens.

    The `max_length` of a search cuts off instead what has not ended by then.

    Args:
        length: Most tokens, the end token counted.

    Call arguments:
        log_probs: `(B, K, V)`.
        hypotheses: `kseq.decoding.Hypotheses`, what has been written.

    Returns:
        `(B, K, V)`, minus infinity for all but the end token at the last place.

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

    def __post_init__(self):
        positive_integer("length", self.length)

    def __call__(self, log_probs, hypotheses):
        is_end = (
            ops.arange(log_probs.shape[-1], dtype="int32") == hypotheses.end_token_id
        )  # V
        is_last = hypotheses.step + 1 >= self.length
        return only_where(ops.logical_or(is_end, ~is_last), log_probs)


@dataclasses.dataclass(frozen=True)
class BannedTokens:
    """Never writes some tokens.

    Args:
        token_ids: The tokens.

    Call arguments:
        log_probs: `(B, K, V)`.
        hypotheses: `kseq.decoding.Hypotheses`, what has been written.

    Returns:
        `(B, K, V)`, minus infinity for these tokens.

    Raises:
        ValueError: `token_ids` is empty or names a token that the model lacks.

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

    token_ids: tuple

    def __post_init__(self):
        object.__setattr__(self, "token_ids", token_tuple("token_ids", self.token_ids))

    def __call__(self, log_probs, hypotheses):
        return only_where(
            ~is_among(self, self.token_ids, log_probs.shape[-1]), log_probs
        )


@dataclasses.dataclass(frozen=True)
class ForcedTokens:
    """Writes given tokens at given places, for example at the beginning.

    A hypothesis does not end before the last of them. Each search also takes a `prefix`
    when it is called, which is another one for each row. Neither is chosen, so neither
    counts in the rank of a hypothesis: its log-probability and length are those of the
    other tokens. What is reported is of all tokens.

    Args:
        token_ids: For each place, from the first, its token, or None where any may
            stand.

    Call arguments:
        log_probs: `(B, K, V)`.
        hypotheses: `kseq.decoding.Hypotheses`, what has been written.

    Returns:
        `(B, K, V)`, minus infinity for all but the token that is due.

    Raises:
        ValueError: `token_ids` names no token, or one that the model lacks.

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

    token_ids: tuple

    def __post_init__(self):
        given = self.token_ids
        has_order = hasattr(given, "__iter__") and not isinstance(given, (dict, set))
        given = tuple(given) if has_order else ()
        tokens = [token for token in given if token is not None]
        if not tokens or not all(map(is_token, tokens)):
            raise ValueError(
                "`token_ids` must be a list that holds for each place a token id or "
                "None, and at least one token, such as [5, None, 7]. Received: "
                f"{self.token_ids!r}."
            )
        while given[-1] is None:
            given = given[:-1]
        object.__setattr__(self, "token_ids", given)

    def check_padding(self, pad_token_id):
        """Refuse to write padding, which is nothing that a search may write."""
        if pad_token_id in self.token_ids:
            raise ValueError(
                f"`token_ids` must not hold padding, {pad_token_id}. Received: {self}. "
                "Put None where any token may stand."
            )

    @property
    def forced_places(self):
        return tuple(i for i, token in enumerate(self.token_ids) if token is not None)

    def __call__(self, log_probs, hypotheses):
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
    """Writes only what a function of the hypothesis allows.

    Args:
        function: Function `(token_ids (B, K, L), lengths (B, K)) -> (B, K, V)` of
            `keras.ops`, True for the tokens that may come next. `(V,)` is enough where
            all hypotheses may go on alike. It is compiled, so L is the `max_length` of
            the search; behind the length stands padding.

    Call arguments:
        log_probs: `(B, K, V)`.
        hypotheses: `kseq.decoding.Hypotheses`, what has been written.

    Returns:
        `(B, K, V)`, minus infinity for all other tokens.

    Raises:
        ValueError: `function` is no function, or returns no mask.

    Example:

    Even and odd tokens in turn, and no end:

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

    function: Callable

    def __post_init__(self):
        if not callable(self.function) or isinstance(self.function, type):
            raise ValueError(
                "`function` must be a function `(token_ids (B, K, L), lengths (B, K)) "
                "-> (B, K, V)`; a list of sequences goes to `AllowedSequences`. "
                f"Received: function={self.function!r}."
            )

    def __call__(self, log_probs, hypotheses):
        is_allowed = self.function(hypotheses.token_ids, hypotheses.lengths)
        shape = tuple(getattr(is_allowed, "shape", ()))
        if shape[-1:] != log_probs.shape[-1:]:
            raise ValueError(
                "The function of `AllowedTokens` must return True or False for each "
                f"token of the vocabulary, (V,) or (B, K, V) = {log_probs.shape}. "
                f"Received: {type(is_allowed).__name__} of shape {shape}."
            )
        return only_where(ops.cast(is_allowed, "bool"), log_probs)
