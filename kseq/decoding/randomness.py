"""Random numbers that are functions of a seed, a row, a draw and a step.

Nothing is carried from step to step, so compiled or not, in a large batch or a small
one, and on every backend, the numbers are the same.

Axes in shape comments: B batch, K draws.
"""

import random

from keras import ops

# Those of the hash "lowbias32" and of the golden ratio, as signed 32-bit integers.
FIRST_FACTOR, SECOND_FACTOR = 0x7FEB352D, 0x846CA68B - 2**32
GOLDEN_RATIO = 0x9E3779B9 - 2**32


def row_seeds(seed, num_rows):
    """Seeds `(B,)` of rows, all different; with no seed other ones at every call."""
    seed = random.getrandbits(32) if seed is None else seed
    first = ((seed & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
    return seeds_of_rows(ops.convert_to_tensor(first, "int32"), num_rows)


def seeds_of_rows(seed, num_rows):
    """The same from a seed that is a tensor of 32-bit integers."""
    return mix(ops.arange(num_rows, dtype="int32") + mix(seed))


def uniform(seeds, num_draws, step):
    """Numbers in [0, 1) for a step, `(B, K)`, of 24 bits each."""
    draws = ops.arange(num_draws, dtype="int32") * GOLDEN_RATIO  # K
    streams = mix(seeds[:, None] + draws)  # B K
    bits = mix(streams + mix(ops.cast(step, "int32") + 1))
    return ops.cast(shifted(bits, 8), "float32") * 2.0**-24


def uniforms(seeds, num_draws, step, count, first_draw):
    """So many numbers in [0, 1) for a step of each draw: `(B, K, count)`.

    Args:
        seeds: Seeds of rows, `(B,)`.
        num_draws: Number of draws K.
        step: Number of the step.
        count: How many numbers.
        first_draw: Which of all draws of a row the first one is, integers `(B,)`.
    """
    draws = first_draw[:, None] + ops.arange(num_draws, dtype="int32")  # B K
    streams = mix(seeds[:, None] + draws * GOLDEN_RATIO)[..., None]  # B K 1
    places = ops.cast(step, "int32") * count + ops.arange(count, dtype="int32") + 1
    return ops.cast(shifted(mix(streams + mix(places)), 8), "float32") * 2.0**-24


def mix(x):
    """A bijection of 32-bit integers in which each bit depends on all.

    Signed integers, since PyTorch multiplies no others: a product wraps around, and of
    a shift the bits that come in are cut off.
    """
    x = ops.bitwise_xor(x, shifted(x, 16)) * FIRST_FACTOR
    x = ops.bitwise_xor(x, shifted(x, 15)) * SECOND_FACTOR
    return ops.bitwise_xor(x, shifted(x, 16))


def shifted(x, bits):
    """The upper bits, without copies of the sign above them."""
    return ops.bitwise_and(ops.right_shift(x, bits), 2 ** (32 - bits) - 1)
