"""Key-value cache of multi-head attention, for decoding one step at a time.

Axes in shape comments: B batch, S prefix steps, K beams, L cached steps, D features,
H heads, N key heads, G query heads to each key head, C size of a head.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from keras import ops

from kseq.layers import backends
from kseq.layers.backends import put
from kseq.layers.positions import prefix_positions
from kseq.layers.transformer.products import join, scores_of, sum_by_weights
from kseq.typing import Tensor

if TYPE_CHECKING:
    from kseq.layers.transformer.multi_head_attention import MultiHeadAttention

# Lists of blocks by the names "keys" and "values".
Cache: TypeAlias = dict[str, list[Tensor]]

# A cache is cut into blocks, and blocks without a written step are not read. A block
# has at least this many steps. With more blocks than this maximum, compilation takes
# longer than they save.
STEPS_OF_BLOCK, MOST_BLOCKS = 64, 8


def start_cache(
    attention: "MultiHeadAttention",
    num_rows: Tensor | int,
    num_beams: int,
    max_length: int,
) -> Cache:
    """Return an empty cache, in blocks, for L = `max_length` steps, B rows and K beams.

    LK is one axis, with K beams for each of L steps. Entries are never moved when beams
    are reordered; a `lineage` tells which entries belong to which beam. The steps are
    the last axis of the keys, which makes the product with a few queries several times
    as fast.

    Returns:
        Lists of keys `(B, N, C, LK)` and of values `(B, N, LK, C)`, by name. The L of
        all blocks add up to `max_length`.
    """
    heads, size = attention.key_heads, attention.head_size
    dtype = attention.compute_dtype
    steps = [length * num_beams for length in block_lengths(max_length)]
    return {
        "keys": [ops.zeros((num_rows, heads, size, s), dtype) for s in steps],
        "values": [ops.zeros((num_rows, heads, s, size), dtype) for s in steps],
    }


def block_lengths(max_length: int) -> list[int]:
    """Return the number of steps of each block.

    There is only one block where a graph cannot skip the empty blocks.
    """
    if not backends.available():
        return [max_length]
    length = max(STEPS_OF_BLOCK, -(-max_length // MOST_BLOCKS))
    firsts = range(0, max(max_length, 1), length)
    return [min(length, max_length - first) for first in firsts]


def attend_step(
    attention: "MultiHeadAttention",
    query: Tensor,
    cache: Cache,
    lineage: Tensor,
    positions: Tensor,
    prefix: dict[str, Tensor],
    prefix_mask: Tensor | None = None,
) -> tuple[Tensor, Cache]:
    """Write the newest step of each beam; read the prefix and all steps so far.

    Args:
        attention: The `MultiHeadAttention`.
        query: `(B, K, D)`, the newest step of each beam.
        cache: From `start_cache` or the previous step.
        lineage: Integers `(B, K, L)`: the beam that wrote each step of each hypothesis.
            The newest step is the hypothesis' own; future steps are -1.
        positions: Integers `(B, K)`, the number of the newest step, equal in every row.
        prefix: Keys and values `(B, N, S, C)` before step 0, shared by the beams, or
            empty.
        prefix_mask: Boolean `(B, S)`.

    Returns:
        `(outputs (B, K, D), cache)`.
    """
    queries, cache = write_newest(attention, query, cache, positions)
    beams, steps = lineage.shape[1:]
    newest = positions[0, 0] * beams
    steps = ops.expand_dims(ops.arange(steps, dtype="int32"), 0)  # 1 L
    mask = own_steps(lineage)
    bias = repeat_for_beams(attention.bias_between(positions, steps), beams)
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


def write_newest(
    attention: "MultiHeadAttention", query: Tensor, cache: Cache, positions: Tensor
) -> tuple[Tensor, Cache]:
    """Return queries `(B, K, N, G, C)` of the newest step, and the cache with it."""
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


def put_into_block(
    blocks: list[Tensor], values: Tensor, first: Tensor, axis: int
) -> list[Tensor]:
    """Write values at index `first` of the axis of all blocks; return the new blocks.

    One block holds all of them.
    """
    if len(blocks) == 1:
        return [put(blocks[0], values, first, axis)]
    new, size = [], values.shape[axis]
    for block in blocks:
        length = block.shape[axis]
        place = ops.clip(first, 0, length - size)
        start = backends.slice_start(len(block.shape), axis, place)
        before = ops.slice(block, start, ops.shape(values))
        is_here = (first >= 0) & (first < length)
        new.append(put(block, ops.where(is_here, values, before), place, axis))
        first = first - length
    return new


def read_written(
    read: Callable[[Tensor, slice], Tensor],
    blocks: list[Tensor],
    axis: int,
    newest: Tensor,
) -> list[Tensor]:
    """Return `read(block, places)` of each block, or zeros for an empty block.

    `newest` and `places` are indices along the axis of all blocks together.
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


def _zeros_like_result_of(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    return lambda: ops.zeros_like(run())  # only the shape of `run()` is computed


def own_steps(lineage: Tensor) -> Tensor:
    """Return the mask `(B, K, LK)` of a cache's entries that each beam may read."""
    beams, steps = lineage.shape[1:]
    numbers = ops.arange(beams, dtype="int32")
    return ops.reshape(
        ops.expand_dims(lineage, -1) == numbers, (-1, beams, steps * beams)
    )


def repeat_for_beams(bias: Tensor | None, beams: int) -> Tensor | None:
    """Repeat the bias of each step `(..., L)` for the beams, `(..., LK)`."""
    return None if bias is None else ops.repeat(bias, beams, axis=-1)
