"""Reranking of the hypotheses of a search by other scores.

Axes in shape comments: B batch, N hypotheses.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from keras import ops

from kseq.decoding.generation import Generation
from kseq.decoding.validation import positive_integer
from kseq.typing import TensorLike

if TYPE_CHECKING:
    import numpy as np
    from _typeshed import DataclassInstance

Result = TypeVar("Result", bound="DataclassInstance")  # a `Generation`, or `Drawings`


def best_of(
    generation: Result, scores: TensorLike | Callable[[Result], TensorLike], n: int = 1
) -> Result:
    """Return the hypotheses with the best scores, best first.

    The scores may come from another model, from a text and image matcher, or from the
    agreement of the hypotheses with each other (`expected_utility`).

    Args:
        generation: A `Generation` of NumPy arrays or tensors, or the `Drawings` of
            `kseq.text_to_image`.
        scores: Numbers `(B, N)`, one for each hypothesis, higher is better; or a
            function of the generation that returns them.
        n: Number of hypotheses to keep for each example, at most N.

    Returns:
        The same type with NumPy arrays and `n` hypotheses for each example. Hypotheses
        with equal scores keep their order. Missing hypotheses stay last, whatever
        their scores.

    Raises:
        ValueError: `generation` is not the result of a search, the scores are not one
            for each hypothesis, the score of an existing hypothesis is NaN, or `n` is
            not an integer from 1 to N.

    Example:

    >>> import kseq
    >>> model = kseq.encoder_decoder(source=11, target=13, width=8)
    >>> search = kseq.decoding.Sampling(num_draws=5, seed=1)
    >>> drawn = model.generate([[4, 5, 6]], search, max_length=4)
    >>> longest = kseq.decoding.best_of(drawn, drawn.lengths, n=2)
    >>> longest.token_ids.shape
    (1, 2, 4)
    >>> bool(longest.lengths[0, 0] == drawn.lengths.max())
    True
    """
    if not dataclasses.is_dataclass(generation):
        raise ValueError(
            "`generation` must be the result of a search. Received: generation of "
            f"type {type(generation).__name__}. Pass the result of "
            "`model.generate(...)` or `model.draw(...)`."
        )
    scores = scores(generation) if callable(scores) else scores
    scores = ops.convert_to_numpy(scores).astype("float64")
    is_missing = ~formed(generation)  # B N
    if scores.shape != is_missing.shape:
        raise ValueError(
            "`scores` must have one number for each hypothesis, shape (B, N) = "
            f"{is_missing.shape}. Received: scores of shape {scores.shape}."
        )
    if (scores != scores)[~is_missing].any():
        raise ValueError(
            "`scores` must be numbers. Received: NaN for a hypothesis that exists."
        )
    if positive_integer("n", n) > scores.shape[1]:
        raise ValueError(
            f"`n` must be at most the number of hypotheses. Received: n={n} with "
            f"{scores.shape[1]} hypotheses. Use a search that returns more."
        )
    rows = ops.convert_to_numpy(ops.arange(len(scores), dtype="int32"))[:, None]  # B 1
    order = (-scores).argsort(axis=1, kind="stable")  # B N
    formed_first = is_missing[rows, order].argsort(axis=1, kind="stable")
    order = order[rows, formed_first][:, :n]

    def chosen(array):
        return None if array is None else ops.convert_to_numpy(array)[rows, order]

    fields = dataclasses.fields(generation)
    return dataclasses.replace(
        generation, **{f.name: chosen(getattr(generation, f.name)) for f in fields}
    )


def expected_utility(
    generation: Generation,
    utility: Callable[[Any, Any], float],
    by_probability: bool = False,
    decode: Callable[[list[list[int]]], Sequence[Any]] | None = None,
) -> "np.ndarray":
    """Return the agreement of each hypothesis with the others: minimum Bayes risk.

    The value of hypothesis `i` is `sum_j w_j utility(h_i, h_j)` over the other
    hypotheses `j`, with weights that sum to 1. Passed to `best_of` as scores, it
    selects the hypothesis with the lowest expected loss if one of the others is right.

    Args:
        generation: A `Generation` of NumPy arrays or tensors.
        utility: Function of a hypothesis and a reference that returns the quality of
            the hypothesis, a number, higher is better. Both are lists of token ids
            without padding, or the results of `decode`. Any metric for which higher is
            better can be used.
        by_probability: Whether to weight hypotheses by their probability. Use True for
            the results of a beam search. Samples should have equal weights.
        decode: Function from a list of lists of token ids to a list of texts, such as
            `decode` of a vocabulary, if the utility compares texts. None to compare
            token ids.

    Returns:
        Numbers `(B, N)`: minus infinity for a missing hypothesis, and 0 for the only
        hypothesis of an example.

    Example:

    >>> import kseq
    >>> model = kseq.encoder_decoder(source=11, target=13, width=8)
    >>> search = kseq.decoding.Sampling(num_draws=5, seed=1)
    >>> drawn = model.generate([[4, 5, 6]], search, max_length=4)
    >>> def shared_tokens(hypothesis, reference):
    ...     return len(set(hypothesis) & set(reference))
    >>> agreement = kseq.decoding.expected_utility(drawn, shared_tokens)
    >>> kseq.decoding.best_of(drawn, agreement).token_ids.shape
    (1, 1, 4)

    The same for texts, with any metric of two strings:

    >>> import difflib
    >>> letters = kseq.text.Vocabulary("character").adapt(["abcdefghi"])
    >>> def overlap(hypothesis, reference):
    ...     return difflib.SequenceMatcher(None, hypothesis, reference).ratio()
    >>> agreement = kseq.decoding.expected_utility(
    ...     drawn, overlap, decode=letters.decode)
    >>> best = kseq.decoding.best_of(drawn, agreement)
    >>> [text] = letters.decode(best.token_ids[:, 0])

    References:
        - [Kumar and Byrne, 2004](https://aclanthology.org/N04-1022/), 2
        - [Eikema and Aziz, 2020](https://arxiv.org/abs/2005.10283), 6 (samples)
    """
    token_ids, lengths, log_probs = (
        ops.convert_to_numpy(x).tolist()
        for x in (generation.token_ids, generation.lengths, generation.log_probs)
    )
    scores: list[list[float]] = []
    for is_formed, ids, sizes, logs in zip(
        formed(generation).tolist(), token_ids, lengths, log_probs, strict=True
    ):
        trimmed = [row[:size] for row, size in zip(ids, sizes, strict=True)]
        texts = trimmed if decode is None else decode(trimmed)
        there = [i for i, is_there in enumerate(is_formed) if is_there]
        scores.append([-math.inf] * len(texts))
        for i in there:
            others = [j for j in there if j != i]
            best = max((logs[j] for j in others), default=0.0)
            weights = [math.exp(logs[j] - best) for j in others]
            if not by_probability:
                weights = [1.0] * len(others)
            utilities = [utility(texts[i], texts[j]) for j in others]
            total = sum(w * u for w, u in zip(weights, utilities, strict=True))
            scores[-1][i] = total / sum(weights) if others else 0.0
    return ops.convert_to_numpy(scores)


def formed(generation: Any) -> "np.ndarray":
    """Return a mask of the hypotheses that exist: booleans `(B, N)`."""
    is_formed = ops.convert_to_numpy(generation.log_probs) > -math.inf
    lengths = getattr(generation, "lengths", None)
    if lengths is None:  # all have the same length
        return is_formed
    return is_formed & (ops.convert_to_numpy(lengths) > 0)
