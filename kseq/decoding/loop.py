"""The decoder loop that every search shares.

Axes in shape comments: B batch, K beams, L maximum length, V vocabulary.
"""

import numbers

import keras
from keras import ops

from kseq.decoding.generation import Generation
from kseq.decoding.hypotheses import Hypotheses


def search_loop(
    step,
    state,
    constants,
    start_token_ids,
    *,
    select,
    num_beams,
    max_length,
    end_token_id,
    pad_token_id=0,
    constraints=(),
    prefix=None,
    num_groups=1,
    is_done=None,
):
    """Writes tokens until every hypothesis has ended or `max_length` is reached.

    Buffers have a fixed size and a token is written by `where`, so the loop compiles
    under `tf.function`, XLA and `jax.jit`, and can be exported.

    Args:
        step: Function `(token_ids (B, K), state, constants) -> (logits (B, K, V),
            state)`.
        state: Tree of tensors `(B, K, ...)`, reordered with the hypotheses, except what
            stands under a key `"shared"`, tensors `(B, ...)` that they keep in common.
        constants: Tree of tensors `(B, ...)`, never touched.
        start_token_ids: Integers `(B,)`, the first token that each row reads.
        select: Function `(gains (B, K, V), Hypotheses) -> (parents (B, K) or None,
            token_ids (B, K), scores (B, K))` that chooses how to go on. The gains are
            the model's log-probabilities after the constraints. No parents means that
            every hypothesis goes on by itself.
        num_beams: Number of hypotheses K of a row.
        max_length: Most tokens L to write, the end token counted.
        end_token_id: The token that ends a sequence.
        pad_token_id: What is written behind the end, and nowhere else.
        constraints: Functions `(gains (B, K, V), Hypotheses) -> gains`.
        prefix: Integers `(B, P)`, what each row must begin with whatever constraints
            say; padding where any token may stand. Or None.
        num_groups: Number of groups of neighbouring beams; the first beam of each is
            open at the beginning.
        is_done: Function `Hypotheses -> (B,)`, True where a row needs no more steps;
            its open hypotheses are then cut off.

    Returns:
        A `Generation` with N = K hypotheses in the order of the beams. Its
        log-probabilities are the model's, whatever the constraints did.
    """
    check_max_length(max_length)
    prefix = None if prefix is None else ops.cast(prefix, "int32")
    positions = ops.arange(max_length)  # L

    def is_going_on(t, last, written, state):
        return ops.logical_not(ops.all(written["finished"]))

    def advance(t, last, written, state):
        logits, state = step(last, state, constants)  # B K V
        token_log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
        is_padding = ops.arange(token_log_probs.shape[-1]) == pad_token_id  # V
        token_log_probs = ops.where(is_padding, -float("inf"), token_log_probs)
        hypotheses = Hypotheses(**written, step=t, end_token_id=end_token_id)
        gains = constrained(token_log_probs, hypotheses, constraints)
        if prefix is not None:
            is_due = ops.arange(ops.shape(prefix)[1], dtype="int32") == t  # P
            is_due = ops.logical_and(is_due, prefix != pad_token_id)  # B P
            due = ops.sum(ops.where(is_due, prefix + 1, 0), axis=1) - 1  # B, -1: none
            gains = forced(token_log_probs, gains, due[:, None, None])
        parents, token_ids, scores = select(gains, hypotheses)
        gained = chosen(token_log_probs, parents, token_ids)  # B K
        if parents is not None:
            written, state = reorder((written, state), parents)
        is_open = ops.logical_not(written["finished"])  # B K
        token_ids = ops.where(is_open, token_ids, pad_token_id)
        gained = ops.where(is_open, gained, 0.0)
        exists = scores > -float("inf")  # B K
        is_here = ops.logical_and(is_open[..., None], positions == t)  # B K L
        written = {
            "token_ids": ops.where(is_here, token_ids[..., None], written["token_ids"]),
            "token_log_probs": ops.where(
                is_here, gained[..., None], written["token_log_probs"]
            ),
            "log_probs": ops.where(
                exists, written["log_probs"] + gained, -float("inf")
            ),
            "scores": scores,
            "lengths": written["lengths"] + ops.cast(is_open, "int32"),
            "finished": ops.logical_or(
                ops.logical_or(ops.logical_not(is_open), token_ids == end_token_id),
                ops.logical_not(exists),
            ),
        }
        if is_done is not None:
            done = is_done(Hypotheses(**written, step=t + 1, end_token_id=end_token_id))
            written["finished"] = ops.logical_or(written["finished"], done[:, None])
        return t + 1, token_ids, written, state

    last = ops.repeat(ops.cast(start_token_ids, "int32")[:, None], num_beams, axis=1)
    _, _, written, _ = ops.while_loop(
        is_going_on,
        advance,
        (
            ops.convert_to_tensor(0, "int32"),
            last,
            nothing_written(last, max_length, pad_token_id, num_groups),
            state,
        ),
        maximum_iterations=max_length,
    )
    exists = ops.isfinite(written["log_probs"])  # B K
    token_ids = ops.where(exists[..., None], written["token_ids"], pad_token_id)
    return Generation(
        token_ids=token_ids,
        log_probs=written["log_probs"],
        token_log_probs=ops.where(exists[..., None], written["token_log_probs"], 0.0),
        lengths=ops.where(exists, written["lengths"], 0),
        ended=ops.any(token_ids == end_token_id, axis=-1),
    )


def check_max_length(max_length):
    """Refuses what is no length."""
    is_integer = isinstance(max_length, numbers.Integral)
    if not is_integer or isinstance(max_length, bool) or max_length < 1:
        raise ValueError(
            "`max_length` must be a positive integer, the most tokens to write. "
            f"Received: max_length={max_length!r}."
        )


def nothing_written(last, max_length, pad_token_id, num_groups):
    """Empty hypotheses: the first of each group is open, the others not there yet."""
    num_beams = last.shape[1]
    is_first = ops.arange(num_beams) % (num_beams // num_groups) == 0  # K
    zeros = ops.zeros_like(last)  # B K
    buffer = ops.repeat(zeros[..., None], max_length, axis=-1)  # B K L
    log_probs = ops.cast(ops.where(is_first, 0.0, -float("inf")), "float32")  # K
    log_probs = ops.cast(zeros, "float32") + log_probs  # B K
    return {
        "token_ids": buffer + pad_token_id,
        "token_log_probs": ops.cast(buffer, "float32"),
        "log_probs": log_probs,
        "scores": log_probs,
        "lengths": zeros,
        "finished": ops.logical_or(zeros != 0, ops.logical_not(is_first)),
    }


def constrained(token_log_probs, hypotheses, constraints):
    """The log-probabilities after all constraints: `(B, K, V)`.

    What the model gives no probability to, and padding, stays impossible.
    """
    gains = token_log_probs
    for constraint in constraints:
        gains = constraint(gains, hypotheses)
    if constraints:
        is_possible = token_log_probs > -float("inf")
        gains = ops.where(is_possible, gains, -float("inf"))
    return gains


def forced(token_log_probs, gains, token_ids):
    """Leaves only the given token `(B, 1, 1)` of each row, where it is not negative."""
    is_due = ops.arange(gains.shape[-1]) == token_ids  # B 1 V
    token_log_probs = ops.where(is_due, token_log_probs, -float("inf"))
    return ops.where(token_ids < 0, gains, token_log_probs)


def chosen(token_log_probs, parents, token_ids):
    """The entry `[parents, token_ids]` of each row: `(B, K)`."""
    if parents is None:
        return ops.take_along_axis(token_log_probs, token_ids[..., None], -1)[..., 0]
    num_beams, vocabulary_size = token_log_probs.shape[1:]
    flat = ops.reshape(token_log_probs, (-1, num_beams * vocabulary_size))
    return ops.take_along_axis(flat, parents * vocabulary_size + token_ids, axis=1)


def reorder(tree, parents):
    """Lets hypothesis `k` of every tensor `(B, K, ...)` go on from `parents[:, k]`.

    What stands under a key `"shared"` is `(B, ...)` and stays as it is.
    """
    batch, num_beams = ops.shape(parents)[0], parents.shape[1]
    rows = ops.arange(batch, dtype="int32")[:, None] * num_beams + parents  # B K

    def gather(path, tensor):
        if "shared" in path:
            return tensor
        flat = ops.reshape(tensor, (-1, *ops.shape(tensor)[2:]))  # BK ...
        return ops.take(flat, rows, axis=0)  # B K ...

    leaves = [gather(*leaf) for leaf in keras.tree.flatten_with_path(tree)]
    return keras.tree.pack_sequence_as(tree, leaves)


def best_first(generation, ranks, num_results):
    """The hypotheses of greatest rank `(B, N)`, so many of them, in that order."""
    _, order = ops.top_k(ranks, num_results)
    order = ops.cast(order, "int32")

    def ordered(values):
        shape = (*order.shape, *[1] * (len(values.shape) - 2))
        places = ops.reshape(order, (-1, *shape[1:]))
        return ops.take_along_axis(values, places, axis=1)

    values = {k: v for k, v in vars(generation).items() if v is not None}
    return Generation(**{name: ordered(value) for name, value in values.items()})
