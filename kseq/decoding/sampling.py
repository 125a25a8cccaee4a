"""Sampling: sequences drawn at random from what the model finds probable.

Axes in shape comments: B batch, K draws, C candidates, V vocabulary.
"""

import dataclasses

from keras import ops

from kseq.decoding.guidance import Guidance
from kseq.decoding.loop import best_first, chosen
from kseq.decoding.search import Search
from kseq.decoding.truncation import draw, truncated
from kseq.decoding.validation import is_integer, number, positive_integer


@dataclasses.dataclass(frozen=True)
class Sampling(Search):
    """Draws each token at random from the distribution of the model.

    The probabilities, after the constraints, are raised to the power of
    `1 / temperature`. Of the result, each of the following rules that is given keeps
    a part, in this order, and the token is drawn from what is left:

    - `top_k`: the k most probable tokens,
    - `top_p`: the fewest most probable tokens whose probabilities sum up to p,
    - `min_p`: the tokens with at least this share of the greatest probability,
    - `typical_p`: the fewest tokens whose probabilities sum up to p, those first whose
      information `-log p` is nearest to the entropy.

    Draws of a row are independent and may be the same. A number is a function of the
    seed, the row's number, the draw's number and the step. So the same seed gives the
    same draws, compiled or not, with more draws beside them, and for `model.generate`
    with any `batch_size` and with more rows behind. Rounding apart, they are the same
    on every backend.

    Args:
        temperature: Below 1 probable tokens become more probable; above, less.
        top_k: Positive integer, or None for all tokens.
        top_p: Number in (0, 1], or None.
        min_p: Number in [0, 1], or None.
        typical_p: Number in (0, 1], or None.
        num_draws: Number of sequences K to draw for each row.
        seed: Integer, of which 32 bits count. With None every call draws anew,
            following Python's `random`, which `keras.utils.set_random_seed` seeds. If
            you compile a call yourself, give a seed, or `row_seeds`.
        constraints: Constraints on what may be written, in their order.
        guidance: As for `GreedySearch`.

    Call arguments: those of `Search`.

    Returns:
        A `Generation` with N = K hypotheses for each row, the most probable first. Its
        log-probabilities are the model's, whatever the temperature.

    Raises:
        ValueError: A number is out of its range.

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
    constraints: tuple = ()
    guidance: Guidance | None = None
    is_random = True

    def __post_init__(self):
        if not isinstance(self.temperature, bool) and self.temperature == 0:
            raise ValueError(
                "`temperature` must be a positive number. Received: temperature=0. The "
                "most probable token always is what `GreedySearch()` writes."
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
    def num_beams(self):
        return self.num_draws

    @property
    def num_groups(self):  # each is open from the beginning
        return self.num_draws

    @property
    def can_stream(self):
        return self.num_draws == 1

    def select(self, gains, hypotheses):
        token_ids = self._draw(gains, hypotheses.random_numbers())  # B K
        gained = chosen(gains, None, token_ids)
        gained = ops.where(hypotheses.finished, 0.0, gained)
        return None, token_ids, {"scores": hypotheses.scores + gained}

    def finish(self, loop, written):
        result = loop.result(written)
        return best_first(result, result.log_probs, self.num_draws)

    def _draw(self, gains, numbers):
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
