"""The parts of a distribution that sampling keeps.

Axes in shape comments: B batch, K draws, C candidates, V vocabulary.
"""

from keras import ops

# Sums of probabilities are compared with this allowance for rounding, so that two
# probabilities of .5 and .3 do reach .8, on every backend.
ROUNDING = 1e-6
BLOCK = 128


def truncated(log_probs, top_k=None, top_p=None, min_p=None, typical_p=None):
    """Applies each rule to what the one before has left.

    Args:
        log_probs: `(B, K, V)`, not necessarily normalized.
        top_k: Number of the most probable tokens to keep, or None.
        top_p: Keeps the fewest most probable tokens that have this share, or None.
        min_p: Keeps what has this share of the most probable token's probability.
        typical_p: Keeps the fewest most typical tokens that have this share.

    Returns:
        `(log_probs (B, K, C), token_ids (B, K, C))`, minus infinity for what is not
        kept. Token ids are None where the candidates are the vocabulary in its order.
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


def first_share(log_probs, keys, share):
    """Keeps the fewest candidates, those of greatest key first, that have a share.

    Sorting a vocabulary takes an XLA compiler on a CPU many times as long as all else.
    So the key of the last candidate is found by bisection, down to rounding; of the
    candidates that share this key the first are kept, as many as are needed.
    """
    probs = probabilities(log_probs)
    is_possible = probs > 0
    share = max(share - ROUNDING, 1e-9)
    keys = ops.where(is_possible, keys, -float("inf"))
    best = ops.max(keys, axis=-1, keepdims=True)  # B K 1
    # What lies e ** -50 below has no share worth a search.
    worst = ops.min(ops.where(is_possible, keys, float("inf")), axis=-1, keepdims=True)
    worst = ops.maximum(worst, best - 50.0)

    def halve(_, bounds):  # at `low` and above is enough, at `high` and above is not
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


def typicality(log_probs):
    """How near a candidate's information is to the entropy, which is its mean."""
    probs = probabilities(log_probs)
    information = -ops.log(ops.where(probs > 0, probs, 1.0))
    entropy = ops.sum(probs * information, axis=-1, keepdims=True)
    return -ops.abs(information - entropy)


def draw(log_probs, numbers):
    """The candidates `(B, K)` at which the cumulative sum passes `numbers (B, K)`."""
    probs = probabilities(log_probs)
    return place_of(probs, numbers * ops.sum(probs, axis=-1))


def place_of(weights, amounts):
    """Where the running sum of `weights (B, K, C)` passes `amounts (B, K)`.

    Always a place with a weight, if there is any. First the block of candidates is
    found, then the place in it, so that only short running sums are needed.
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


def first_passing(weights, amounts):
    """The same by one running sum."""
    size = weights.shape[-1]
    places = ops.arange(size, dtype="int32")
    # Rounding may let sums fall a little, so that what has no weight is passed at.
    has_weight = weights > 0
    is_passed = ops.cumsum(weights, axis=-1) > amounts[..., None]
    is_passed = ops.logical_and(is_passed, has_weight)
    first = ops.min(ops.where(is_passed, places, size), axis=-1)
    last = ops.max(ops.where(has_weight, places, 0), axis=-1)
    return ops.cast(ops.minimum(first, last), "int32")


def probabilities(log_probs):
    """The softmax, zeros where nothing is possible."""
    best = ops.max(log_probs, axis=-1, keepdims=True)
    probs = ops.exp(log_probs - finite(best))
    return probs / ops.maximum(ops.sum(probs, axis=-1, keepdims=True), 1e-30)


def finite(log_probs):
    return ops.where(log_probs > -float("inf"), log_probs, 0.0)
