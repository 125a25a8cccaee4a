"""The best paths through a linear chain of labels.

`linear_chain.py` defines a path and its score.

Axes in shape comments: B batch, S steps, K labels of the previous step, L labels,
N paths.
"""

import functools
from collections.abc import Callable

from keras import ops

from kseq.layers.linear_chain import (
    FORBIDDEN,
    Weights,
    all_labels,
    compiled,
    first_steps,
    forward,
    log_sum,
    prepared,
    run,
    without_gradient,
)
from kseq.typing import Tensor


def best_scores(potentials: Tensor, weights: Weights, mask: Tensor) -> Tensor:
    """Return the best score of a path through each label of each step, `(B, S, L)`.

    The highest score of a step is that of the best path. Among equally good paths one
    is chosen, and the labels of the others score slightly less. Masked steps have 0.
    """
    return without_gradient(_best_scores, potentials, weights, mask)


def best_paths(
    potentials: Tensor,
    weights: Weights,
    mask: Tensor,
    num_paths: int,
) -> tuple[Tensor, Tensor]:
    """Return the best paths, `(B, N, S)`, and their log-probabilities, `(B, N)`.

    The log-probability is minus infinity where there are fewer than N paths.
    """
    steps = ops.shape(potentials)[1]
    potentials, mask = prepared(potentials, mask)
    tensors = [ops.stop_gradient(x) for x in (potentials, *weights)]
    find = compiled(_best_paths(num_paths), potentials.shape[-1])
    labels, log_probs = find(mask, *tensors)
    return labels[:, :, :steps], log_probs


def _best_scores(
    mask: Tensor, potentials: Tensor, transitions: Tensor, starts: Tensor, ends: Tensor
) -> Tensor:
    weights = transitions, starts, ends
    last, (_, arrived, shift) = forward(highest, potentials, weights, mask)
    best = ops.sum(shift, axis=1) + ops.max(last + ends, axis=1)  # B
    nothing = ops.zeros_like(last)
    to_label = ops.transpose(transitions)  # L K

    def step(carried, at_step):
        behind, onward = carried  # best scores of the rest; into the best path
        potential, arrived, is_real = at_step
        here = arrived + potential  # B L
        scores = here + behind
        scores = scores - ops.max(scores, axis=1, keepdims=True)
        label = first_highest(here + onward)  # B
        ahead = ops.expand_dims(potential + behind, 1) + transitions  # B K L
        ahead = ops.max(ahead, axis=2)
        ahead = ahead - ops.max(ahead, axis=1, keepdims=True)
        is_real = ops.expand_dims(is_real, 1)
        behind = ops.where(is_real, ahead, behind)
        onward = ops.where(is_real, ops.take(to_label, label, axis=0), onward)
        return [behind, onward], [scores, label]

    carried = [nothing + ends, nothing + ends]
    outputs = [nothing, ops.cast(nothing[:, 0], "int32")]
    sequences = [potentials, arrived, mask]
    _, (scores, path) = run(step, carried, sequences, outputs, mask, reverse=True)
    best = ops.reshape(best, (-1, 1, 1))
    is_path = ops.expand_dims(path, -1) == all_labels(potentials)  # B S L
    less = 1e-6 * (1.0 + ops.abs(best))  # a difference that float32 can represent
    scores = best + ops.where(is_path, 0.0, ops.minimum(scores, -less))
    return ops.where(ops.expand_dims(mask, -1), scores, 0.0)


def highest(scores: Tensor) -> Tensor:
    """Return the highest over K of scores `(B, K, L)`."""
    return ops.max(scores, axis=1)


def first_highest(scores: Tensor) -> Tensor:
    """Return the first index of the highest of `(B, L)`.

    TensorFlow's `argmax` cannot be exported to other engines.
    """
    is_highest = scores == ops.max(scores, axis=1, keepdims=True)
    places = ops.where(is_highest, all_labels(scores), scores.shape[-1] - 1)
    return ops.min(places, axis=1)


@functools.cache
def _best_paths(num_paths: int) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return a function that finds the N best paths.

    It keeps the N best paths to each label of a step. At the end it takes the N best of
    them all.
    """

    def find(mask, potentials, transitions, starts, ends):
        size, is_first = potentials.shape[-1], first_steps(mask)
        batch = ops.shape(potentials)[0]
        to_label = ops.expand_dims(ops.transpose(transitions), -1)  # L K 1
        begun = first_of_each(starts, num_paths)  # 1 L N

        def step(carried, at_step):
            [scores] = carried  # B K N
            potential, is_real, is_first = at_step
            ways = ops.expand_dims(scores, 1) + to_label  # B L K N
            ways = ops.reshape(ways, (-1, size, size * num_paths))
            arrived, places = ops.top_k(ways, num_paths)  # B L N
            arrived = ops.where(ops.reshape(is_first, (-1, 1, 1)), begun, arrived)
            after = arrived + ops.expand_dims(potential, -1)
            shift = ops.max(after, axis=(1, 2))  # B
            after = after - ops.reshape(shift, (-1, 1, 1))
            scores = ops.where(ops.reshape(is_real, (-1, 1, 1)), after, scores)
            places = ops.cast(places, "int32")
            return [scores], [places, ops.where(is_real, shift, 0.0)]

        nothing = ops.zeros((batch, size, num_paths), potentials.dtype)
        outputs = [ops.cast(nothing, "int32"), nothing[:, 0, 0]]
        sequences = [potentials, mask, is_first]
        [scores], (places, shift) = run(step, [nothing], sequences, outputs, mask)
        scores = ops.reshape(
            scores + ops.expand_dims(ends, -1), (batch, size * num_paths)
        )
        scores, place = ops.top_k(scores, num_paths)  # B N

        def step_back(carried, at_step):
            [place] = carried  # B N
            places, is_real, is_first = at_step
            places = ops.reshape(places, (-1, size * num_paths))
            moves = ops.logical_and(is_real, ops.logical_not(is_first))
            before = ops.take_along_axis(places, place, axis=1)
            before = ops.reshape(before, ops.shape(place))  # TensorFlow may lose it
            label = ops.where(ops.expand_dims(is_real, 1), place // num_paths, 0)
            return [ops.where(ops.expand_dims(moves, 1), before, place)], [label]

        place, sequences = ops.cast(place, "int32"), [places, mask, is_first]
        _, [labels] = run(step_back, [place], sequences, [place], mask, reverse=True)
        total = _log_sums(mask, potentials, transitions, starts, ends)  # B
        log_probs = scores + ops.expand_dims(ops.sum(shift, axis=1) - total, 1)
        log_probs = ops.where(scores > FORBIDDEN / 2, log_probs, -float("inf"))
        # An example without a real step has one path, the empty one.
        is_only = ops.arange(num_paths, dtype="int32") == 0
        empty = ops.where(is_only, ops.zeros_like(log_probs), -float("inf"))
        has_steps = ops.any(mask, axis=1, keepdims=True)
        log_probs = ops.where(has_steps, log_probs, empty)
        return ops.transpose(labels, (0, 2, 1)), log_probs

    return find


def first_of_each(scores: Tensor, num_paths: int) -> Tensor:
    """Give scores `(L,)` to the first of N paths; the others are forbidden."""
    first = ops.reshape(scores, (1, -1, 1))
    is_first = ops.arange(num_paths, dtype="int32") == 0
    return ops.where(is_first, first, FORBIDDEN)  # 1 L N


def _log_sums(
    mask: Tensor, potentials: Tensor, transitions: Tensor, starts: Tensor, ends: Tensor
) -> Tensor:
    weights = transitions, starts, ends
    last, (*_, shift) = forward(log_sum, potentials, weights, mask)
    return ops.sum(shift, axis=1) + ops.logsumexp(last + ends, axis=1)  # B
