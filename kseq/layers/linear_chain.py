"""Sums over all paths of a linear chain: the forward-backward algorithm of a CRF.

A path has one label at each real step. Its score is the sum of the potentials of its
labels, the weights of its transitions, and the weights of its first and last label.

All sums are in log space. Each sum of exponentials is shifted by its greatest term, so
that improbable paths do not underflow. Each step is shifted so that its best label has
0. The shifts are summed separately, which keeps differences exact in long sequences.

Axes in shape comments: B batch, S steps, K labels of the step before, L labels.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

from keras import ops

from kseq.layers import backends
from kseq.layers.backends import matmul
from kseq.layers.recurrent.steps import fill_up, read, rows, write
from kseq.typing import Tensor

# With fewer labels, XLA takes longer to compile each batch shape than it saves.
SMALLEST_LABELS = 8
FORBIDDEN = -1e30  # added to scores, so it must be finite

# Of transitions (L, L), from the row's label to the column's, of first labels (L,) and
# of last labels (L,).
Weights: TypeAlias = Sequence[Tensor]


def negative_log_likelihood(
    labels: Tensor, potentials: Tensor, weights: Weights, mask: Tensor
) -> Tensor:
    """Return `log(sum over all paths exp(score)) - score(labels)` of each sequence.

    Args:
        labels: Integers `(B, S)` from 0 to L - 1. Masked labels may have any value.
        potentials: Floats `(B, S, L)`, in at least float32.
        weights: Weights of transitions, first labels and last labels.
        mask: Boolean `(B, S)`, the steps of the path.

    Returns:
        `(B,)`, 0 for a sequence without a real step. It has no second gradient.
    """
    potentials, mask = prepared(potentials, mask)
    missing = ops.shape(mask)[1] - ops.shape(labels)[1]
    labels = ops.pad(labels, ((0, 0), (0, missing)))
    size = potentials.shape[-1]

    @ops.custom_gradient
    def differentiable(*arguments):
        given = [ops.stop_gradient(x) for x in arguments]
        losses, *saved = compiled(_losses, size)(labels, mask, *given)

        def gradient(*given, upstream=None):  # PyTorch passes `upstream` by name
            if upstream is None:
                [upstream] = given

            @ops.custom_gradient
            def slopes(_, *given):
                given = [ops.stop_gradient(x) for x in given]
                return tuple(compiled(_gradients, size)(labels, mask, *given)), refuse

            potentials, *weights = arguments
            return slopes(potentials, upstream, *weights, *saved)

        return losses, gradient

    return differentiable(potentials, *weights)


def marginals(potentials: Tensor, weights: Weights, mask: Tensor) -> Tensor:
    """Return the probability of each label at each step, `(B, S, L)`; 0 if masked."""
    return without_gradient(_marginals, potentials, weights, mask)


def without_gradient(
    function: Callable[..., Tensor], potentials: Tensor, weights: Weights, mask: Tensor
) -> Tensor:
    """Return a function's value for each step; computing its gradient raises."""
    steps, given = ops.shape(potentials)[1], potentials
    potentials, mask = prepared(potentials, mask)
    tensors = [ops.stop_gradient(x) for x in (potentials, *weights)]
    results = compiled(function, potentials.shape[-1])(mask, *tensors)[:, :steps]
    if backends.is_portable():  # an exported file stores gradients, so it must exist
        return results

    @ops.custom_gradient
    def refusing(results, given):
        return ops.stop_gradient(results), refuse

    return refusing(results, given)


def refuse(*given: Any, upstream: Any = None) -> NoReturn:
    raise NotImplementedError(
        "A CRF has one gradient, that of its negative log-likelihood. Train with "
        "`crf.negative_log_likelihood(labels, potentials)`."
    )


def prepared(potentials: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Set masked potentials to 0, and pad the steps to a length that loops can take."""
    potentials = ops.where(ops.expand_dims(mask, -1), potentials, 0.0)
    if potentials.shape[1] == 0:
        potentials = ops.pad(potentials, ((0, 0), (0, 1), (0, 0)))
        return potentials, ops.pad(mask, ((0, 0), (0, 1)))
    return fill_up(potentials, mask)


def compiled(function: Callable[..., Any], num_labels: int) -> Callable[..., Any]:
    """Return the function, compiled if that is worthwhile."""
    is_large = num_labels >= SMALLEST_LABELS
    return _compiled(function) if is_large and backends.available() else function


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return backends.compiled(function)


def _losses(
    labels: Tensor,
    mask: Tensor,
    potentials: Tensor,
    transitions: Tensor,
    starts: Tensor,
    ends: Tensor,
) -> tuple[Tensor, ...]:
    """Return the losses `(B,)`, and the results of each step for the gradient."""
    weights = transitions, starts, ends
    last, (before, arrived, shift) = forward(log_sum, potentials, weights, mask)
    previous, final = previous_and_last_labels(labels, mask)
    places = ops.expand_dims(labels, -1)  # B S 1
    scores = ops.take_along_axis(potentials, places, axis=-1)[..., 0]  # B S
    pairs = previous * transitions.shape[-1] + labels
    moves = ops.take(ops.reshape(transitions, (-1,)), pairs)
    scores += ops.where(first_steps(mask), ops.take(starts, labels), moves)
    # Subtracted step by step, since the two sums are large and nearly equal.
    losses = ops.sum(ops.where(mask, shift - scores, 0.0), axis=1)  # B
    behind = ops.logsumexp(last + ends, axis=-1) - ops.take(ends, final)
    losses += ops.where(ops.any(mask, axis=1), behind, 0.0)
    return losses, before, arrived, last


def _gradients(
    labels: Tensor,
    mask: Tensor,
    upstream: Tensor,
    transitions: Tensor,
    starts: Tensor,
    ends: Tensor,
    before: Tensor,
    arrived: Tensor,
    last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of potentials and weights from that of the losses `(B,)`.

    Each is the expected count of a label or a transition minus its actual count.
    """
    upstream = ops.where(ops.any(mask, axis=1), upstream, 0.0)  # B
    expected, of_moves, of_last = backward(
        upstream, transitions, ends, mask, before, arrived, last
    )
    previous, final = previous_and_last_labels(labels, mask)
    is_first = first_steps(mask)
    counts = ops.where(mask, ops.expand_dims(upstream, 1), 0.0)  # B S
    moves = ops.where(is_first, 0.0, counts)
    is_label = one_hot(labels, transitions)  # B S L
    slopes = expected - ops.expand_dims(counts, -1) * is_label
    was_label = ops.expand_dims(moves, -1) * one_hot(previous, transitions)
    seen = matmul(ops.transpose(rows(was_label)), rows(is_label))  # K L
    of_first = ops.where(ops.expand_dims(is_first, -1), slopes, 0.0)
    of_final = ops.expand_dims(upstream, 1) * one_hot(final, transitions)  # B L
    of_ends = ops.sum(of_last - of_final, axis=0)
    return slopes, of_moves - seen, ops.sum(of_first, axis=(0, 1)), of_ends


def _marginals(
    mask: Tensor, potentials: Tensor, transitions: Tensor, starts: Tensor, ends: Tensor
) -> Tensor:
    weights = transitions, starts, ends
    last, (before, arrived, _) = forward(log_sum, potentials, weights, mask)
    of_rows = ops.cast(ops.any(mask, axis=1), potentials.dtype)  # B
    return backward(of_rows, transitions, ends, mask, before, arrived, last)[0]


def forward(
    join: Callable[[Tensor], Tensor],
    potentials: Tensor,
    weights: Weights,
    mask: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """Run the forward pass, which joins the paths that lead to each label.

    Args:
        join: Function from the scores of all transitions `(B, K, L)` to one score per
            label `(B, L)`: their log-sum, or their maximum.
        potentials: `(B, S, L)`.
        weights: Weights of transitions, first labels and last labels.
        mask: Boolean `(B, S)`.

    Returns:
        The scores after the last real step, `(B, L)`, and a list of results of each
        step: the scores before it and on arrival, both `(B, S, L)`, and the shift
        `(B, S)`.
    """
    transitions, starts, _ = weights
    nothing = ops.zeros_like(potentials[:, 0])  # B L

    def step(carried, at_step):
        [before] = carried
        potential, is_real, is_first = at_step
        arrived = join(ops.expand_dims(before, 2) + transitions)  # B L
        arrived = ops.where(ops.expand_dims(is_first, 1), starts, arrived)
        after = arrived + potential
        shift = ops.max(after, axis=1)  # B
        after = after - ops.expand_dims(shift, 1)
        after = ops.where(ops.expand_dims(is_real, 1), after, before)
        return [after], [before, arrived, ops.where(is_real, shift, 0.0)]

    sequences = [potentials, mask, first_steps(mask)]
    outputs = [nothing, nothing, nothing[:, 0]]
    [last], outputs = run(step, [nothing], sequences, outputs, mask)
    return last, outputs


def log_sum(scores: Tensor) -> Tensor:
    """Return `log(sum over K exp(scores (B, K, L)))`."""
    highest = ops.max(scores, axis=1, keepdims=True)
    total = ops.sum(ops.exp(scores - highest), axis=1)
    return ops.log(total) + ops.squeeze(highest, 1)


def backward(
    upstream: Tensor,
    transitions: Tensor,
    ends: Tensor,
    mask: Tensor,
    before: Tensor,
    arrived: Tensor,
    last: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the backward pass, which splits the upstream gradient among the paths.

    Args:
        upstream: Gradient of each sequence, `(B,)`. Ones give probabilities.
        transitions: `(L, L)`.
        ends: `(L,)`.
        mask: Boolean `(B, S)`.
        before: `(B, S, L)`. This and the next two are results of `forward` with
            `log_sum`.
        arrived: `(B, S, L)`.
        last: `(B, L)`.

    Returns:
        The share of each label `(B, S, L)`, of each transition, summed over the batch
        and the steps, `(L, L)`, and of each last label `(B, L)`.
    """
    last = last + ends
    shares = ops.exp(last - ops.logsumexp(last, axis=1, keepdims=True))
    of_last = shares * ops.expand_dims(upstream, 1)  # B L

    def step(carried, at_step):
        flow, of_moves = carried
        before, arrived, is_real, is_first = at_step
        here = ops.where(ops.expand_dims(is_real, 1), flow, 0.0)  # B L
        shares = ops.expand_dims(before, 2) + transitions - ops.expand_dims(arrived, 1)
        # At most 0, except for rounding where a transition is forbidden.
        shares = ops.exp(ops.minimum(shares, 0.0))  # B K L
        moves = ops.logical_and(is_real, ops.logical_not(is_first))
        moved = shares * ops.expand_dims(here, 1)
        moved = ops.where(ops.reshape(moves, (-1, 1, 1)), moved, 0.0)
        from_here = ops.sum(moved, axis=2)  # B K
        flow = ops.where(ops.expand_dims(moves, 1), from_here, flow)
        return [flow, of_moves + ops.sum(moved, axis=0)], [here]

    (_, of_moves), [through] = run(
        step,
        [of_last, ops.zeros_like(transitions)],
        [before, arrived, mask, first_steps(mask)],
        [of_last],
        mask,
        reverse=True,
    )
    return through, of_moves, of_last


def one_hot(labels: Tensor, scores: Tensor) -> Tensor:
    """Return one-hot vectors `(..., L)`, with the last axis and dtype of `scores`."""
    is_label = ops.expand_dims(labels, -1) == all_labels(scores)
    return ops.cast(is_label, scores.dtype)


def all_labels(scores: Tensor) -> Tensor:
    return ops.arange(scores.shape[-1], dtype="int32")


def first_steps(mask: Tensor) -> Tensor:
    """Return a mask of the first real step of each sequence, `(B, S)`."""
    return ops.logical_and(mask, ops.cumsum(ops.cast(mask, "int32"), axis=1) == 1)


def previous_and_last_labels(labels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the label of the real step before each, `(B, S)`, and the last, `(B,)`."""
    steps = ops.shape(mask)[1]
    places = ops.arange(steps, dtype="int32")
    order = ops.argsort(ops.where(mask, places, places + steps), axis=1)
    real = ops.take_along_axis(labels, order, axis=1)  # real labels first
    counts = ops.cumsum(ops.cast(mask, "int32"), axis=1)  # B S
    previous = ops.take_along_axis(real, ops.maximum(counts - 2, 0), axis=1)
    final = ops.take_along_axis(real, ops.maximum(counts[:, -1:] - 1, 0), axis=1)
    return previous, final[:, 0]


def run(
    step: Callable[[list[Tensor], list[Tensor]], tuple[list[Tensor], list[Tensor]]],
    carried: list[Tensor],
    sequences: Sequence[Tensor],
    outputs: Sequence[Tensor],
    mask: Tensor,
    reverse: bool = False,
) -> tuple[list[Tensor], list[Tensor]]:
    """Run a step function over sequences, up to the last real step of any of them.

    Args:
        step: Function `(carried, inputs) -> (carried, outputs)` of lists. The inputs
            and outputs of a step are `(B, ...)`.
        carried: List of tensors, the initial `carried`.
        sequences: List of tensors `(B, S, ...)`, the inputs of all steps.
        outputs: List of tensors of the shapes and dtypes of a step's outputs.
        mask: Boolean `(B, S)`.
        reverse: Whether to start with the last step.

    Returns:
        `(carried, outputs)`. The outputs are `(B, S, ...)`, with zeros behind the last
        real step.
    """
    steps = ops.shape(mask)[1]
    if not backends.has_loops():
        found: list[Any] = [None] * steps
        for t in reversed(range(steps)) if reverse else range(steps):
            carried, found[t] = step(carried, [x[:, t] for x in sequences])
        return carried, [ops.stack(x, axis=1) for x in zip(*found, strict=True)]
    places = ops.arange(steps, dtype="int32")
    length = ops.max(ops.where(mask, places + 1, 0), initial=0)

    def put(buffer, value, place):
        if not backends.is_portable():
            return write(buffer, value, place)
        is_there = ops.reshape(places == place, (1, -1, *[1] * (len(value.shape) - 1)))
        return ops.where(is_there, ops.expand_dims(value, 1), buffer)

    def body(place, carried, buffers):
        carried, found = step(carried, [read(x, place) for x in sequences])
        pairs = zip(buffers, found, strict=True)
        buffers = [put(buffer, x, place) for buffer, x in pairs]
        return place + (-1 if reverse else 1), carried, buffers

    def is_inside(place, *_):
        return place >= 0 if reverse else place < length

    buffers = [
        ops.zeros((ops.shape(x)[0], steps, *x.shape[1:]), x.dtype) for x in outputs
    ]
    # The loop carries the place. If each step computed it from the length, TensorFlow
    # would compile the loop anew for every mask.
    place = length - 1 if reverse else ops.zeros((), "int32")
    first = (place, list(carried), buffers)
    _, carried, buffers = ops.while_loop(is_inside, body, first)
    return carried, buffers
