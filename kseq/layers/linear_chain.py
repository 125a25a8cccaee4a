"""Sums over all paths through a linear chain of labels.

A path has a label at each real step. Its score is the sum of the potential of each
label, of the weight of each transition, and of those of its first and its last label.
All is in log space: a sum of exponentials is shifted by its own greatest term, so that
no path is lost, however improbable. A step is shifted so that its best label has 0, and
the shifts are added up apart, which keeps differences exact in long sequences.

Axes in shape comments: B batch, S steps, K labels of the step before, L labels.
"""

import functools

from keras import ops

from kseq.layers import backends
from kseq.layers.backends import matmul
from kseq.layers.recurrent.steps import fill_up, read, rows, write

# Fewer labels are not worth what XLA takes to compile for each shape of a batch.
SMALLEST_LABELS = 8
FORBIDDEN = -1e30  # added to scores, so that it must not be infinite


def negative_log_likelihood(labels, potentials, weights, mask):
    """Returns `log(sum over all paths exp(score)) - score(labels)` of each row.

    Args:
        labels: Integers `(B, S)` from 0 to L - 1; masked ones do not matter.
        potentials: Floats `(B, S, L)`, in float32 at least.
        weights: Of transitions `(L, L)`, from the label of the row to that of the
            column, of first labels `(L,)` and of last ones `(L,)`.
        mask: Boolean `(B, S)`, the steps of the path.

    Returns:
        `(B,)`, 0 for a row without a real step; without a second gradient.
    """
    potentials, mask = prepared(potentials, mask)
    missing = ops.shape(mask)[1] - ops.shape(labels)[1]
    labels = ops.pad(labels, ((0, 0), (0, missing)))
    size = potentials.shape[-1]

    @ops.custom_gradient
    def differentiable(*arguments):
        given = [ops.stop_gradient(x) for x in arguments]
        losses, *saved = compiled(_losses, size)(labels, mask, *given)

        def gradient(*given, upstream=None):  # which PyTorch gives by name
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


def marginals(potentials, weights, mask):
    """The probability of each label at each step, `(B, S, L)`; 0 where it is masked."""
    return without_gradient(_marginals, potentials, weights, mask)


def without_gradient(function, potentials, weights, mask):
    """What a function gives for each label of each step; its gradient is refused."""
    steps, given = ops.shape(potentials)[1], potentials
    potentials, mask = prepared(potentials, mask)
    tensors = [ops.stop_gradient(x) for x in (potentials, *weights)]
    results = compiled(function, potentials.shape[-1])(mask, *tensors)[:, :steps]
    if backends.is_portable():  # a file keeps gradients, and so would ask for it
        return results

    @ops.custom_gradient
    def refusing(results, given):
        return ops.stop_gradient(results), refuse

    return refusing(results, given)


def refuse(*given, upstream=None):
    raise NotImplementedError(
        "A CRF has one gradient, that of its negative log-likelihood. Train with "
        "`crf.negative_log_likelihood(labels, potentials)`."
    )


def prepared(potentials, mask):
    """Potentials that are 0 behind the mask, and as many steps as loops can take."""
    potentials = ops.where(ops.expand_dims(mask, -1), potentials, 0.0)
    if potentials.shape[1] == 0:
        potentials = ops.pad(potentials, ((0, 0), (0, 1), (0, 0)))
        return potentials, ops.pad(mask, ((0, 0), (0, 1)))
    return fill_up(potentials, mask)


def compiled(function, num_labels):
    """The function, compiled where that pays."""
    is_large = num_labels >= SMALLEST_LABELS
    return _compiled(function) if is_large and backends.available() else function


@functools.cache
def _compiled(function):
    return backends.compiled(function)


def _losses(labels, mask, potentials, transitions, starts, ends):
    """The losses `(B,)`, and of each step what the gradient needs."""
    weights = transitions, starts, ends
    last, (before, arrived, shift) = forward(log_sum, potentials, weights, mask)
    previous, final = neighbours(labels, mask)
    places = ops.expand_dims(labels, -1)  # B S 1
    scores = ops.take_along_axis(potentials, places, axis=-1)[..., 0]  # B S
    pairs = previous * transitions.shape[-1] + labels
    moves = ops.take(ops.reshape(transitions, (-1,)), pairs)
    scores += ops.where(first_steps(mask), ops.take(starts, labels), moves)
    # Step by step, for the two sums are large and nearly equal.
    losses = ops.sum(ops.where(mask, shift - scores, 0.0), axis=1)  # B
    behind = ops.logsumexp(last + ends, axis=-1) - ops.take(ends, final)
    losses += ops.where(ops.any(mask, axis=1), behind, 0.0)
    return losses, before, arrived, last


def _gradients(
    labels, mask, upstream, transitions, starts, ends, before, arrived, last
):
    """Those of the potentials and of the weights, from that of the losses `(B,)`.

    Each is how often a label or a transition is expected, less how often it is there.
    """
    upstream = ops.where(ops.any(mask, axis=1), upstream, 0.0)  # B
    expected, of_moves, of_last = backward(
        upstream, transitions, ends, mask, before, arrived, last
    )
    previous, final = neighbours(labels, mask)
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


def _marginals(mask, potentials, transitions, starts, ends):
    weights = transitions, starts, ends
    last, (before, arrived, _) = forward(log_sum, potentials, weights, mask)
    of_rows = ops.cast(ops.any(mask, axis=1), potentials.dtype)  # B
    return backward(of_rows, transitions, ends, mask, before, arrived, last)[0]


def forward(join, potentials, weights, mask):
    """Goes through all steps, and joins the ways that lead to each label.

    Args:
        join: Makes of the scores `(B, K, L)` of all transitions one `(B, L)` for each
            label: their log-sum, or the highest.
        potentials: `(B, S, L)`.
        weights: Of transitions, first labels and last ones.
        mask: Boolean `(B, S)`.

    Returns:
        The scores after the last real step, `(B, L)`; and of each step the scores
        before it and on arrival, both `(B, S, L)`, and the shift `(B, S)`.
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


def log_sum(scores):
    """`log(sum over K exp(scores (B, K, L)))`."""
    highest = ops.max(scores, axis=1, keepdims=True)
    total = ops.sum(ops.exp(scores - highest), axis=1)
    return ops.log(total) + ops.squeeze(highest, 1)


def backward(upstream, transitions, ends, mask, before, arrived, last):
    """Goes back through all steps, and divides among the ways what comes back.

    Args:
        upstream: `(B,)`, what comes from each row: 1 gives probabilities.
        transitions: `(L, L)`.
        ends: `(L,)`.
        mask: Boolean `(B, S)`.
        before: What `forward` gave with `log_sum`, as the next two.
        arrived: `(B, S, L)`.
        last: `(B, L)`.

    Returns:
        What goes through each label `(B, S, L)`, through each transition in all
        `(L, L)`, and to each label at the end `(B, L)`.
    """
    last = last + ends
    shares = ops.exp(last - ops.logsumexp(last, axis=1, keepdims=True))
    of_last = shares * ops.expand_dims(upstream, 1)  # B L

    def step(carried, at_step):
        flow, of_moves = carried
        before, arrived, is_real, is_first = at_step
        here = ops.where(ops.expand_dims(is_real, 1), flow, 0.0)  # B L
        shares = ops.expand_dims(before, 2) + transitions - ops.expand_dims(arrived, 1)
        # At most 0, but for the rounding of what is forbidden.
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


def one_hot(labels, scores):
    """1 at the place of each label, 0 elsewhere, `(..., L)` as scores are."""
    is_label = ops.expand_dims(labels, -1) == all_labels(scores)
    return ops.cast(is_label, scores.dtype)


def all_labels(scores):
    return ops.arange(scores.shape[-1], dtype="int32")


def first_steps(mask):
    """Marks the first real step of each row, `(B, S)`."""
    return ops.logical_and(mask, ops.cumsum(ops.cast(mask, "int32"), axis=1) == 1)


def neighbours(labels, mask):
    """The label of the real step before each, `(B, S)`, and of the last, `(B,)`."""
    steps = ops.shape(mask)[1]
    places = ops.arange(steps, dtype="int32")
    order = ops.argsort(ops.where(mask, places, places + steps), axis=1)
    real = ops.take_along_axis(labels, order, axis=1)  # the real ones in front
    counts = ops.cumsum(ops.cast(mask, "int32"), axis=1)  # B S
    previous = ops.take_along_axis(real, ops.maximum(counts - 2, 0), axis=1)
    final = ops.take_along_axis(real, ops.maximum(counts[:, -1:] - 1, 0), axis=1)
    return previous, final[:, 0]


def run(step, carried, sequences, outputs, mask, reverse=False):
    """Runs a step through sequences, as far as a row has a real step.

    Args:
        step: Function `(carried, [what stands at a step (B, ...)]) -> (carried, [what
            is put out at it (B, ...)])`, of lists.
        carried: List of tensors, as the first step takes them.
        sequences: List of tensors `(B, S, ...)`.
        outputs: List of tensors like those that a step puts out.
        mask: Boolean `(B, S)`.
        reverse: Whether to begin with the last step.

    Returns:
        `(carried, outputs)`: the outputs are `(B, S, ...)`, zeros behind the last real
        step.
    """
    steps = ops.shape(mask)[1]
    if not backends.has_loops():
        found = [None] * steps
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

    def body(t, carried, buffers):
        place = length - 1 - t if reverse else t
        carried, found = step(carried, [read(x, place) for x in sequences])
        pairs = zip(buffers, found, strict=True)
        return t + 1, carried, [put(buffer, x, place) for buffer, x in pairs]

    buffers = [
        ops.zeros((ops.shape(x)[0], steps, *x.shape[1:]), x.dtype) for x in outputs
    ]
    first = (ops.zeros((), "int32"), list(carried), buffers)
    _, carried, buffers = ops.while_loop(lambda t, *_: t < length, body, first)
    return carried, buffers
