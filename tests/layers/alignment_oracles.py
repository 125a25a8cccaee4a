"""Attention that depends on earlier alignments, as loops over one row from the papers.

Axes in shape comments: T query steps, S key steps, D features.
"""

import numpy as np

from kseq.layers import CoverageAttention, LocationAwareAttention, MonotonicAttention
from tests.helpers import array, sigmoid


def read_all(attention, queries, keys, values):
    """Return the contexts `(T, D)` and the weights `(T, S)` of all steps."""
    alignment, results = start(attention, len(keys)), []
    for query in queries:
        *result, alignment = read(attention, query, keys, values, alignment)
        results.append(result)
    return [np.array(parts) for parts in zip(*results, strict=True)]


def start(attention, steps):
    """Return the alignment before the first step, `(S,)`."""
    if isinstance(attention, MonotonicAttention):
        return np.array([1.0] + [0.0] * (steps - 1))
    return np.zeros(steps)


def read(attention, query, keys, values, alignment):
    """Return the context `(D,)`, the weights `(S,)` and the next alignment `(S,)`."""
    if isinstance(attention, MonotonicAttention):
        weights = monotonic(attention, scores_of(attention, query, keys), alignment)
        return weights @ values, weights, weights
    scores = scores_of(attention, query, keys, alignment)
    exponentials = np.exp(scores - scores.max())
    weights = exponentials / exponentials.sum()
    is_last = isinstance(attention, LocationAwareAttention) and not attention.cumulative
    return weights @ values, weights, weights if is_last else alignment + weights


def scores_of(attention, query, keys, alignment=None):
    """Return the scores `(S,)` of a query `(D,)`."""
    kernels = {weight.name: array(weight) for weight in attention.weights}
    scores = []
    for s, key in enumerate(keys):
        hidden = query @ kernels["query_kernel"] + key @ kernels["key_kernel"]
        hidden = hidden + kernels["bias"]
        if isinstance(attention, CoverageAttention):  # See et al., eq. 11
            hidden = hidden + alignment[s] * kernels["coverage_kernel"][0]
        if isinstance(attention, LocationAwareAttention):  # Chorowski et al., eq. 8, 9
            filters, features = kernels["filter_kernel"], 0
            for w, row in enumerate(filters):
                place = s + w - len(filters) // 2
                if 0 <= place < len(keys):
                    features = features + row * alignment[place]
            hidden = hidden + features @ kernels["location_kernel"]
        scores.append(np.tanh(hidden) @ kernels["score_kernel"][:, 0])
    return np.array(scores)


def monotonic(attention, scores, alignment):
    """Return the weights of Raffel et al.: soft by eq. 9, hard by algorithm 1."""
    kernels = {weight.name: array(weight) for weight in attention.weights}
    norm = np.linalg.norm(kernels["score_kernel"])
    scores = kernels["score_scale"] / norm * scores + kernels["score_offset"]
    probabilities, weights = sigmoid(scores), np.zeros(len(scores))
    if attention.mode == "soft":
        for j, p in enumerate(probabilities):
            for k in range(j + 1):
                passed = np.prod(1 - probabilities[k:j])
                weights[j] += p * alignment[k] * passed
    else:
        for j in range(len(scores)):
            if alignment[: j + 1].any() and probabilities[j] > 0.5:
                weights[j] = 1
                break
    return weights
