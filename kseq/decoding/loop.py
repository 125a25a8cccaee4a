"""Decoding loop that all searches share.

Axes in shape comments: B batch, K beams, M beams and places for ended hypotheses,
L maximum length, V vocabulary.
"""

import dataclasses
import numbers
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from kseq.decoding.constraints import Constraint
from kseq.decoding.forced import Forced
from kseq.decoding.generation import Generation
from kseq.decoding.hypotheses import Hypotheses
from kseq.decoding.states import begun_state, check_form
from kseq.decoding.validation import check_ends, check_prefix, concrete_values, integers
from kseq.typing import StepFunction, Tensor, TensorLike, Tree

# Tensors (B, M, ...) of hypotheses by name.
Fields: TypeAlias = dict[str, Tensor]

# The choice of a step: parents (B, M) or None, token ids (B, M), fields (B, M).
Selection: TypeAlias = tuple[Tensor | None, Tensor, Fields]

# The loop variables `(t, last, written, state)`.
Carry: TypeAlias = tuple[Tensor, Tensor, Fields, Tree]


@dataclasses.dataclass(frozen=True, eq=False)
class SearchLoop:
    """Decoding loop until every hypothesis has ended or `max_length` is reached.

    Buffers have a fixed size and tokens are stored by `where`, so the loop compiles
    under `tf.function`, XLA and `jax.jit`, and can be exported. `run` takes all steps.
    To observe each token, call `begin`, then `advance` while `is_going_on`.

    The loop variables are a tuple `(t, last, written, state)`: the number of the step,
    the newest tokens `(B, K)`, the fields of M hypotheses, and the state. The first K
    hypotheses are the beams. The others, if a search keeps any, have ended.

    Args:
        step: As for a call of a `Search`, and so are `constants`, `max_length`,
            `end_token_id`, `pad_token_id`, `prefix`, `max_lengths` and `row_seeds`.
        select: Function `(gains (B, K, V), Hypotheses) -> (parents (B, M) or None,
            token_ids (B, M), fields)` that chooses the next tokens. The gains are the
            model's log-probabilities after the constraints. Without parents every
            hypothesis continues itself. The fields are a dictionary of tensors
            `(B, M)`. It includes "scores", minus infinity where there is no hypothesis.
        num_beams: Number of open hypotheses K of each example.
        constraints: Functions `(gains (B, K, V), Hypotheses) -> gains`.
        num_groups: Number of groups of neighbouring beams. The first beam of each group
            is open at the beginning.
        num_ended: Number of places M - K for ended hypotheses. If there are any,
            `select` fills them and adds "ranks" to its fields.

    Attributes:
        forced: The tokens forced by the prefix and the constraints.
    """

    step: StepFunction
    constants: Tree
    select: Callable[[Tensor, Hypotheses], Selection]
    num_beams: int
    max_length: int
    end_token_id: int
    pad_token_id: int = 0
    constraints: Sequence[Constraint] = ()
    prefix: TensorLike | None = None
    max_lengths: TensorLike | None = None
    num_groups: int = 1
    num_ended: int = 0
    row_seeds: TensorLike | None = None
    forced: Forced = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        check_max_length(self.max_length)
        check_ends(self.end_token_id, self.pad_token_id)
        if self.prefix is not None:
            prefix = integers("prefix", self.prefix, "(B, P)")
            ids = self.end_token_id, self.pad_token_id
            check_prefix(prefix, *ids, self.max_length)
            object.__setattr__(self, "prefix", prefix)
        forced = Forced.of(self.prefix, self.constraints, self.pad_token_id)
        object.__setattr__(self, "forced", forced)
        if self.max_lengths is not None:
            limits = integers("max_lengths", self.max_lengths, "(B,)", least=1)
            object.__setattr__(self, "max_lengths", ops.expand_dims(limits, 1))  # B 1
        if self.row_seeds is not None:
            seeds = integers("row_seeds", self.row_seeds, "(B,)", least=-(2**31))
            object.__setattr__(self, "row_seeds", seeds)

    def run(self, start_token_ids: TensorLike, state: Tree) -> Carry:
        """Take all steps and return the loop variables after the last one."""
        return ops.while_loop(
            self.is_going_on,
            self.advance,
            self.begin(start_token_ids, state),
            maximum_iterations=self.max_length,
        )

    def begin(self, start_token_ids: TensorLike, state: Tree) -> Carry:
        """Return the loop variables before the first step.

        Args:
            start_token_ids: Integers `(B,)`.
            state: The state of the step function, tensors `(B, K, ...)`.
        """
        start = integers("start_token_ids", start_token_ids, "(B,)")
        for name in ("prefix", "max_lengths", "row_seeds"):
            check_rows(name, getattr(self, name), start.shape[0])
        state = begun_state(state, start.shape[0], self.num_beams)
        last = ops.repeat(start[:, None], self.num_beams, axis=1)  # B K
        written = nothing_written(
            last, self.max_length, self.pad_token_id, self.num_groups, self.num_ended
        )
        return ops.convert_to_tensor(0, "int32"), last, written, state

    def is_going_on(
        self, t: Tensor, last: Tensor, written: Fields, state: Tree
    ) -> Tensor:
        """Return True while a hypothesis is open: a boolean scalar."""
        return ops.logical_not(ops.all(written["finished"]))

    def advance(self, t: Tensor, last: Tensor, written: Fields, state: Tree) -> Carry:
        """Take one step, which adds a token to each open hypothesis."""
        begun = last, written, state
        logits, state = self.step(last, state, self.constants)  # B K V
        self._check_logits(logits, last)
        check_form(begun[2], state)
        logits = ops.cast(logits, "float32")
        token_log_probs = ops.log_softmax(logits, axis=-1)
        words = ops.arange(token_log_probs.shape[-1], dtype="int32")  # V
        is_padding = words == self.pad_token_id
        token_log_probs = ops.where(is_padding, -float("inf"), token_log_probs)
        hypotheses = self._hypotheses(written, t, state, logits)
        gains = constrained(token_log_probs, hypotheses, self.constraints)
        if self.forced:
            gains = self.forced.impose(token_log_probs, gains, hypotheses)
        parents, token_ids, fields = self.select(gains, hypotheses)
        gained = chosen(token_log_probs, parents, token_ids)  # B M
        if parents is not None:
            written = reorder(written, parents)
            state = reorder(state, parents[:, : self.num_beams])
        is_open = ops.logical_not(written["finished"])  # B M
        token_ids = ops.where(is_open, token_ids, self.pad_token_id)
        written = self._write(t, written, is_open, token_ids, gained, fields)
        ended = token_ids[:, : self.num_beams], written, state
        return t + 1, *keras.tree.map_structure(with_shape_of, begun, ended)

    def _write(
        self,
        t: Tensor,
        written: Fields,
        is_open: Tensor,
        token_ids: Tensor,
        gained: Tensor,
        fields: Fields,
    ) -> Fields:
        gained = ops.where(is_open, gained, 0.0)
        scores = ops.where(is_open, fields["scores"], written["scores"])
        exists = scores > -float("inf")  # B M
        positions = ops.arange(self.max_length, dtype="int32")  # L
        is_here = ops.logical_and(is_open[..., None], positions == t)  # B M L
        has_ended = ops.logical_or(
            ops.logical_or(ops.logical_not(is_open), token_ids == self.end_token_id),
            ops.logical_not(exists),
        )
        if self.max_lengths is not None:
            has_ended = ops.logical_or(has_ended, t + 1 >= self.max_lengths)
        return {
            "token_ids": ops.where(is_here, token_ids[..., None], written["token_ids"]),
            "token_log_probs": ops.where(
                is_here, gained[..., None], written["token_log_probs"]
            ),
            "log_probs": ops.where(
                exists, written["log_probs"] + gained, -float("inf")
            ),
            "lengths": written["lengths"] + ops.cast(is_open, "int32"),
            "finished": has_ended,
            **fields,
            "scores": scores,
        }

    def _hypotheses(
        self, written: Fields, t: Tensor, state: Tree, logits: Tensor
    ) -> Hypotheses:
        own = {name: value[:, : self.num_beams] for name, value in written.items()}
        own.pop("ranks", None)
        if self.num_ended:
            own["ended_ranks"] = written["ranks"][:, self.num_beams :]
        return Hypotheses(
            **own,
            step=t,
            end_token_id=self.end_token_id,
            max_lengths=self.max_lengths,
            coverage=coverage_of(state),
            forced=self.forced,
            logits=logits,
            row_seeds=self.row_seeds,
        )

    def _check_logits(self, logits: Tensor, last: Tensor) -> None:
        """Raise unless the logits are `(B, K, V)` and have all given tokens."""
        shape = tuple(getattr(logits, "shape", ()))
        if len(shape) != 3 or shape[1] not in (None, self.num_beams):
            raise ValueError(
                "A step must return logits of the shape (B, K, V), for token ids "
                f"(B, K) = {tuple(last.shape)}. Received: logits of shape {shape}."
            )
        ids = {"end_token_id": self.end_token_id}
        if self.prefix is not None:
            seen = concrete_values(self.prefix)
            if seen is not None and seen.size and seen.max() != self.pad_token_id:
                ids["prefix"] = int(seen.max())
        for name, token_id in ids.items():
            if token_id >= shape[2]:
                raise ValueError(
                    f"`{name}` must be token ids of the model, which are below "
                    f"{shape[2]}. Received: {name} with {token_id}."
                )

    def result(self, written: Fields) -> Generation:
        """Return hypotheses as a `Generation`, in the given order.

        Its log-probabilities are those of the model, without the constraints.
        """
        exists = ops.isfinite(written["log_probs"])  # B K
        token_ids = ops.where(
            exists[..., None], written["token_ids"], self.pad_token_id
        )
        token_log_probs = ops.where(exists[..., None], written["token_log_probs"], 0.0)
        return Generation(
            token_ids=token_ids,
            log_probs=written["log_probs"],
            token_log_probs=token_log_probs,
            lengths=ops.where(exists, written["lengths"], 0),
            ended=ops.any(token_ids == self.end_token_id, axis=-1),
        )


def coverage_of(state: Tree) -> Tensor | None:
    """Return the attention received by each source step, `(B, K, S)`, or None."""
    return state.get("coverage") if isinstance(state, dict) else None


def check_rows(name: str, values: Tensor | None, num_rows: int | None) -> None:
    """Raise if values are known to have another number of rows than start tokens."""
    if values is not None and None not in (values.shape[0], num_rows):
        if values.shape[0] != num_rows:
            raise ValueError(
                f"`{name}` must have a row for each of `start_token_ids`. Received: "
                f"{values.shape[0]} rows of {name} and {num_rows} start tokens."
            )


def check_max_length(max_length: Any) -> None:
    """Raise unless `max_length` is a positive integer."""
    is_integer = isinstance(max_length, numbers.Integral)
    if not is_integer or isinstance(max_length, bool) or max_length < 1:
        raise ValueError(
            "`max_length` must be a positive integer, the maximum number of tokens. "
            f"Received: max_length={max_length!r}."
        )


def with_shape_of(before: Tensor, after: Tensor) -> Tensor:
    """Return `after` with the static shape of `before`, if TensorFlow has lost it.

    A loop over a batch of one example must keep the known batch size.
    """
    shape = tuple(before.shape)
    if tuple(after.shape) == shape or None in shape:
        return after
    return ops.reshape(after, shape)


def nothing_written(
    last: Tensor, max_length: int, pad_token_id: int, num_groups: int, num_ended: int
) -> Fields:
    """Return empty hypotheses. Only the first of each group is open and exists."""
    num_beams = last.shape[1]
    places = ops.arange(num_beams + num_ended, dtype="int32")  # M
    is_first = places % (num_beams // num_groups) == 0
    is_first = ops.logical_and(is_first, places < num_beams)
    zeros = ops.repeat(ops.zeros_like(last[:, :1]), num_beams + num_ended, 1)  # B M
    buffer = ops.repeat(zeros[..., None], max_length, axis=-1)  # B M L
    log_probs = ops.cast(ops.where(is_first, 0.0, -float("inf")), "float32")  # M
    log_probs = ops.cast(zeros, "float32") + log_probs  # B M
    written = {
        "token_ids": buffer + pad_token_id,
        "token_log_probs": ops.cast(buffer, "float32"),
        "log_probs": log_probs,
        "scores": log_probs,
        "lengths": zeros,
        "finished": ops.logical_or(zeros != 0, ops.logical_not(is_first)),
    }
    return {**written, "ranks": log_probs} if num_ended else written


def constrained(
    token_log_probs: Tensor, hypotheses: Hypotheses, constraints: Sequence[Constraint]
) -> Tensor:
    """Return the log-probabilities after all constraints: `(B, K, V)`.

    Padding, and tokens of probability 0, stay impossible.
    """
    gains = token_log_probs
    for constraint in constraints:
        gains = constraint(gains, hypotheses)
        shape = getattr(gains, "shape", None)
        if shape is None or tuple(shape)[1:] != tuple(token_log_probs.shape)[1:]:
            raise ValueError(
                "A constraint must return log-probabilities of the shape (B, K, V) = "
                f"{tuple(token_log_probs.shape)}. Received: {constraint} returned "
                f"{type(gains).__name__ if shape is None else tuple(shape)}."
            )
    if constraints:
        is_possible = token_log_probs > -float("inf")
        gains = ops.where(is_possible, gains, -float("inf"))
    return gains


def chosen(
    token_log_probs: Tensor, parents: Tensor | None, token_ids: Tensor
) -> Tensor:
    """Return the entries `[parents, token_ids]` of each example: `(B, M)`.

    The entry of a parent that is not a beam is arbitrary.
    """
    if parents is None:
        return ops.take_along_axis(token_log_probs, token_ids[..., None], -1)[..., 0]
    num_beams, vocabulary_size = token_log_probs.shape[1:]
    flat = ops.reshape(token_log_probs, (-1, num_beams * vocabulary_size))
    parents = ops.minimum(parents, num_beams - 1)
    return ops.take_along_axis(flat, parents * vocabulary_size + token_ids, axis=1)


def reorder(tree: Tree, parents: Tensor) -> Tree:
    """Reorder every tensor `(B, K, ...)` so that row `k` is that of `parents[:, k]`.

    Tensors under a key `"shared"` are `(B, ...)` and unchanged.
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


def best_first(generation: Generation, ranks: Tensor, num_results: int) -> Generation:
    """Return the `num_results` hypotheses of highest rank `(B, N)`, best first."""
    _, order = ops.top_k(ranks, num_results)
    order = ops.cast(order, "int32")

    def ordered(values):
        shape = (*order.shape, *[1] * (len(values.shape) - 2))
        places = ops.reshape(order, (-1, *shape[1:]))
        return ops.take_along_axis(values, places, axis=1)

    values = {k: v for k, v in vars(generation).items() if v is not None}
    return Generation(**{name: ordered(value) for name, value in values.items()})
