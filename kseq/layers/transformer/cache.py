"""A decoder's cache: what multi-head attention keeps to write one step at a time.

Axes in shape comments: B batch, S prefix steps, K beams, L cached steps, D features,
H heads, N key heads, G query heads to each key head, C size of a head.
"""

import functools

from keras import ops

from kseq.layers import backends
from kseq.layers.backends import put
from kseq.layers.positions import prefix_positions
from kseq.layers.transformer.products import join, scores_of, sum_by_weights

# A cache is cut into blocks of so many steps at least, of which those that nobody has
# written yet are not read; more than so many take longer to compile than they save.
STEPS_OF_BLOCK, MOST_BLOCKS = 64, 8


def start_cache(attention, num_rows, num_beams, max_length):
    """An empty cache for `max_length` steps L of rows B with beams K, in blocks.

    What the beams write at one step stands side by side and stays where it is; a
    `lineage` says whose step belongs to whom; LK is one axis, K beams for each of L
    steps. The steps of the keys are their last axis, which makes the product with a few
    queries several times as fast.

    Returns:
        Lists of keys `(B, N, C, LK)` and of values `(B, N, LK, C)`, by name, whose L
        add up to `max_length`.
    """
    heads, size = attention.key_heads, attention.head_size
    dtype = attention.compute_dtype
    steps = [length * num_beams for length in block_lengths(max_length)]
    return {
        "keys": [ops.zeros((num_rows, heads, size, s), dtype) for s in steps],
        "values": [ops.zeros((num_rows, heads, s, size), dtype) for s in steps],
    }


def block_lengths(max_length):
    """The steps of each block: all in one where a graph cannot leave out the others."""
    if not backends.available():
        return [max_length]
    length = max(STEPS_OF_BLOCK, -(-max_length // MOST_BLOCKS))
    firsts = range(0, max(max_length, 1), length)
    return [min(length, max_length - first) for first in firsts]


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
    beams, steps = lineage.shape[1:]
    newest = positions[0, 0] * beams
    steps = ops.expand_dims(ops.arange(steps, dtype="int32"), 0)  # 1 L
    mask = own_steps(lineage)
    bias = by_beam(attention.bias_between(positions, steps), beams)
    scores = read_written(
        lambda keys, _: scores_of(queries, keys), cache["keys"], 3, newest
    )
    scores = join(scores)

    def read(weights):
        def sum_of(values, places):
            return sum_by_weights(weights[..., places], values)

        first, *others = read_written(sum_of, cache["values"], 2, newest)
        return sum(others, first)

    if not prefix:
        weights = attention.attention_weights(scores, mask, bias)
        return attention.join_heads(read(weights)), cache

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
    context = context + read(weights[..., split:])
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
        "keys": put_into_block(cache["keys"], key, newest, axis=3),
        "values": put_into_block(cache["values"], value, newest, axis=2),
    }


def put_into_block(blocks, values, first, axis):
    """The blocks with these values from step `first` on, which one of them holds."""
    if len(blocks) == 1:
        return [put(blocks[0], values, first, axis)]
    new, size = [], values.shape[axis]
    for block in blocks:
        length = block.shape[axis]
        place = ops.clip(first, 0, length - size)
        start = backends.beginning(len(block.shape), axis, place)
        before = ops.slice(block, start, ops.shape(values))
        is_here = (first >= 0) & (first < length)
        new.append(put(block, ops.where(is_here, values, before), place, axis))
        first = first - length
    return new


def read_written(read, blocks, axis, newest):
    """The results of `read(block, places)`, zeros for a block that is still empty.

    The newest step and the places are counted along the axis of all blocks.
    """
    results, first = [], 0
    for block in blocks:
        places = slice(first, first + block.shape[axis])
        if first == 0:
            results.append(read(block, places))
        else:
            run = functools.partial(read, block, places)
            results.append(ops.cond(newest >= first, run, _zeros_like_result_of(run)))
        first = places.stop
    return results


def _zeros_like_result_of(run):
    return lambda: ops.zeros_like(run())  # of which only the shape is computed


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
