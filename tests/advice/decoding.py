"""Searches: bad calls, their advice, and corrected calls."""

import dataclasses

import numpy as np
from keras import ops

import kseq
from kseq.decoding import (
    BannedTokens,
    BeamSearch,
    ForcedTokens,
    GreedySearch,
    Sampling,
    best_of,
)
from kseq.layers import RecurrentDecoder, TokenEmbedding
from tests.advice.eagerly import eagerly
from tests.decoding.custom_search import EpsilonGreedy
from tests.helpers import array, random_array

B, S, D, U, K, V = 2, 5, 6, 4, 3, 7
MEMORY = random_array(B, S, D)
TABLE = np.log([[0.1, 0.1, 0.8], [0.2, 0.2, 0.6], [0.1, 0.7, 0.2]]).astype("float32")


def run(search, end_token_id=1, step=None, state=(), max_length=4):
    def follow(token_ids, state, constants):
        return ops.take(TABLE, token_ids, axis=0), state

    return search(step or follow, state, (), [0], end_token_id, max_length)


def generate_with_guidance(search):
    model = kseq.encoder_decoder(V, V, "rnn", "rnn", width=3, source_dropout=0.1)
    with eagerly():
        model.generate([[4, 5]], search, 3)


def generate_without_end():
    result = run(GreedySearch([BannedTokens([1])]))
    assert array(result.lengths).tolist() == [[4]]


def decode(**options):
    embedding, decoder = TokenEmbedding(V, D), RecurrentDecoder("rnn", V)

    def step(token_ids, state, constants):
        return decoder.step(embedding(token_ids), state, constants)

    decoder(embedding(np.array([[2], [2]])), MEMORY)
    state, constants = decoder.start(MEMORY, **options)
    return BeamSearch(K)(step, state, constants, [2, 2], 3, 4)


def growing_state(token_ids, state, constants):
    return ops.take(TABLE, token_ids, axis=0), ops.concatenate(
        [state, token_ids[..., None]], axis=-1
    )


def state_of_full_size(token_ids, state, constants):
    read, t = state
    here = ops.arange(4, dtype="int32") == t[..., None]  # B K T
    read = ops.where(here, token_ids[..., None], read)
    return ops.take(TABLE, token_ids, axis=0), (read, t + 1)


@dataclasses.dataclass(frozen=True)
class UndeclaredRandomness(EpsilonGreedy):
    is_random = False


ADVICE = {
    "random numbers of a search that is not random": (
        lambda: run(UndeclaredRandomness(seed=3)),
        "Set `is_random = True` in a search that calls `random_numbers`.",
        lambda: run(EpsilonGreedy(seed=3)),
    ),
    "forced padding": (
        lambda: run(GreedySearch([ForcedTokens([2, 0])])),
        "Use None where any token may come.",
        lambda: run(GreedySearch([ForcedTokens([2, None, 2])])),
    ),
    "an end token that does not exist": (
        lambda: run(GreedySearch(), end_token_id=-1),
        "To always generate up to `max_length`, ban the end token: "
        "`BannedTokens([end_token_id])`.",
        generate_without_end,
    ),
    "a temperature of zero": (
        lambda: Sampling(temperature=0),
        "To always take the most probable token, use `GreedySearch()`.",
        lambda: run(GreedySearch()),
    ),
    "a state of too few beams": (
        decode,
        "Start a decoder of kseq with this number of beams: `start(..., num_beams=3)`.",
        lambda: decode(num_beams=3),
    ),
    "a state that grows": (
        lambda: run(
            GreedySearch(), step=growing_state, state=np.zeros((1, 1, 0), "int32")
        ),
        "Allocate a growing tensor at its full size, and keep the step number in the "
        "state.",
        lambda: run(
            GreedySearch(),
            step=state_of_full_size,
            state=(np.zeros((1, 1, 4), "int32"), np.zeros((1, 1), "int32")),
        ),
    ),
    "more of the best than a search returns": (
        lambda: best_of(run(BeamSearch(2)), [[0, 1]], n=3),
        "Use a search that returns more.",
        lambda: best_of(run(BeamSearch(3)), [[0, 1, 2]], n=3),
    ),
    "guidance without a second state": (
        lambda: run(GreedySearch(guidance=2.0)),
        "A model of kseq creates them: `model.generate(source, search)`.",
        lambda: generate_with_guidance(GreedySearch(guidance=2.0)),
    ),
    "guidance and coverage": (
        lambda: BeamSearch(coverage_penalty=0.2, guidance=2.0),
        "Leave one of them out.",
        lambda: (BeamSearch(coverage_penalty=0.2), BeamSearch(guidance=2.0)),
    ),
}
