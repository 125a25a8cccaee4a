"""How long a target may become, by the length of its source."""

import dataclasses
import math

from kseq.decoding.validation import number


@dataclasses.dataclass(frozen=True)
class RelativeLength:
    """A greatest length that grows with the source: `factor * S + extra`, cut down.

    `model.generate` takes it, or any other function of the number of source steps, as
    its `max_length`. S is the number of steps of each source without padding, so a row
    is cut off at the same place whatever stands beside it in a batch.

    Args:
        factor: Tokens for each step of the source.
        extra: Tokens besides, for a source of any length.

    Call arguments:
        source_length: Integer S, the number of steps of a source.

    Returns:
        The most tokens to write, an integer of at least 1, the end token counted.

    Raises:
        ValueError: A number is negative, or both are 0.

    Example:

    >>> from kseq.decoding import RelativeLength
    >>> longest = RelativeLength(factor=1.5, extra=4)
    >>> longest(6), longest(7), longest(0)
    (13, 14, 4)

    References:
        - [Ott et al., 2019](https://arxiv.org/abs/1904.01038): fairseq's
          `--max-len-a` and `--max-len-b`
    """

    factor: float = 1.0
    extra: float = 50

    def __post_init__(self):
        for name in ("factor", "extra"):
            what = "a number of at least 0"
            number(name, getattr(self, name), what, lambda x: x >= 0)
        if not self.factor and not self.extra:
            raise ValueError(
                "`factor` and `extra` must not both be 0, for then nothing may be "
                f"written. Received: {self!r}."
            )

    def __call__(self, source_length):
        return max(math.floor(self.factor * source_length + self.extra), 1)
