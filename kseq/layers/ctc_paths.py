"""Paths of CTC: all ways in which the steps of an input spell a row of labels.

A path has a label or the blank, 0, at each real step. What it spells are its labels,
where equal neighbours count once, without the blanks: `a a - a b` spells `a a b`. The
probability of a path is the product of those of its steps, and that of a row of labels
the sum over all paths that spell it. A masked step is none: its neighbours are
neighbours of each other.

All is in log space, so that no path is lost, however improbable.

Axes in shape comments: B batch, S steps, T labels of a row, K beams, V labels with the
blank, Z = 2 T + 1 places: blank, label, blank, ..., label, blank.
"""

from keras import ops

from kseq.layers.linear_chain import compiled, run

BLANK = 0
NEVER = -1e30  # the logarithm of nothing, which must not be infinite


def negative_log_likelihood(labels, logits, mask):
    """Minus the logarithm of the probability of labels, by Keras' own loss.

    Args:
        labels: Integers `(B, T)` from 0 to V - 1, of which 0 is padding.
        logits: `(B, S, V)`, in float32 at least.
        mask: Boolean `(B, S)`, the steps of the paths.

    Returns:
        `(B,)`, infinite where no path spells the labels.
    """
    labels, logits, mask = packed(labels), with_one(logits), with_one(mask)
    logits = in_front(mask, ops.where(ops.expand_dims(mask, -1), logits, 0.0))
    num_steps = count(mask)
    is_possible = steps_needed(labels) <= num_steps
    # A row that is impossible is computed as one without labels.
    labels = ops.where(ops.expand_dims(is_possible, 1), labels, BLANK)
    lengths = ops.maximum(num_steps, 1)
    losses = ops.ctc_loss(labels, logits, count(labels != BLANK), lengths, BLANK)
    losses = ops.where(num_steps > 0, losses, 0.0)
    return ops.where(is_possible, losses, float("inf"))


def packed(labels):
    """Labels `(B, T)` with all padding behind, and a place at least."""
    labels = with_one(labels)
    return in_front(labels != BLANK, labels)


def steps_needed(labels):
    """A step for each label, and one between equal neighbours: integers `(B,)`.

    The labels `(B, T)` are padded behind.
    """
    is_label = labels != BLANK
    repeats = ops.logical_and(labels[:, 1:] == labels[:, :-1], is_label[:, 1:])
    return count(is_label) + count(repeats)


def best_path(logits, mask):
    """What the most probable path spells: labels `(B, S)`, padded behind."""
    num_steps, logits, mask = ops.shape(mask)[1], with_one(logits), with_one(mask)
    best = ops.cast(ops.top_k(logits, 1)[1][..., 0], "int32")  # B S
    best = in_front(mask, ops.where(mask, best, BLANK))
    before = ops.pad(best, ((0, 0), (1, 0)))[:, :-1]
    begins = ops.logical_and(best != BLANK, best != before)
    return in_front(begins, ops.where(begins, best, BLANK))[:, :num_steps]


def log_likelihood(labels, logits, mask):
    """The logarithm of the probability of labels; without a gradient.

    It takes time in proportion to the labels, where that of `negative_log_likelihood`
    grows with their square on TensorFlow.

    Returns:
        `(B,)`, minus infinity where no path spells the labels.
    """
    labels = packed(labels)
    logits, mask = ops.stop_gradient(with_one(logits)), with_one(mask)
    found = compiled(_log_likelihood, logits.shape[-1])(labels, logits, mask)
    return ops.where(found > NEVER / 2, found, -float("inf"))


def alignment(labels, logits, mask):
    """The most probable path that spells labels.

    Returns:
        `(steps, log_probs)`: integers `(B, T)`, the step at which each label begins, -1
        behind the labels and where no path spells them; and the logarithm of the
        probability of the path, `(B,)`.
    """
    num_labels = ops.shape(labels)[1]
    labels = packed(labels)
    logits, mask = ops.stop_gradient(with_one(logits)), with_one(mask)
    find = compiled(_alignment, logits.shape[-1])
    path, log_probs = find(labels, logits, mask)  # B S
    is_possible = log_probs > NEVER / 2
    number = ops.arange(ops.shape(labels)[1], dtype="int32")  # T
    places = ops.arange(ops.shape(mask)[1], dtype="int32")  # S
    is_there = ops.expand_dims(path, 1) == 2 * ops.expand_dims(number, 1) + 1
    is_there = ops.logical_and(is_there, ops.expand_dims(mask, 1))  # B T S
    first = ops.min(ops.where(is_there, places, ops.shape(mask)[1]), axis=-1)  # B T
    is_real = ops.logical_and(labels != BLANK, ops.expand_dims(is_possible, 1))
    steps = ops.where(is_real, first, -1)[:, :num_labels]
    return steps, ops.where(is_possible, log_probs, -float("inf"))


def start(logits, mask, num_beams):
    """The state before the first label, and what does not change, for `step`."""
    logits, mask = ops.stop_gradient(with_one(logits)), with_one(mask)
    log_probs = ops.log_softmax(logits, axis=-1)
    nothing = ops.expand_dims(ops.zeros_like(log_probs[:, :, 0]), 1)  # B 1 S
    nothing = ops.repeat(nothing, num_beams, axis=1)
    last = ops.cast(nothing[:, :, 0], "int32")  # B K
    state = {"last": last, "in_label": nothing, "in_blank": nothing}
    return state, {"log_probs": log_probs, "mask": mask}


def step(token_ids, state, constants):
    """Takes a label more for each hypothesis.

    With `P(l ...)`, the probability of all rows that begin with the labels `l`, a label
    `c` follows with the probability `P(l c ...) / P(l ...)`, and `l` ends with that of
    `l` itself over `P(l ...)`. Both are exact sums over all paths.

    Args:
        token_ids: Integers `(B, K)`, the newest label of each; 0 where there is none.
        state: The number of the last label, `(B, K)`, and before each step the
            logarithms of the probabilities of all paths that spell the labels and end
            in the last of them, or in a blank, `(B, K, S)`.
        constants: What `start` gave.

    Returns:
        `(logits, state)`: the logarithms of the probabilities of all rows that go on
        with each label, and of the row that ends here, `(B, K, V + 1)`.
    """
    names = "last", "in_label", "in_blank"
    log_probs = constants["log_probs"]
    given = token_ids, *(state[name] for name in names), log_probs, constants["mask"]
    logits, *new = compiled(_step, log_probs.shape[-1])(*given)
    return logits, dict(zip(names, new, strict=True))


def _step(token_ids, last, in_label, in_blank, log_probs, mask):
    # TensorFlow may know the number of rows of some, and then gives up on both.
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
        # Where the newest label begins, the others have been spelled.
        begins = ops.logaddexp(label_before, blank_before)
        begins = ops.where(repeats, blank_before, begins)
        begins = ops.where(is_label, begins, NEVER)
        # And so for each label that may be next.
        onward = ops.expand_dims(either, -1)
        onward = ops.where(is_newest, ops.expand_dims(in_blank, -1), onward)
        onward = ops.logaddexp(gains, onward + ops.expand_dims(log_probs, 1))
        own = pick(log_probs, token_ids)  # B K
        new = [own + ops.logaddexp(in_label, begins), log_probs[:, :1] + either, onward]
        after = [where_rows(is_real, *pair) for pair in zip(new, carried, strict=True)]
        return after, [in_label, in_blank]

    nothing = ops.cast(ops.zeros_like(token_ids), log_probs.dtype)  # B K
    never = nothing + NEVER
    begun = ops.where(is_label, never, nothing)  # no label is spelled by no step
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


def _log_likelihood(labels, logits, mask):
    symbols, can_skip = places_of(labels)
    log_probs = ops.log_softmax(logits, axis=-1)

    def at_step(carried, given):
        [scores], (log_probs, is_real) = carried, given
        stay, one, two = ways(scores, can_skip)
        after = ops.logaddexp(ops.logaddexp(stay, one), two)
        after = after + pick(log_probs, symbols)
        return [where_rows(is_real, after, scores)], []

    [scores], _ = run(at_step, [begun(symbols, logits)], [log_probs, mask], [], mask)
    return ops.logaddexp(*last_two(scores, labels))


def _alignment(labels, logits, mask):
    symbols, can_skip = places_of(labels)
    log_probs = ops.log_softmax(logits, axis=-1)

    def at_step(carried, given):
        [scores], (log_probs, is_real) = carried, given
        stay, one, two = ways(scores, can_skip)
        best = ops.maximum(ops.maximum(stay, one), two)
        moves = ops.where(best == stay, 0, ops.where(best == one, 1, 2))  # B Z
        after = best + pick(log_probs, symbols)
        return [where_rows(is_real, after, scores)], [ops.cast(moves, "int32")]

    [scores], [moves] = run(
        at_step, [begun(symbols, logits)], [log_probs, mask], [symbols], mask
    )
    in_label, in_blank = last_two(scores, labels)
    end = 2 * count(labels != BLANK)
    end = ops.where(in_label > in_blank, end - 1, end)  # B

    def back(carried, given):
        [place], (moves, is_real) = carried, given
        move = pick(moves, ops.expand_dims(place, 1))[:, 0]
        return [ops.where(is_real, place - move, place)], [place]

    _, [path] = run(back, [end], [moves, mask], [end], mask, reverse=True)
    return path, ops.maximum(in_label, in_blank)


def places_of(labels):
    """What stands at each place, `(B, Z)`, and where the blank before it may lack."""
    blanks = ops.zeros_like(labels)
    symbols = ops.stack([blanks, labels], axis=-1)  # B T 2
    symbols = ops.reshape(symbols, (-1, 2 * ops.shape(labels)[1]))
    symbols = ops.pad(symbols, ((0, 0), (0, 1)))
    before = ops.pad(symbols, ((0, 0), (2, 0)))[:, :-2]
    has_before = ops.arange(ops.shape(symbols)[1], dtype="int32") > 2
    differs = ops.logical_and(symbols != BLANK, symbols != before)
    return symbols, ops.logical_and(differs, has_before)


def begun(symbols, logits):
    """The scores before the first step, `(B, Z)`: nothing has been spelled."""
    place = ops.arange(ops.shape(symbols)[1], dtype="int32")
    nothing = ops.cast(ops.zeros_like(symbols), logits.dtype)  # B Z
    return ops.where(place == 0, nothing, NEVER)


def ways(scores, can_skip):
    """The scores `(B, Z)` of what comes to each place: from it, one or two before."""
    one, two = (
        ops.pad(scores, ((0, 0), (n, 0)), constant_values=NEVER)[:, :-n] for n in (1, 2)
    )
    return scores, one, ops.where(can_skip, two, NEVER)


def last_two(scores, labels):
    """The scores `(B,)` of the last label of a row, and of the blank behind it."""
    end = ops.expand_dims(2 * count(labels != BLANK), 1)  # B 1
    in_blank = pick(scores, end)
    in_label = pick(scores, ops.maximum(end - 1, 0))
    in_label = ops.where(end > 0, in_label, NEVER)
    return in_label[:, 0], in_blank[:, 0]


def pick(values, places):
    """The values `(B, N)` at places `(B, M)`."""
    found = ops.take_along_axis(values, places, axis=1)
    return ops.reshape(found, ops.shape(places))  # TensorFlow may forget the axes


def where_rows(is_row, values, others):
    """The values `(B, ...)` of some rows, and those of others."""
    shape = (-1, *[1] * (len(values.shape) - 1))
    return ops.where(ops.reshape(is_row, shape), values, others)


def in_front(is_there, values):
    """What is there, in its order, and then the rest: `(B, S)` or `(B, S, V)`."""
    steps = ops.shape(is_there)[1]
    places = ops.arange(steps, dtype="int32")
    order = ops.argsort(ops.where(is_there, places, places + steps), axis=1)
    if len(values.shape) == 3:
        order = ops.expand_dims(order, -1)
    found = ops.take_along_axis(values, order, axis=1)
    return ops.reshape(found, ops.shape(values))


def with_one(values):
    """Values `(B, S, ...)` with a step more, nothing, if they have none."""
    if values.shape[1] != 0:
        return values
    widths = [(0, 0), (0, 1), *[(0, 0)] * (len(values.shape) - 2)]
    if "bool" in str(values.dtype):
        return ops.cast(ops.pad(ops.cast(values, "int32"), widths), "bool")
    return ops.pad(values, widths)


def count(is_there):
    """How many are there in each row: integers `(B,)`."""
    return ops.sum(ops.cast(is_there, "int32"), axis=1)
