"""The parts of a distribution that sampling keeps.

Axes in shape comments: B batch, K draws, C candidates, V vocabulary.
"""

from keras import ops

# Sums of probabilities are compared with this allowance for rounding, so that two
# probabilities of .5 and .3 do reach .8, on every backend.
ROUNDING = 1e-6


def truncated(log_probs, top_k=None, top_p=None, min_p=None, typical_p=None):
    """Applies each rule to what the one before has left.

    Args:
        log_probs: `(B, K, V)`, not necessarily normalised.
        top_k: Number of the most probable tokens to keep, or None.
        top_p: Keeps the fewest most probable tokens that have this share, or None.
        min_p: Keeps what has this share of the most probable token's probability.
        typical_p: Keeps the fewest most typical tokens that have this share.

    Returns:
        `(log_probs (B, K, C), token_ids (B, K, C))`, minus infinity for what is not
        kept. Token ids are None where the candidates are the vocabulary in its order.
    """
    token_ids = None
    if top_k is not None or top_p is not None:
        size = log_probs.shape[-1]
        size = size if top_k is None else min(top_k, size)
        log_probs, token_ids = ops.top_k(log_probs, size)  # B K C, best first
    if top_p is not None:
        log_probs = first_share(log_probs, top_p)
    if min_p is not None:
        best = ops.max(log_probs, axis=-1, keepdims=True)
        ratios = ops.exp(log_probs - finite(best))
        log_probs = ops.where(ratios >= min_p - ROUNDING, log_probs, -float("inf"))
    if typical_p is not None:
        log_probs, order = most_typical_first(log_probs)
        log_probs = first_share(log_probs, typical_p)
        if token_ids is None:
            token_ids = order
        else:
            token_ids = ops.take_along_axis(token_ids, order, axis=-1)
    return log_probs, token_ids


def first_share(log_probs, share):
    """Keeps the fewest candidates from the first on that have a share of the mass."""
    probs = probabilities(log_probs)
    before = ops.cumsum(probs, axis=-1) - probs
    is_first = ops.arange(probs.shape[-1]) == 0
    is_kept = ops.logical_or(before < share - ROUNDING, is_first)
    return ops.where(is_kept, log_probs, -float("inf"))


def most_typical_first(log_probs):
    """Orders by how near a candidate's information is to the mean, the entropy."""
    probs = probabilities(log_probs)
    is_possible = probs > 0
    information = -ops.log(ops.where(is_possible, probs, 1.0))
    entropy = ops.sum(probs * information, axis=-1, keepdims=True)
    distance = ops.abs(information - entropy)
    distance = ops.where(is_possible, distance, float("inf"))
    _, order = ops.top_k(-distance, probs.shape[-1])
    order = ops.cast(order, "int32")
    return ops.take_along_axis(log_probs, order, axis=-1), order


def probabilities(log_probs):
    """The softmax, zeros where nothing is possible."""
    best = ops.max(log_probs, axis=-1, keepdims=True)
    probs = ops.exp(log_probs - finite(best))
    return probs / ops.maximum(ops.sum(probs, axis=-1, keepdims=True), 1e-30)


def finite(log_probs):
    return ops.where(log_probs > -float("inf"), log_probs, 0.0)


def draw(log_probs, numbers):
    """The candidates `(B, K)` at which the cumulative sum passes `numbers (B, K)`."""
    size = log_probs.shape[-1]
    probs = probabilities(log_probs)
    sums = ops.cumsum(probs, axis=-1)  # B K C
    places = ops.arange(size)
    # Rounding may let sums fall a little, so that what has no probability is passed at.
    is_possible = probs > 0
    is_passed = sums > numbers[..., None] * sums[..., -1:]
    is_passed = ops.logical_and(is_passed, is_possible)
    first = ops.min(ops.where(is_passed, places, size), axis=-1)
    last = ops.max(ops.where(is_possible, places, 0), axis=-1)
    return ops.cast(ops.minimum(first, last), "int32")
