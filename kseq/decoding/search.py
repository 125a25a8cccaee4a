"""Base class of searches.

Axes in shape comments: B batch, K beams, M beams and places for ended hypotheses,
V vocabulary.
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from keras import ops

from kseq.decoding import randomness
from kseq.decoding.constraints import Constraint, constraint_tuple
from kseq.decoding.generation import Generation
from kseq.decoding.guidance import Guidance, as_guidance, check_parts
from kseq.decoding.hypotheses import Hypotheses
from kseq.decoding.loop import Fields, SearchLoop, Selection, coverage_of
from kseq.decoding.validation import integers
from kseq.typing import StepFunction, Tensor, TensorLike, Tree


@dataclasses.dataclass(frozen=True)
class Search:
    """Base class of all searches: a rule that chooses the next tokens, and its options.

    A custom search is a frozen dataclass with its options as fields. Its method
    `select` chooses the next tokens of the hypotheses. This class provides the rest:
    the loop, which compiles on every backend, prefixes, lengths, constraints, and the
    log-probabilities of the model. Custom searches work in `generate`,
    `generate_stream` and `export_generation`, like those of kseq.

    Attributes:
        num_beams: Number of open hypotheses K of each example. Defaults to 1.
        constraints: Constraints on the generated tokens, applied in this order. Empty
            by default. A search that takes constraints has a field of this name.
        guidance: A `Guidance` or its scale, or None, the default. A search that takes
            guidance has a field of this name.
        is_random: Whether `select` calls `hypotheses.random_numbers()`. Defaults to
            False.
        seed: Integer seed of the random numbers, of which 32 bits are used. With None,
            the default, each call draws new numbers from Python's `random`, which
            `keras.utils.set_random_seed` seeds.
        can_stream: Whether there is one hypothesis and a generated token never changes,
            so that tokens can be streamed as they are generated. Defaults to False.
        needs_coverage: Whether `select` reads `hypotheses.coverage`. A model of kseq
            then adds up its attention there. Defaults to False.
        num_groups: Number of groups of neighbouring beams. The first beam of each group
            is open at the beginning. For independent hypotheses use one group for each.
            Defaults to 1.
        num_ended: Number of places M - K for ended hypotheses. A search that has some
            fills them, and ranks all M hypotheses by a field "ranks". Defaults to 0.

    Call arguments:
        step: Function `(token_ids (B, K), state, constants) -> (logits (B, K, V),
            state)`.
        state: Tree of tensors `(B, K, ...)`, with the same shapes at every step. They
            are reordered with the hypotheses, except tensors `(B, ...)` under a key
            `"shared"`, which all hypotheses share. A search that needs coverage takes a
            dictionary with "coverage", `(B, K, S)`: the attention that each source step
            has received, 0 at the beginning, and 1 for padding. With guidance, a
            dictionary of two states, "conditional" and "unconditional".
        constants: Tree of tensors `(B, ...)`, never changed. With guidance, a
            dictionary of two, with the same keys.
        start_token_ids: Integers `(B,)`, the start token of each example: a list, an
            array or a tensor.
        end_token_id: The token that ends a sequence.
        max_length: Maximum number of tokens L, including the end token.
        pad_token_id: The token after the end. It is never generated.
        prefix: Integers `(B, P)`, the first tokens of each example, regardless of the
            constraints. Padding where any token but the end may come. Or None.
        max_lengths: Integers `(B,)`, the maximum length of each example, if less than
            `max_length`; or None.
        row_seeds: Integers `(B,)`, the seeds of a random search, for rows other than
            the first B. Defaults to `row_seeds(B)` of the search.

    Returns:
        A `Generation` with the hypotheses of each example.

    Raises:
        ValueError: An argument is out of range, or the search needs coverage and the
            state lacks it.

    Example:

    The most probable token, but sometimes the second:

    >>> import dataclasses
    >>> from keras import ops
    >>> from kseq.decoding import Search
    >>> @dataclasses.dataclass(frozen=True)
    ... class EpsilonGreedy(Search):
    ...     epsilon: float = 0.1
    ...     seed: int | None = None
    ...     constraints: tuple = ()
    ...     is_random, can_stream = True, True
    ...
    ...     def select(self, gains, hypotheses):
    ...         gains, token_ids = ops.top_k(gains, 2)  # B K 2
    ...         takes_second = hypotheses.random_numbers() < self.epsilon  # B K
    ...         takes_second &= gains[..., 1] > -float("inf")
    ...
    ...         def taken(two):
    ...             return ops.where(takes_second, two[..., 1], two[..., 0])
    ...
    ...         scores = hypotheses.scores + taken(gains)
    ...         return None, ops.cast(taken(token_ids), "int32"), {"scores": scores}
    >>> import kseq
    >>> model = kseq.encoder_decoder(source=11, target=13, width=8)
    >>> sources = [[4, 5, 6], [7]]
    >>> result = model.generate(sources, search=EpsilonGreedy(seed=5), max_length=9)
    >>> result.token_ids.shape
    (2, 1, 9)
    >>> certain = model.generate(sources, search=EpsilonGreedy(0.0), max_length=9)
    >>> greedy = model.generate(sources, max_length=9)
    >>> bool((certain.token_ids == greedy.token_ids).all())
    True
    """

    if TYPE_CHECKING:  # properties, which a field, an attribute or a property overrides

        @property
        def num_beams(self) -> int: ...
        @property
        def constraints(self) -> Sequence[Constraint]: ...
        @property
        def guidance(self) -> Guidance | float | None: ...
        @property
        def is_random(self) -> bool: ...
        @property
        def seed(self) -> int | None: ...
        @property
        def can_stream(self) -> bool: ...
        @property
        def needs_coverage(self) -> bool: ...
        @property
        def num_groups(self) -> int: ...
        @property
        def num_ended(self) -> int: ...

    else:
        num_beams = 1
        constraints = ()
        guidance = None
        is_random = False
        seed = None
        can_stream = False
        needs_coverage = False
        num_groups = 1
        num_ended = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "constraints", constraint_tuple(self.constraints))
        if self.guidance is not None:
            object.__setattr__(self, "guidance", as_guidance(self.guidance))

    def select(self, gains: Tensor, hypotheses: Hypotheses) -> Selection:
        """Choose the next tokens of the hypotheses.

        Args:
            gains: `(B, K, V)`, the model's log-probabilities of the next token, after
                the constraints.
            hypotheses: The `Hypotheses` so far. The choice for an ended hypothesis is
                ignored.

        Returns:
            `(parents, token_ids, fields)`. Parents are integers `(B, M)`, the number of
            the hypothesis that each new one continues, or None if each continues
            itself. Token ids are integers `(B, M)`. Fields are a dictionary of tensors
            `(B, M)`, which includes the "scores" that rank the hypotheses, minus
            infinity where there is no hypothesis.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method `select`.")

    def finish(self, loop: SearchLoop, written: Fields) -> Generation:
        """Return the `Generation` when no hypothesis is open any more.

        Args:
            loop: The `SearchLoop` that generated the tokens.
            written: Tensors `(B, M, ...)` of all hypotheses by name: those of the
                result, "scores", and the fields that `select` has added.
        """
        return loop.result(written)

    def row_seeds(self, num_rows: int | Tensor) -> Tensor | None:
        """Return a seed for each row, `(B,)`; None if the search is not random."""
        return randomness.row_seeds(self.seed, num_rows) if self.is_random else None

    def with_constraints(self, constraints: Sequence[Constraint]) -> Self:
        """Return the same search with more constraints after its own."""
        more = constraint_tuple(constraints)
        if not more:
            return self
        search = copy.copy(self)
        object.__setattr__(search, "constraints", (*self.constraints, *more))
        return search

    def loop(
        self,
        step: StepFunction,
        constants: Tree,
        end_token_id: int,
        max_length: int,
        **options: Any,
    ) -> SearchLoop:
        """Return the loop of a call, to run it, or to advance it step by step.

        Args:
            step: As for a call.
            constants: As for a call.
            end_token_id: As for a call.
            max_length: As for a call.
            **options: `pad_token_id`, `prefix`, `max_lengths` and `row_seeds`, as for a
                call. A random search needs `row_seeds`.
        """
        guidance = as_guidance(self.guidance)
        return SearchLoop(
            step if guidance is None else guidance.guided(step),
            constants,
            self.select,
            num_beams=self.num_beams,
            num_groups=self.num_groups,
            num_ended=self.num_ended,
            max_length=max_length,
            end_token_id=end_token_id,
            constraints=self.constraints,
            **options,
        )

    def __call__(
        self,
        step: StepFunction,
        state: Tree,
        constants: Tree,
        start_token_ids: TensorLike,
        end_token_id: int,
        max_length: int,
        pad_token_id: int = 0,
        prefix: TensorLike | None = None,
        max_lengths: TensorLike | None = None,
        row_seeds: TensorLike | None = None,
    ) -> Generation:
        if self.guidance is not None:
            check_parts("state", state)
            check_parts("constants", constants)
        if self.needs_coverage and coverage_of(state) is None:
            raise ValueError(
                "With a coverage penalty, the state must be a dictionary that has "
                '"coverage", (B, K, S), to which each step adds its attention. '
                f"Received: {self} with a state of {type(state).__name__}."
            )
        if row_seeds is None and self.is_random:
            start_token_ids = integers("start_token_ids", start_token_ids, "(B,)")
            row_seeds = self.row_seeds(ops.shape(start_token_ids)[0])
        loop = self.loop(
            step,
            constants,
            end_token_id,
            max_length,
            pad_token_id=pad_token_id,
            prefix=prefix,
            max_lengths=max_lengths,
            row_seeds=row_seeds,
        )
        _, _, written, _ = loop.run(start_token_ids, state)
        return self.finish(loop, written)
