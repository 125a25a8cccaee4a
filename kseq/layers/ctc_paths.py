"""Paths of CTC: all ways in which the steps of an input spell a label sequence.

A path has a label or the blank, 0, at each real step. To read what it spells, merge
equal neighbours, then remove the blanks: `a a - a b` spells `a a b`. The probability of
a path is the product of the probabilities of its steps. The probability of a label
sequence is the sum over all paths that spell it. Masked steps are skipped, so the steps
before and after one are neighbours.

All computations are in log space, so that improbable paths do not underflow.

Axes in shape comments: B batch, S steps, T labels of a sequence, K beams, V labels with
the blank, Z = 2 T + 1 places: blank, label, blank, ..., label, blank.
"""

from collections.abc import Mapping

from keras import ops

from kseq.layers.linear_chain import compiled, run
from kseq.typing import Tensor

BLANK = 0
NEVER = -1e30  # the logarithm of 0, finite to avoid NaN


def negative_log_likelihood(labels: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
    """Return the negative log-probability of labels, computed with Keras' CTC loss.

    Args:
        labels: Integers `(B, T)` from 0 to V - 1, where 0 is padding.
        logits: `(B, S, V)`, in float32 at least.
        mask: Boolean `(B, S)`, the steps of the paths.

    Returns:
        `(B,)`, infinite where no path spells the labels.
    """
    labels = padded_at_end(labels)
    logits, mask = at_least_one_step(logits), at_least_one_step(mask)
    logits = marked_first(mask, ops.where(ops.expand_dims(mask, -1), logits, 0.0))
    num_steps = count(mask)
    is_possible = steps_needed(labels) <= num_steps
    # An example that is impossible is computed as one without labels.
    labels = ops.where(ops.expand_dims(is_possible, 1), labels, BLANK)
    lengths = ops.maximum(num_steps, 1)
    losses = ops.ctc_loss(labels, logits, count(labels != BLANK), lengths, BLANK)
    losses = ops.where(num_steps > 0, losses, 0.0)
    return ops.where(is_possible, losses, float("inf"))


def padded_at_end(labels: Tensor) -> Tensor:
    """Return labels `(B, T)` with all padding at the end, and T at least 1."""
    labels = at_least_one_step(labels)
    return marked_first(labels != BLANK, labels)


def steps_needed(labels: Tensor) -> Tensor:
    """Return one step for each label plus one between equal neighbours: ints `(B,)`.

    The labels `(B, T)` must be padded at the end.
    """
    is_label = labels != BLANK
    repeats = ops.logical_and(labels[:, 1:] == labels[:, :-1], is_label[:, 1:])
    return count(is_label) + count(repeats)


def best_path(logits: Tensor, mask: Tensor) -> Tensor:
    """Return what the most probable path spells: labels `(B, S)`, padded at the end."""
    num_steps = ops.shape(mask)[1]
    logits, mask = at_least_one_step(logits), at_least_one_step(mask)
    best = ops.cast(ops.top_k(logits, 1)[1][..., 0], "int32")  # B S
    best = marked_first(mask, ops.where(mask, best, BLANK))
    before = ops.pad(best, ((0, 0), (1, 0)))[:, :-1]
    begins = ops.logical_and(best != BLANK, best != before)
    return marked_first(begins, ops.where(begins, best, BLANK))[:, :num_steps]


def log_likelihood(labels: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
    """Return the log-probability of labels, without a gradient.

    Its time is proportional to the number of labels. On TensorFlow the time of
    `negative_log_likelihood` grows with its square.

    Returns:
        `(B,)`, minus infinity where no path spells the labels.
    """
    labels = padded_at_end(labels)
    logits, mask = ops.stop_gradient(at_least_one_step(logits)), at_least_one_step(mask)
    found = compiled(_log_likelihood, logits.shape[-1])(labels, logits, mask)
    return ops.where(found > NEVER / 2, found, -float("inf"))


def alignment(labels: Tensor, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return where labels begin on the most probable path that spells them.

    Returns:
        `(steps, log_probs)`: integers `(B, T)`, the step at which each label begins, -1
        for padding and where no path spells the labels; and the log-probability of the
        path, `(B,)`.
    """
    num_labels = ops.shape(labels)[1]
    labels = padded_at_end(labels)
    logits, mask = ops.stop_gradient(at_least_one_step(logits)), at_least_one_step(mask)
    find = compiled(_alignment, logits.shape[-1])
    path, log_probs = find(labels, logits, mask)  # B S
    is_possible = log_probs > NEVER / 2
    number = ops.arange(ops.shape(labels)[1], dtype="int32")  # T
    places = ops.arange(ops.shape(mask)[1], dtype="int32")  # S
    is_spelled = ops.expand_dims(path, 1) == 2 * ops.expand_dims(number, 1) + 1
    is_spelled = ops.logical_and(is_spelled, ops.expand_dims(mask, 1))  # B T S
    first = ops.min(ops.where(is_spelled, places, ops.shape(mask)[1]), axis=-1)  # B T
    is_real = ops.logical_and(labels != BLANK, ops.expand_dims(is_possible, 1))
    steps = ops.where(is_real, first, -1)[:, :num_labels]
    return steps, ops.where(is_possible, log_probs, -float("inf"))


def start(
    logits: Tensor, mask: Tensor, num_beams: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the state before the first label, and the constants, for `step`."""
    logits, mask = ops.stop_gradient(at_least_one_step(logits)), at_least_one_step(mask)
    log_probs = ops.log_softmax(logits, axis=-1)
    nothing = ops.expand_dims(ops.zeros_like(log_probs[:, :, 0]), 1)  # B 1 S
    nothing = ops.repeat(nothing, num_beams, axis=1)
    last = ops.cast(nothing[:, :, 0], "int32")  # B K
    state = {"last": last, "in_label": nothing, "in_blank": nothing}
    return state, {"log_probs": log_probs, "mask": mask}


def step(
    token_ids: Tensor, state: Mapping[str, Tensor], constants: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Append a label to each hypothesis, and compute the logits of the next one.

    Let `P(l ...)` be the probability of all sequences that begin with the labels `l`.
    Then a label `c` follows with probability `P(l c ...) / P(l ...)`, and the sequence
    ends with probability `P(l) / P(l ...)`. Both are exact sums over all paths.

    Args:
        token_ids: Integers `(B, K)`, the newest label of each hypothesis; 0 for none.
        state: `last`, the id of the label before, `(B, K)`; `in_label` and `in_blank`,
            the log-probabilities, before each step, of all paths that spell the labels
            and end in the last label, or in a blank, `(B, K, S)`.
        constants: The constants from `start`.

    Returns:
        `(logits, state)`: the log-probabilities of all sequences that continue with
        each label, and of the sequence that ends here, `(B, K, V + 1)`.
    """
    names = "last", "in_label", "in_blank"
    log_probs = constants["log_probs"]
    given = token_ids, *(state[name] for name in names), log_probs, constants["mask"]
    logits, *new = compiled(_step, log_probs.shape[-1])(*given)
    return logits, dict(zip(names, new, strict=True))


def _step(
    token_ids: Tensor,
    last: Tensor,
    in_label: Tensor,
    in_blank: Tensor,
    log_probs: Tensor,
    mask: Tensor,
) -> tuple[Tensor, ...]:
    # TensorFlow may know the batch size of some tensors only, and then fails to match.
    given = last, in_label, in_blank, log_probs, mask
    rows = ops.shape(token_ids)[0]
    last, in_label, in_blank, log_probs, mask = (
        ops.reshape(x, (rows, *ops.shape(x)[1:])) for x in given
    )
    size = log_probs.shape[-1]
    is_label = ops.logical_and(token_ids > BLANK, token_ids < size)  # B K
    token_ids = ops.where(is_label, token_ids, BLANK)
    repeats = token_ids == last
    words = ops.arange(size, dtype="int32")
    is_newest = ops.expand_dims(token_ids, -1) == words  # B K V

    def at_step(carried, given):
        in_label, in_blank, gains = carried  # B K, B K, B K V
        label_before, blank_before, log_probs, is_real = given
        either = ops.logaddexp(in_label, in_blank)
        # Where the newest label begins, all labels before it have been spelled.
        begins = ops.logaddexp(label_before, blank_before)
        begins = ops.where(repeats, blank_before, begins)
        begins = ops.where(is_label, begins, NEVER)
        # The same for each label that may come next.
        onward = ops.expand_dims(either, -1)
        onward = ops.where(is_newest, ops.expand_dims(in_blank, -1), onward)
        onward = ops.logaddexp(gains, onward + ops.expand_dims(log_probs, 1))
        own = pick(log_probs, token_ids)  # B K
        new = [own + ops.logaddexp(in_label, begins), log_probs[:, :1] + either, onward]
        after = [where_rows(is_real, *pair) for pair in zip(new, carried, strict=True)]
        return after, [in_label, in_blank]

    nothing = ops.cast(ops.zeros_like(token_ids), log_probs.dtype)  # B K
    never = nothing + NEVER
    begun = ops.where(is_label, never, nothing)  # zero steps spell no label
    never_next = ops.repeat(ops.expand_dims(never, -1), size, axis=-1)
    before = [ops.transpose(x, (0, 2, 1)) for x in (in_label, in_blank)]  # B S K
    (in_label, in_blank, gains), spelled = run(
        at_step,
        [never, begun, never_next],
        [*before, log_probs, mask],
        [nothing, nothing],
        mask,
    )
    gains = ops.where(gains > NEVER / 2, gains, -float("inf"))
    gains = ops.where(words == BLANK, -float("inf"), gains)
    ends = ops.expand_dims(ops.logaddexp(in_label, in_blank), -1)  # B K 1
    logits = ops.concatenate([gains, ends], axis=-1)
    return logits, token_ids, *(ops.transpose(x, (0, 2, 1)) for x in spelled)


def _log_likelihood(labels: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
    symbols, can_skip = places_of(labels)
    log_probs = ops.log_softmax(logits, axis=-1)

    def at_step(carried, given):
        [scores], (log_probs, is_real) = carried, given
        stay, one, two = arrivals(scores, can_skip)
        after = ops.logaddexp(ops.logaddexp(stay, one), two)
        after = after + pick(log_probs, symbols)
        return [where_rows(is_real, after, scores)], []

    [scores], _ = run(
        at_step, [first_scores(symbols, logits)], [log_probs, mask], [], mask
    )
    return ops.logaddexp(*final_scores(scores, labels))


def _alignment(labels: Tensor, logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    symbols, can_skip = places_of(labels)
    log_probs = ops.log_softmax(logits, axis=-1)

    def at_step(carried, given):
        [scores], (log_probs, is_real) = carried, given
        stay, one, two = arrivals(scores, can_skip)
        best = ops.maximum(ops.maximum(stay, one), two)
        moves = ops.where(best == stay, 0, ops.where(best == one, 1, 2))  # B Z
        after = best + pick(log_probs, symbols)
        return [where_rows(is_real, after, scores)], [ops.cast(moves, "int32")]

    [scores], [moves] = run(
        at_step, [first_scores(symbols, logits)], [log_probs, mask], [symbols], mask
    )
    in_label, in_blank = final_scores(scores, labels)
    end = 2 * count(labels != BLANK)
    end = ops.where(in_label > in_blank, end - 1, end)  # B

    def back(carried, given):
        [place], (moves, is_real) = carried, given
        move = pick(moves, ops.expand_dims(place, 1))[:, 0]
        return [ops.where(is_real, place - move, place)], [place]

    _, [path] = run(back, [end], [moves, mask], [end], mask, reverse=True)
    return path, ops.maximum(in_label, in_blank)


def places_of(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symbol at each place, `(B, Z)`, and whether it may skip a blank."""
    blanks = ops.zeros_like(labels)
    symbols = ops.stack([blanks, labels], axis=-1)  # B T 2
    symbols = ops.reshape(symbols, (-1, 2 * ops.shape(labels)[1]))
    symbols = ops.pad(symbols, ((0, 0), (0, 1)))
    before = ops.pad(symbols, ((0, 0), (2, 0)))[:, :-2]
    has_before = ops.arange(ops.shape(symbols)[1], dtype="int32") > 2
    differs = ops.logical_and(symbols != BLANK, symbols != before)
    return symbols, ops.logical_and(differs, has_before)


def first_scores(symbols: Tensor, logits: Tensor) -> Tensor:
    """Return the scores before the first step, `(B, Z)`: nothing has been spelled."""
    place = ops.arange(ops.shape(symbols)[1], dtype="int32")
    nothing = ops.cast(ops.zeros_like(symbols), logits.dtype)  # B Z
    return ops.where(place == 0, nothing, NEVER)


def arrivals(scores: Tensor, can_skip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores `(B, Z)` of arriving from the same place, one, or two before."""
    one, two = (
        ops.pad(scores, ((0, 0), (n, 0)), constant_values=NEVER)[:, :-n] for n in (1, 2)
    )
    return scores, one, ops.where(can_skip, two, NEVER)


def final_scores(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores `(B,)` of the last label and of the blank after it."""
    end = ops.expand_dims(2 * count(labels != BLANK), 1)  # B 1
    in_blank = pick(scores, end)
    in_label = pick(scores, ops.maximum(end - 1, 0))
    in_label = ops.where(end > 0, in_label, NEVER)
    return in_label[:, 0], in_blank[:, 0]


def pick(values: Tensor, places: Tensor) -> Tensor:
    """Return the values `(B, N)` at places `(B, M)`."""
    found = ops.take_along_axis(values, places, axis=1)
    return ops.reshape(found, ops.shape(places))  # TensorFlow may lose the axes


def where_rows(is_row: Tensor, values: Tensor, others: Tensor) -> Tensor:
    """Choose values `(B, ...)` where a row is marked, and others elsewhere."""
    shape = (-1, *[1] * (len(values.shape) - 1))
    return ops.where(ops.reshape(is_row, shape), values, others)


def marked_first(is_marked: Tensor, values: Tensor) -> Tensor:
    """Move marked steps to the front, in order: `(B, S)` or `(B, S, V)`."""
    steps = ops.shape(is_marked)[1]
    places = ops.arange(steps, dtype="int32")
    order = ops.argsort(ops.where(is_marked, places, places + steps), axis=1)
    if len(values.shape) == 3:
        order = ops.expand_dims(order, -1)
    found = ops.take_along_axis(values, order, axis=1)
    return ops.reshape(found, ops.shape(values))


def at_least_one_step(values: Tensor) -> Tensor:
    """Pad values `(B, S, ...)` to one step, of zeros, if they have none."""
    if values.shape[1] != 0:
        return values
    widths = [(0, 0), (0, 1), *[(0, 0)] * (len(values.shape) - 2)]
    if "bool" in str(values.dtype):
        return ops.cast(ops.pad(ops.cast(values, "int32"), widths), "bool")
    return ops.pad(values, widths)


def count(is_marked: Tensor) -> Tensor:
    """Count the marked steps of each row: integers `(B,)`."""
    return ops.sum(ops.cast(is_marked, "int32"), axis=1)
