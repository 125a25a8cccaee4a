"""The protocol of searches: what every search has, and its one call.

Axes in shape comments: B batch, K beams, M beams and places for what has ended,
V vocabulary.
"""

import copy
import dataclasses

from keras import ops

from kseq.decoding import randomness
from kseq.decoding.constraints import constraint_tuple
from kseq.decoding.guidance import as_guidance, check_parts
from kseq.decoding.loop import SearchLoop, coverage_of
from kseq.decoding.validation import integers


@dataclasses.dataclass(frozen=True)
class Search:
    """The base of all searches: a rule by which hypotheses go on, and its options.

    A search of one's own is a frozen dataclass, with its options as fields, that says
    in `select` which tokens the hypotheses take at a step. The rest stands here: the
    loop, which compiles on every backend, prefixes, lengths, constraints, and the
    log-probabilities of the model. A model takes such a search wherever it takes one
    of kseq: in `generate`, `generate_stream` and `export_generation`.

    Attributes:
        num_beams: Number of hypotheses K of a row that go on, 1.
        constraints: Constraints on what may be written, in their order. None by
            default; a search that takes some has a field of this name.
        guidance: How much more than once the source counts, a `Guidance` or its scale;
            None by default. A search that takes one has a field of this name.
        is_random: Whether `select` calls `hypotheses.random_numbers()`; False.
        seed: Integer that decides the random numbers, of which 32 bits count. With
            None, the default, every call draws anew, following Python's `random`, which
            `keras.utils.set_random_seed` seeds.
        can_stream: Whether a token that has been written stays, and there is one
            hypothesis, so that tokens may be given out as they come; False.
        needs_coverage: Whether `select` reads `hypotheses.coverage`, to which a model
            of kseq then adds its attention; False.
        num_groups: Number of groups of neighbouring beams, 1. The first beam of each
            is open at the beginning; hypotheses that never meet are as many groups.
        num_ended: Number of places M - K for hypotheses that have ended, 0. A search
            that has some fills them, and ranks all M by a field "ranks".

    Call arguments:
        step: Function `(token_ids (B, K), state, constants) -> (logits (B, K, V),
            state)`.
        state: Tree of tensors `(B, K, ...)`, of the same shapes at every step,
            reordered with the hypotheses, except what stands under a key `"shared"`,
            tensors `(B, ...)` that they keep in common. A search that needs
            coverage takes a dictionary with "coverage", `(B, K, S)`: how much each
            source step has been attended to, 0 at the beginning, and 1 where there is
            padding. With guidance a dictionary of two states, "conditional" and
            "unconditional".
        constants: Tree of tensors `(B, ...)`, never touched; with guidance two, by the
            same names.
        start_token_ids: Integers `(B,)`, the first token that each row reads: a list,
            an array or a tensor.
        end_token_id: The token that ends a sequence.
        max_length: Most tokens L to write, the end token counted.
        pad_token_id: What is written behind the end, and nowhere else.
        prefix: Integers `(B, P)`, what each row must begin with whatever constraints
            say; padding where any token but the end may stand. Or None.
        max_lengths: Integers `(B,)`, where a row is cut off before `max_length`; or
            None.
        row_seeds: Integers `(B,)` of a search that is random, for rows that are not the
            first B rows. Defaults to `row_seeds(B)` of the search.

    Returns:
        A `Generation` with the hypotheses of each row.

    Raises:
        ValueError: An argument is out of its range, or the state does not tell what
            has been covered.

    Example:

    The most probable token, but now and then the second:

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

    num_beams = 1
    constraints = ()
    guidance = None
    is_random = False
    seed = None
    can_stream = False
    needs_coverage = False
    num_groups = 1
    num_ended = 0

    def __post_init__(self):
        object.__setattr__(self, "constraints", constraint_tuple(self.constraints))
        if self.guidance is not None:
            object.__setattr__(self, "guidance", as_guidance(self.guidance))

    def select(self, gains, hypotheses):
        """Chooses how the hypotheses go on at a step.

        Args:
            gains: `(B, K, V)`, the log-probabilities that the model gives to the next
                token, after the constraints.
            hypotheses: The `Hypotheses` so far. What is chosen for one that has ended
                counts for nothing.

        Returns:
            `(parents, token_ids, fields)`: integers `(B, M)`, which of the hypotheses
            goes on there, or None where each goes on by itself; integers `(B, M)`; and
            a dictionary of tensors `(B, M)`, "scores" among them, by which hypotheses
            are ranked, minus infinity where there is none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method `select`.")

    def finish(self, loop, written):
        """The `Generation` of what has been written, when no hypothesis is open.

        Args:
            loop: The `SearchLoop` that has written.
            written: Tensors `(B, M, ...)` of all hypotheses by name: those of the
                result, "scores", and what `select` has added.
        """
        return loop.result(written)

    def row_seeds(self, num_rows):
        """Seeds `(B,)` of random numbers, one for each row; None if there are none."""
        return randomness.row_seeds(self.seed, num_rows) if self.is_random else None

    def with_constraints(self, constraints):
        """The same search with more constraints, behind its own."""
        more = constraint_tuple(constraints)
        if not more:
            return self
        search = copy.copy(self)
        object.__setattr__(search, "constraints", (*self.constraints, *more))
        return search

    def loop(self, step, constants, end_token_id, max_length, **options):
        """The loop of a call, to be run, or advanced step by step.

        Args:
            step: As for a call.
            constants: As for a call.
            end_token_id: As for a call.
            max_length: As for a call.
            **options: `pad_token_id`, `prefix`, `max_lengths` and `row_seeds`, as for a
                call. A random search needs `row_seeds`.
        """
        return SearchLoop(
            step if self.guidance is None else self.guidance.guided(step),
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
        step,
        state,
        constants,
        start_token_ids,
        end_token_id,
        max_length,
        pad_token_id=0,
        prefix=None,
        max_lengths=None,
        row_seeds=None,
    ):
        if self.guidance is not None:
            check_parts("state", state)
            check_parts("constants", constants)
        if self.needs_coverage and coverage_of(state) is None:
            raise ValueError(
                "With a coverage penalty the state must be a dictionary that has "
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
