"""The decoder loop that every search shares.

Axes in shape comments: B batch, K beams, L maximum length, V vocabulary.
"""

import numbers

import keras
from keras import ops

from kseq.decoding.generation import Generation


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
):
    """Writes tokens until every hypothesis has ended or `max_length` is reached.

    Buffers have a fixed size and a token is written by `where`, so the loop compiles
    under `tf.function`, XLA and `jax.jit`, and can be exported.

    Args:
        step: Function `(token_ids (B, K), state, constants) -> (logits (B, K, V),
            state)`.
        state: Tree of tensors `(B, K, ...)`, reordered with the hypotheses.
        constants: Tree of tensors `(B, ...)`, never touched.
        start_token_ids: Integers `(B,)`, the first token that each row reads.
        select: Function `(token_log_probs (B, K, V), hypotheses) -> (parents (B, K) or
            None, token_ids (B, K), log_probs (B, K))` that chooses how to go on; None
            means that every hypothesis goes on by itself.
        num_beams: Number of hypotheses K of a row.
        max_length: Most tokens L to write, the end token counted.
        end_token_id: The token that ends a sequence.
        pad_token_id: What is written behind the end, and nowhere else.

    Returns:
        A `Generation` with N = K hypotheses in the order of the beams.
    """
    check_max_length(max_length)
    positions = ops.arange(max_length)  # L

    def is_going_on(t, last, hypotheses, state):
        return ops.logical_not(ops.all(hypotheses["finished"]))

    def advance(t, last, hypotheses, state):
        logits, state = step(last, state, constants)  # B K V
        token_log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
        is_padding = ops.arange(token_log_probs.shape[-1]) == pad_token_id  # V
        token_log_probs = ops.where(is_padding, -float("inf"), token_log_probs)
        parents, token_ids, log_probs = select(token_log_probs, hypotheses)
        if parents is not None:
            hypotheses, state = reorder((hypotheses, state), parents)
        is_open = ops.logical_not(hypotheses["finished"])  # B K
        token_ids = ops.where(is_open, token_ids, pad_token_id)
        gained = ops.where(is_open, log_probs - hypotheses["log_probs"], 0.0)
        written = ops.logical_and(is_open[..., None], positions == t)  # B K L
        hypotheses = {
            "token_ids": ops.where(
                written, token_ids[..., None], hypotheses["token_ids"]
            ),
            "token_log_probs": ops.where(
                written, gained[..., None], hypotheses["token_log_probs"]
            ),
            "log_probs": log_probs,
            "lengths": hypotheses["lengths"] + ops.cast(is_open, "int32"),
            "finished": ops.logical_or(
                ops.logical_or(ops.logical_not(is_open), token_ids == end_token_id),
                ops.logical_not(ops.isfinite(log_probs)),
            ),
        }
        return t + 1, token_ids, hypotheses, state

    last = ops.repeat(ops.cast(start_token_ids, "int32")[:, None], num_beams, axis=1)
    _, _, hypotheses, _ = ops.while_loop(
        is_going_on,
        advance,
        (
            ops.convert_to_tensor(0, "int32"),
            last,
            first_hypotheses(last, max_length, pad_token_id),
            state,
        ),
        maximum_iterations=max_length,
    )
    exists = ops.isfinite(hypotheses["log_probs"])  # B K
    return Generation(
        token_ids=ops.where(exists[..., None], hypotheses["token_ids"], pad_token_id),
        log_probs=hypotheses["log_probs"],
        token_log_probs=ops.where(
            exists[..., None], hypotheses["token_log_probs"], 0.0
        ),
        lengths=ops.where(exists, hypotheses["lengths"], 0),
    )


def check_max_length(max_length):
    """Refuses what is no length."""
    is_integer = isinstance(max_length, numbers.Integral)
    if not is_integer or isinstance(max_length, bool) or max_length < 1:
        raise ValueError(
            "`max_length` must be a positive integer, the most tokens to write. "
            f"Received: max_length={max_length!r}."
        )


def first_hypotheses(last, max_length, pad_token_id):
    """Empty hypotheses: one that is open for each row, the others not there yet."""
    num_beams = last.shape[1]
    is_first = ops.arange(num_beams) == 0  # K
    zeros = ops.zeros_like(last)  # B K
    buffer = ops.repeat(zeros[..., None], max_length, axis=-1)  # B K L
    log_probs = ops.where(is_first, 0.0, -float("inf"))  # K
    return {
        "token_ids": buffer + pad_token_id,
        "token_log_probs": ops.cast(buffer, "float32"),
        "log_probs": ops.cast(zeros, "float32") + ops.cast(log_probs, "float32"),
        "lengths": zeros,
        "finished": ops.logical_or(zeros != 0, ops.logical_not(is_first)),
    }


def reorder(tree, parents):
    """Lets hypothesis `k` of every tensor `(B, K, ...)` go on from `parents[:, k]`."""
    batch, num_beams = ops.shape(parents)[0], parents.shape[1]
    rows = ops.arange(batch, dtype="int32")[:, None] * num_beams + parents  # B K

    def gather(tensor):
        flat = ops.reshape(tensor, (-1, *ops.shape(tensor)[2:]))  # BK ...
        return ops.take(flat, rows, axis=0)  # B K ...

    return keras.tree.map_structure(gather, tree)
