"""A decoder's cache: what multi-head attention keeps to write one step at a time.

Axes in shape comments: B batch, S prefix steps, K beams, L cached steps, D features,
H heads, N key heads, G query heads to each key head, C size of a head.
"""

from keras import ops

from kseq.layers.backends import put
from kseq.layers.positions import prefix_positions
from kseq.layers.transformer.products import scores_of, sum_by_weights


def start_cache(attention, num_rows, num_beams, max_length):
    """An empty cache for `max_length` steps L of rows B with beams K.

    What the beams write at one step stands side by side and stays where it is; a
    `lineage` says whose step belongs to whom; LK is one axis, K beams for each of L
    steps. The steps of the keys are their last
    axis, which makes the product with a few queries several times as fast.

    Returns:
        Keys `(B, N, C, LK)` and values `(B, N, LK, C)` by name.
    """
    heads, size = attention.key_heads, attention.head_size
    steps, dtype = max_length * num_beams, attention.compute_dtype
    return {
        "keys": ops.zeros((num_rows, heads, size, steps), dtype),
        "values": ops.zeros((num_rows, heads, steps, size), dtype),
    }


def attend_step(attention, query, cache, lineage, positions, prefix, prefix_mask=None):
    """Reads, for each beam, a prefix and the steps written so far.

    Args:
        attention: The `MultiHeadAttention`.
        query: `(B, K, D)`, the newest step of each beam.
        cache: From `start_cache` or the last step.
        lineage: Integers `(B, K, L)`: which beam has written each step of each
            hypothesis, the newest by itself; -1 for steps to come.
        positions: Integers `(B, K)`, the same in every row: the newest step.
        prefix: Keys and values `(B, N, S, C)` that stand before step 0 and are shared
            by the beams, or empty.
        prefix_mask: Boolean `(B, S)`.

    Returns:
        `(outputs (B, K, D), cache)`.
    """
    queries, cache = write_newest(attention, query, cache, positions)
    keys, values = cache["keys"], cache["values"]
    beams, steps = lineage.shape[1:]
    steps = ops.expand_dims(ops.arange(steps, dtype="int32"), 0)  # 1 L
    mask = own_steps(lineage)
    bias = by_beam(attention.bias_between(positions, steps), beams)
    scores = scores_of(queries, keys)
    if not prefix:
        weights = attention.attention_weights(scores, mask, bias)
        return attention.join_heads(sum_by_weights(weights, values)), cache

    earlier = scores_of(queries, ops.swapaxes(prefix["keys"], 2, 3))
    scores = ops.concatenate([earlier, scores], axis=-1)  # B N G K S+LK
    before = prefix_positions(prefix_mask, prefix["keys"])  # B S
    split = ops.shape(before)[1]
    is_real = ops.ones_like(before, "bool") if prefix_mask is None else prefix_mask
    is_real = ops.repeat(ops.expand_dims(is_real, 1), beams, axis=1)  # B K S
    mask = ops.concatenate([is_real, mask], axis=-1)
    if bias is not None:
        bias_before = attention.bias_between(positions, before)
        bias = ops.concatenate([bias_before, bias], axis=-1)
    weights = attention.attention_weights(scores, mask, bias)
    context = sum_by_weights(weights[..., :split], prefix["values"])
    context = context + sum_by_weights(weights[..., split:], values)
    return attention.join_heads(context), cache


def write_newest(attention, query, cache, positions):
    """Queries `(B, K, N, G, C)` of the newest step, and the cache with that step."""
    beams, width = query.shape[1:]
    alone = ops.reshape(query, (-1, 1, width))  # BK 1 D
    queries, key, value = attention.project(alone, ops.reshape(positions, (-1, 1)))
    queries = ops.reshape(queries, (-1, beams, *queries.shape[2:]))
    heads = (-1, beams, attention.key_heads, attention.head_size)
    key = ops.transpose(ops.reshape(key, heads), (0, 2, 3, 1))  # B N C K
    value = ops.transpose(ops.reshape(value, heads), (0, 2, 1, 3))  # B N K C
    newest = positions[0, 0] * beams
    return queries, {
        "keys": put(cache["keys"], key, newest, axis=3),
        "values": put(cache["values"], value, newest, axis=2),
    }


def own_steps(lineage):
    """What each beam may read of a cache: from `(B, K, L)`, boolean `(B, K, LK)`."""
    beams, steps = lineage.shape[1:]
    numbers = ops.arange(beams, dtype="int32")
    return ops.reshape(
        ops.expand_dims(lineage, -1) == numbers, (-1, beams, steps * beams)
    )


def by_beam(bias, beams):
    """From a bias of each step, `(..., L)`, to one of each in a cache, `(..., LK)`."""
    return None if bias is None else ops.repeat(bias, beams, axis=-1)
