"""Maximum length of a target, from the length of its source."""

import dataclasses
import math

from kseq.decoding.validation import number


@dataclasses.dataclass(frozen=True)
class RelativeLength:
    """Maximum length that grows with the source: `floor(factor * S + extra)`.

    Pass it, or any other function of the number of source steps, to `model.generate` as
    `max_length`. S is the number of source steps without padding, so the limit of an
    example does not depend on the rest of its batch.

    Args:
        factor: Number of tokens for each source step.
        extra: Number of tokens added for every source.

    Call arguments:
        source_length: Integer S, the number of steps of a source.

    Returns:
        The maximum number of tokens to generate, including the end token: an integer
        of at least 1.

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

    def __post_init__(self) -> None:
        for name in ("factor", "extra"):
            what = "a non-negative number"
            number(name, getattr(self, name), what, lambda x: x >= 0)
        if not self.factor and not self.extra:
            raise ValueError(
                "`factor` and `extra` must not both be 0, since no token could then be "
                f"generated. Received: {self!r}."
            )

    def __call__(self, source_length: int) -> int:
        return max(math.floor(self.factor * source_length + self.extra), 1)
