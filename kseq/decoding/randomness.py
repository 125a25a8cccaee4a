"""Random numbers as functions of a seed, a row, a draw and a step.

There is no state between steps. So the numbers are the same on every backend, with any
batch size, compiled or not.

Axes in shape comments: B batch, K draws.
"""

import random

from keras import ops

from kseq.typing import Tensor

# Constants of the hash "lowbias32" and the golden ratio, as signed 32-bit integers.
FIRST_FACTOR, SECOND_FACTOR = 0x7FEB352D, 0x846CA68B - 2**32
GOLDEN_RATIO = 0x9E3779B9 - 2**32


def row_seeds(seed: int | None, num_rows: int | Tensor) -> Tensor:
    """Return different seeds of rows, `(B,)`. Without a seed, each call differs."""
    seed = random.getrandbits(32) if seed is None else seed
    first = ((seed & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
    return seeds_of_rows(ops.convert_to_tensor(first, "int32"), num_rows)


def seeds_of_rows(seed: Tensor, num_rows: int | Tensor) -> Tensor:
    """Return different seeds of rows, `(B,)`, from a tensor of 32-bit integers."""
    return mix(ops.arange(num_rows, dtype="int32") + mix(seed))


def uniform(seeds: Tensor, num_draws: int, step: Tensor) -> Tensor:
    """Return random numbers in [0, 1) for a step, `(B, K)`, of 24 bits each."""
    draws = ops.arange(num_draws, dtype="int32") * GOLDEN_RATIO  # K
    streams = mix(seeds[:, None] + draws)  # B K
    bits = mix(streams + mix(ops.cast(step, "int32") + 1))
    return ops.cast(shifted(bits, 8), "float32") * 2.0**-24


def uniforms(
    seeds: Tensor, num_draws: int, step: Tensor, count: int, first_draw: Tensor
) -> Tensor:
    """Return several random numbers in [0, 1) for a step: `(B, K, count)`.

    Args:
        seeds: Seeds of rows, `(B,)`.
        num_draws: Number of draws K.
        step: Number of the step.
        count: Number of random numbers for each draw.
        first_draw: Number of the first draw among all draws of its row, integers
            `(B,)`.
    """
    draws = first_draw[:, None] + ops.arange(num_draws, dtype="int32")  # B K
    streams = mix(seeds[:, None] + draws * GOLDEN_RATIO)[..., None]  # B K 1
    places = ops.cast(step, "int32") * count + ops.arange(count, dtype="int32") + 1
    return ops.cast(shifted(mix(streams + mix(places)), 8), "float32") * 2.0**-24


def mix(x: Tensor) -> Tensor:
    """Hash 32-bit integers by a bijection in which each bit depends on all bits.

    The integers are signed, since PyTorch cannot multiply unsigned ones. Products wrap
    around, and `shifted` removes the copies of the sign bit.
    """
    x = ops.bitwise_xor(x, shifted(x, 16)) * FIRST_FACTOR
    x = ops.bitwise_xor(x, shifted(x, 15)) * SECOND_FACTOR
    return ops.bitwise_xor(x, shifted(x, 16))


def shifted(x: Tensor, bits: int) -> Tensor:
    """Shift right without copies of the sign bit."""
    return ops.bitwise_and(ops.right_shift(x, bits), 2 ** (32 - bits) - 1)
