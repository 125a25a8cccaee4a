"""Searches: bad calls, what their messages advise, and calls that do it."""

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


def search(how, end_token_id=1, step=None, state=(), max_length=4):
    def follow(token_ids, state, constants):
        return ops.take(TABLE, token_ids, axis=0), state

    return how(step or follow, state, (), [0], end_token_id, max_length)


def write_guided(how):
    model = kseq.encoder_decoder(V, V, "rnn", "rnn", width=3, source_dropout=0.1)
    with eagerly():
        model.generate([[4, 5]], how, 3)


def write_up_to_the_end():
    written = search(GreedySearch([BannedTokens([1])]))
    assert array(written.lengths).tolist() == [[4]]


def decode(**options):
    embedding, decoder = TokenEmbedding(V, D), RecurrentDecoder("rnn", V)

    def step(token_ids, state, constants):
        return decoder.step(embedding(token_ids), state, constants)

    decoder(embedding(np.array([[2], [2]])), MEMORY)
    state, constants = decoder.start(MEMORY, **options)
    return BeamSearch(K)(step, state, constants, [2, 2], 3, 4)


def growing(token_ids, state, constants):
    return ops.take(TABLE, token_ids, axis=0), ops.concatenate(
        [state, token_ids[..., None]], axis=-1
    )


def with_room(token_ids, state, constants):
    read, t = state
    here = ops.arange(4, dtype="int32") == t[..., None]  # B K T
    read = ops.where(here, token_ids[..., None], read)
    return ops.take(TABLE, token_ids, axis=0), (read, t + 1)


@dataclasses.dataclass(frozen=True)
class Undeclared(EpsilonGreedy):
    is_random = False


ADVICE = {
    "random numbers of a search that is none": (
        lambda: search(Undeclared(seed=3)),
        "Set `is_random = True` in a search that calls `random_numbers`.",
        lambda: search(EpsilonGreedy(seed=3)),
    ),
    "padding that is forced": (
        lambda: search(GreedySearch([ForcedTokens([2, 0])])),
        "Use None where any token may come.",
        lambda: search(GreedySearch([ForcedTokens([2, None, 2])])),
    ),
    "an end that is no token": (
        lambda: search(GreedySearch(), end_token_id=-1),
        "To always generate up to `max_length`, ban the end: "
        "`BannedTokens([end_token_id])`.",
        write_up_to_the_end,
    ),
    "a temperature of zero": (
        lambda: Sampling(temperature=0),
        "To always take the most probable token, use `GreedySearch()`.",
        lambda: search(GreedySearch()),
    ),
    "a state of too few beams": (
        decode,
        "Start a decoder of kseq with this number of beams: `start(..., num_beams=3)`.",
        lambda: decode(num_beams=3),
    ),
    "a state that grows": (
        lambda: search(
            GreedySearch(), step=growing, state=np.zeros((1, 1, 0), "int32")
        ),
        "Allocate a growing tensor at its full size, and keep the step number in the "
        "state.",
        lambda: search(
            GreedySearch(),
            step=with_room,
            state=(np.zeros((1, 1, 4), "int32"), np.zeros((1, 1), "int32")),
        ),
    ),
    "more of the best than there are": (
        lambda: best_of(search(BeamSearch(2)), [[0, 1]], n=3),
        "Use a search that returns more.",
        lambda: best_of(search(BeamSearch(3)), [[0, 1, 2]], n=3),
    ),
    "guidance of one state": (
        lambda: search(GreedySearch(guidance=2.0)),
        "A model of kseq creates them: `model.generate(source, search)`.",
        lambda: write_guided(GreedySearch(guidance=2.0)),
    ),
    "guidance and coverage": (
        lambda: BeamSearch(coverage_penalty=0.2, guidance=2.0),
        "Leave one of them out.",
        lambda: (BeamSearch(coverage_penalty=0.2), BeamSearch(guidance=2.0)),
    ),
}
