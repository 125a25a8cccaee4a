"""Sizes of batches, rounded up so that a compiler sees few shapes."""

LENGTH_MULTIPLE = 8


def rounded_up(length: int, to_power_of_two: bool) -> int:
    """Round a length up to a multiple of `LENGTH_MULTIPLE`, or to a power of two."""
    length = -(-max(length, 1) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
    return 1 << (length - 1).bit_length() if to_power_of_two else length


def rows_to_add(count: int, most: int) -> int:
    """Return how many rows fill `count` up to a power of two, or to `most` if less."""
    return min(1 << (count - 1).bit_length(), most) - count
