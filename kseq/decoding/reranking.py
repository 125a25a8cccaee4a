"""Reranking: which of the hypotheses of a search to take.

Axes in shape comments: B batch, N hypotheses.
"""

import dataclasses
import math

from keras import ops

from kseq.decoding.validation import positive_integer


def best_of(generation, scores, n=1):
    """Return the hypotheses that someone else scores best, best first.

    Whatever knows more than the model that wrote can choose among its hypotheses:
    another model, a matcher of texts and pictures, or what the hypotheses have in
    common (`expected_utility`).

    Args:
        generation: A `Generation` of NumPy arrays, or tensors; or the `Drawings` of
            `kseq.text_to_image`.
        scores: Numbers `(B, N)`, one for each hypothesis, the higher the better; or a
            function of the generation that returns them.
        n: Number of hypotheses to keep of each row, at most N.

    Returns:
        The same of NumPy arrays, with `n` hypotheses in each row. Equal scores
        leave the order as it was. Hypotheses that could not be formed stay last,
        whatever their scores.

    Raises:
        ValueError: `generation` is no result of a search, there is not a score for each
            hypothesis, a score of one that was formed is NaN, or `n` is not an integer
            from 1 to N.

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
            "`generation` must be what a search has found. Received: generation of "
            f"type {type(generation).__name__}. Take what `model.generate(...)`, or "
            "`model.draw(...)`, returns."
        )
    scores = scores(generation) if callable(scores) else scores
    scores = ops.convert_to_numpy(scores).astype("float64")
    is_missing = ~formed(generation)  # B N
    if scores.shape != is_missing.shape:
        raise ValueError(
            "`scores` must be a number for each hypothesis, shape (B, N) = "
            f"{is_missing.shape}. Received: scores of shape {scores.shape}."
        )
    if (scores != scores)[~is_missing].any():
        raise ValueError(
            "`scores` must be numbers. Received: NaN for a hypothesis that was formed."
        )
    if positive_integer("n", n) > scores.shape[1]:
        raise ValueError(
            f"`n` must be at most the number of hypotheses. Received: n={n} with "
            f"{scores.shape[1]} hypotheses. Search for more."
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


def expected_utility(generation, utility, by_probability=False, decode=None):
    """Return the agreement of each hypothesis with the others: minimum Bayes risk.

    `sum_j w_j utility(h_i, h_j)` over the other hypotheses `j`, with weights that sum
    to 1. `best_of(generation, ...)` of it takes the hypothesis that would lose least if
    any of the others was the truth.

    Args:
        generation: A `Generation` of NumPy arrays, or tensors.
        utility: Function of a hypothesis and a reference, both lists of token ids
            without what stands behind the end, or what `decode` makes of them, that
            returns a number: how good the one is if the other is right. Any metric
            of which more is better is one.
        by_probability: Whether a hypothesis weighs as much as it is probable, as it
            should where a beam search found it. What was sampled weighs the same.
        decode: Function of a list of lists of token ids that returns what the
            utility compares, such as `decode` of a vocabulary, for a utility of
            texts. None for the ids.

    Returns:
        Numbers `(B, N)`, minus infinity for a hypothesis that could not be formed, and
        0 where there is no other.

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

    The same of texts, by any metric of two strings:

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
    scores = []
    for is_formed, ids, sizes, logs in zip(
        formed(generation).tolist(), token_ids, lengths, log_probs, strict=True
    ):
        texts = [row[:size] for row, size in zip(ids, sizes, strict=True)]
        texts = texts if decode is None else decode(texts)
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


def formed(generation):
    """Tell which hypotheses could be formed: booleans `(B, N)`."""
    is_formed = ops.convert_to_numpy(generation.log_probs) > -math.inf
    lengths = getattr(generation, "lengths", None)
    if lengths is None:  # all have one length
        return is_formed
    return is_formed & (ops.convert_to_numpy(lengths) > 0)
