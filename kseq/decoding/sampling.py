"""Sampling: random sequences from the model's distribution.

Axes in shape comments: B batch, K draws, C candidates, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence

from keras import ops

from kseq.decoding.constraints import Constraint
from kseq.decoding.generation import Generation
from kseq.decoding.guidance import Guidance
from kseq.decoding.hypotheses import Hypotheses
from kseq.decoding.loop import SearchLoop, Selection, best_first, chosen
from kseq.decoding.search import Search
from kseq.decoding.truncation import draw, truncated
from kseq.decoding.validation import is_integer, number, positive_integer
from kseq.typing import Tensor


@dataclasses.dataclass(frozen=True)
class Sampling(Search):
    """Sampling of each token from the distribution of the model.

    The probabilities, after the constraints, are raised to the power of
    `1 / temperature`. Then the following rules, if set, truncate the distribution in
    this order, and the token is sampled from the rest:

    - `top_k` keeps the k most probable tokens.
    - `top_p` keeps the fewest most probable tokens whose probabilities sum to p.
    - `min_p` keeps the tokens with at least this fraction of the highest probability.
    - `typical_p` keeps the fewest tokens whose probabilities sum to p, starting with
      those whose information `-log p` is nearest to the entropy.

    The draws of an example are independent and may be equal. The random numbers depend
    only on the seed, the number of the row, the number of the draw, and the step. So
    the same seed gives the same draws, compiled or not. More draws, another
    `batch_size` of `model.generate`, or more sources at the end do not change them.
    Apart from rounding, they are the same on every backend.

    Args:
        temperature: A positive number. Below 1, probable tokens become more probable;
            above 1, less.
        top_k: Positive integer, or None for all tokens.
        top_p: Number in (0, 1], or None.
        min_p: Number in [0, 1], or None.
        typical_p: Number in (0, 1], or None.
        num_draws: Number of sequences K to sample for each example.
        seed: Integer, of which 32 bits are used. With None, each call draws new numbers
            from Python's `random`, which `keras.utils.set_random_seed` seeds. If you
            compile a call yourself, pass a seed or `row_seeds`.
        constraints: Constraints on the generated tokens, applied in this order.
        guidance: As for `GreedySearch`.

    Call arguments: those of `Search`.

    Returns:
        A `Generation` with N = K hypotheses for each example, most probable first. Its
        log-probabilities are those of the model, without the temperature.

    Raises:
        ValueError: A number is out of range.

    Example:

    >>> import keras, numpy as np
    >>> from kseq.decoding import Sampling
    >>> table = np.log([[.1, .2, .4, .3]] * 4)
    >>> def step(token_ids, state, constants):
    ...     return keras.ops.take(table, token_ids, axis=0), state
    >>> search = Sampling(top_p=.6, num_draws=3, seed=5)
    >>> result = search(step, (), (), [0], end_token_id=1, max_length=4)
    >>> tokens = np.array(result.token_ids)[0]
    >>> sorted(set(tokens.ravel().tolist()))
    [2, 3]
    >>> again = search(step, (), (), [0], end_token_id=1, max_length=4)
    >>> bool((np.array(again.token_ids)[0] == tokens).all())
    True

    References:
        - [Fan et al., 2018](https://arxiv.org/abs/1805.04833), 5.4 (top-k)
        - [Holtzman et al., 2020](https://arxiv.org/abs/1904.09751), 3.1 (top-p)
        - [Nguyen et al., 2024](https://arxiv.org/abs/2407.01082), 3 (min-p)
        - [Meister et al., 2023](https://arxiv.org/abs/2202.00666) (typical)
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    num_draws: int = 1
    seed: int | None = None
    constraints: Sequence[Constraint] = ()
    guidance: Guidance | float | None = None
    is_random = True

    def __post_init__(self) -> None:
        if not isinstance(self.temperature, bool) and self.temperature == 0:
            raise ValueError(
                "`temperature` must be a positive number. Received: temperature=0. To "
                "always take the most probable token, use `GreedySearch()`."
            )
        number("temperature", self.temperature, "a positive number", lambda x: x > 0)
        if self.top_k is not None:
            positive_integer("top_k", self.top_k)
        for name in ("top_p", "typical_p"):
            if getattr(self, name) is not None:
                what = "a number above 0, up to 1, or None"
                number(name, getattr(self, name), what, lambda x: 0 < x <= 1)
        if self.min_p is not None:
            what = "a number from 0 to 1, or None"
            number("min_p", self.min_p, what, lambda x: 0 <= x <= 1)
        positive_integer("num_draws", self.num_draws)
        if self.seed is not None and not is_integer(self.seed):
            raise ValueError(
                f"`seed` must be an integer or None. Received: seed={self.seed!r}."
            )
        super().__post_init__()

    @property
    def num_beams(self) -> int:
        """Number of draws."""
        return self.num_draws

    @property
    def num_groups(self) -> int:
        """Number of draws, so that each draw is open from the beginning."""
        return self.num_draws

    @property
    def can_stream(self) -> bool:
        """True for a single draw."""
        return self.num_draws == 1

    def select(self, gains: Tensor, hypotheses: Hypotheses) -> Selection:
        token_ids = self._draw(gains, hypotheses.random_numbers())  # B K
        gained = chosen(gains, None, token_ids)
        gained = ops.where(hypotheses.finished, 0.0, gained)
        return None, token_ids, {"scores": hypotheses.scores + gained}

    def finish(self, loop: SearchLoop, written: dict[str, Tensor]) -> Generation:
        result = loop.result(written)
        return best_first(result, result.log_probs, self.num_draws)

    def _draw(self, gains: Tensor, numbers: Tensor) -> Tensor:
        shares = {"top_p": self.top_p, "typical_p": self.typical_p}
        shares = {name: share for name, share in shares.items() if share != 1}
        log_probs, token_ids = truncated(
            gains / self.temperature, self.top_k, min_p=self.min_p, **shares
        )
        places = draw(log_probs, numbers)  # B K
        if token_ids is None:
            return places
        token_ids = ops.take_along_axis(token_ids, places[..., None], axis=-1)
        return ops.cast(token_ids[..., 0], "int32")
