"""Truncation of a distribution for sampling: top-k, top-p, min-p and typical-p.

Axes in shape comments: B batch, K draws, C candidates, V vocabulary.
"""

from keras import ops

from kseq.typing import Tensor

# Tolerance for rounding in comparisons of summed probabilities, so that .5 and .3 reach
# .8 on every backend.
ROUNDING = 1e-6
BLOCK = 128


def truncated(
    log_probs: Tensor,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    typical_p: float | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Apply the rules one after the other.

    Args:
        log_probs: `(B, K, V)`, not necessarily normalized.
        top_k: Number of most probable tokens to keep, or None.
        top_p: Total probability of the fewest most probable tokens to keep, or None.
        min_p: Minimum probability of a token to keep, as a fraction of the highest
            probability, or None.
        typical_p: Total probability of the fewest most typical tokens to keep, or None.

    Returns:
        `(log_probs (B, K, C), token_ids (B, K, C))`, minus infinity for tokens that are
        not kept. Token ids are None if the candidates are the whole vocabulary in its
        order.
    """
    token_ids = None
    if top_k is not None:
        size = min(top_k, log_probs.shape[-1])
        log_probs, token_ids = ops.top_k(log_probs, size)  # B K C, best first
    if top_p is not None:
        log_probs = first_share(log_probs, log_probs, top_p)
    if min_p is not None:
        best = ops.max(log_probs, axis=-1, keepdims=True)
        ratios = ops.exp(log_probs - finite(best))
        log_probs = ops.where(ratios >= min_p - ROUNDING, log_probs, -float("inf"))
    if typical_p is not None:
        log_probs = first_share(log_probs, typicality(log_probs), typical_p)
    return log_probs, token_ids


def first_share(log_probs: Tensor, keys: Tensor, share: float) -> Tensor:
    """Keep the fewest candidates, highest keys first, that sum to a probability.

    With XLA on a CPU, sorting the vocabulary would take many times as long as all the
    rest. Instead, bisection finds the key of the last candidate, down to rounding. If
    several candidates have this key, the first ones are kept, as many as needed.
    """
    probs = probabilities(log_probs)
    is_possible = probs > 0
    share = max(share - ROUNDING, 1e-9)
    keys = ops.where(is_possible, keys, -float("inf"))
    best = ops.max(keys, axis=-1, keepdims=True)  # B K 1
    # Candidates more than a factor of e ** 50 below the best are negligible.
    worst = ops.min(ops.where(is_possible, keys, float("inf")), axis=-1, keepdims=True)
    worst = ops.maximum(worst, best - 50.0)

    # Keys from `low` up have enough probability, keys from `high` up do not.
    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        mass = ops.sum(ops.where(keys >= middle, probs, 0.0), axis=-1, keepdims=True)
        is_enough = mass >= share
        return ops.where(is_enough, middle, low), ops.where(is_enough, high, middle)

    low, high = ops.fori_loop(0, 32, halve, (worst, best + 1.0))
    is_above = keys >= high
    at_border = ops.logical_and(keys >= low, ops.logical_not(is_above))
    missing = share - ops.sum(ops.where(is_above, probs, 0.0), axis=-1)  # B K
    last = place_of(ops.where(at_border, probs, 0.0), missing)[..., None]
    at_border = ops.logical_and(
        at_border, ops.arange(probs.shape[-1], dtype="int32") <= last
    )
    return ops.where(ops.logical_or(is_above, at_border), log_probs, -float("inf"))


def typicality(log_probs: Tensor) -> Tensor:
    """Return minus the distance of each candidate's information to the entropy."""
    probs = probabilities(log_probs)
    information = -ops.log(ops.where(probs > 0, probs, 1.0))
    entropy = ops.sum(probs * information, axis=-1, keepdims=True)
    return -ops.abs(information - entropy)


def draw(log_probs: Tensor, numbers: Tensor) -> Tensor:
    """Sample candidates `(B, K)` by random numbers in [0, 1), `(B, K)`."""
    probs = probabilities(log_probs)
    return place_of(probs, numbers * ops.sum(probs, axis=-1))


def place_of(weights: Tensor, amounts: Tensor) -> Tensor:
    """Return the index at which the cumulative sum of weights exceeds an amount.

    The weight there is positive, if any weight is. The block of candidates is found
    first, then the index in the block, so that only short cumulative sums are needed.

    Args:
        weights: `(B, K, C)`.
        amounts: `(B, K)`.

    Returns:
        Integers `(B, K)`.
    """
    num_draws, size = weights.shape[1:]
    num_blocks = -(-size // BLOCK)
    weights = ops.pad(weights, ((0, 0), (0, 0), (0, num_blocks * BLOCK - size)))
    blocks = ops.reshape(weights, (-1, num_draws, num_blocks, BLOCK))
    sums = ops.sum(blocks, axis=-1)
    block = first_passing(sums, amounts)[..., None]  # B K 1
    before = ops.take_along_axis(ops.cumsum(sums, axis=-1) - sums, block, axis=-1)
    inside = ops.take_along_axis(blocks, block[..., None], axis=2)[:, :, 0]
    return block[..., 0] * BLOCK + first_passing(inside, amounts - before[..., 0])


def first_passing(weights: Tensor, amounts: Tensor) -> Tensor:
    """Return the same as `place_of`, by a single cumulative sum."""
    size = weights.shape[-1]
    places = ops.arange(size, dtype="int32")
    # Rounding may decrease a cumulative sum, so an index without weight could be hit.
    has_weight = weights > 0
    is_passed = ops.cumsum(weights, axis=-1) > amounts[..., None]
    is_passed = ops.logical_and(is_passed, has_weight)
    first = ops.min(ops.where(is_passed, places, size), axis=-1)
    last = ops.max(ops.where(has_weight, places, 0), axis=-1)
    return ops.cast(ops.minimum(first, last), "int32")


def probabilities(log_probs: Tensor) -> Tensor:
    """Return the softmax, or zeros if no candidate is possible."""
    best = ops.max(log_probs, axis=-1, keepdims=True)
    probs = ops.exp(log_probs - finite(best))
    return probs / ops.maximum(ops.sum(probs, axis=-1, keepdims=True), 1e-30)


def finite(log_probs: Tensor) -> Tensor:
    """Replace minus infinity by 0."""
    return ops.where(log_probs > -float("inf"), log_probs, 0.0)
