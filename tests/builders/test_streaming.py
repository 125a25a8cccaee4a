"""Streaming, which gives the tokens of `generate` one at a time, for every model."""

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import (
    BannedTokens,
    BeamSearch,
    GreedySearch,
    MinimumLength,
    NoRepeatNGrams,
    RelativeLength,
    Sampling,
)
from kseq.layers import ClassEmbedding, RecurrentDecoder, TransformerDecoder
from tests.helpers import dtype_policy, randomize

SOURCE_SIZE, TARGET_SIZE, LENGTH = 11, 7, 6
SOURCES = [[4, 5, 6, 7, 3], [8], [9, 10, 4], [], [5, 5, 1, 5, 9, 5, 5, 2, 5, 6]]

MODELS = {
    "gru, bahdanau": lambda: kseq.encoder_decoder(
        SOURCE_SIZE, TARGET_SIZE, "gru", "gru", width=6
    ),
    "lstm, luong": lambda: kseq.encoder_decoder(
        SOURCE_SIZE,
        TARGET_SIZE,
        "lstm",
        RecurrentDecoder("lstm", 5, 2, attention="luong"),
        width=6,
    ),
    "transformer": lambda: kseq.encoder_decoder(
        SOURCE_SIZE, TARGET_SIZE, "transformer", "transformer", width=6
    ),
    "prefix": lambda: kseq.one_to_many(
        TARGET_SIZE,
        ClassEmbedding(9, 6),
        decoder=TransformerDecoder(1, 3, cross_attention=False, rotary=True),
        width=6,
    ),
    "language model": lambda: kseq.one_to_many(TARGET_SIZE, decoder="lstm", width=6),
}
INPUTS = {"prefix": [4, 0, 8, 8, 1], "language model": 5}
SEARCHES = {
    "greedy": GreedySearch(),
    "sampling": Sampling(1.5, top_p=0.95, seed=5),
    "constrained": GreedySearch([MinimumLength(3), NoRepeatNGrams(2)]),
}


@pytest.fixture(scope="module")
def model():
    return make_model("gru, bahdanau")


def make_model(kind):
    """Build a random model whose sequences sometimes end early."""
    model = MODELS[kind]()
    randomize(model)
    for weight in model.weights:
        weight.assign(1.5 * weight)
    model.head.bias.assign(1.2 * (np.arange(TARGET_SIZE) == 3))
    return model


def stream_tokens(model, source, *arguments, **options):
    """Return the tokens of a stream as one array."""
    tokens = list(model.generate_stream(source, *arguments, **options))
    assert all(token.dtype.kind == "i" for token in tokens)
    return np.stack(tokens, axis=-1)


def assert_same_tokens(tokens, result):
    whole = result.token_ids[:, 0]
    steps = tokens.shape[1]
    np.testing.assert_array_equal(tokens, whole[:, :steps])
    assert steps == result.lengths.max(), "the stream ends with the longest row"


@pytest.mark.parametrize("kind", MODELS)
def test_streaming_gives_the_tokens_of_generate(kind):
    model, source = make_model(kind), INPUTS.get(kind, SOURCES)
    lengths = set()
    for search in SEARCHES.values():
        result = model.generate(source, search, LENGTH)
        assert_same_tokens(stream_tokens(model, source, search, LENGTH), result)
        lengths |= set(result.lengths.ravel().tolist())
    assert len(lengths) > 1


def test_a_row_streams_the_same_alone_and_in_a_batch(model):
    tokens = stream_tokens(model, SOURCES, max_length=LENGTH)
    for row, source in enumerate(SOURCES):
        alone = stream_tokens(model, [source], max_length=LENGTH)
        assert alone.shape[0] == 1
        np.testing.assert_array_equal(alone[0], tokens[row, : alone.shape[1]])


def test_a_stream_begins_with_its_prefix(model):
    prefix = [[4, 5], [], [6, 6, 6], [2], [1]]
    for search in SEARCHES.values():
        result = model.generate(SOURCES, search, LENGTH, prefix=prefix)
        tokens = stream_tokens(model, SOURCES, search, LENGTH, prefix=prefix)
        assert_same_tokens(tokens, result)
        assert tokens[2, :3].tolist() == [6, 6, 6]


def test_relative_lengths_limit_a_stream(model):
    length = RelativeLength(0.5, 2)
    search = GreedySearch([BannedTokens([3])])
    result = model.generate(SOURCES, search, length)
    tokens = stream_tokens(model, SOURCES, search, length)
    assert_same_tokens(tokens, result)
    assert (tokens > 0).sum(axis=1).tolist() == [4, 2, 3, 2, 7]


def test_tokens_come_one_at_a_time_and_streams_are_independent(model):
    searches = [GreedySearch([BannedTokens([3])]), Sampling(seed=2)]
    first, second = (
        model.generate_stream(SOURCES[i:], search, LENGTH)
        for i, search in enumerate(searches)
    )
    pairs = [(next(first), next(second)) for _ in range(2)]
    rest = list(first)
    assert len(rest) == LENGTH - 2
    for i, search in enumerate(searches):
        whole = model.generate(SOURCES[i:], search, LENGTH).token_ids[:, 0, :2]
        tokens = np.stack([pair[i] for pair in pairs], axis=-1)
        np.testing.assert_array_equal(tokens, whole)


def test_without_a_seed_a_stream_uses_the_seed_of_keras(model):
    rows = [[4, 5]] * 20
    keras.utils.set_random_seed(3)
    result = model.generate(rows, Sampling(2.0), LENGTH)
    keras.utils.set_random_seed(3)
    tokens = stream_tokens(model, rows, Sampling(2.0), LENGTH)
    assert_same_tokens(tokens, result)
    again = stream_tokens(model, rows, Sampling(2.0), LENGTH)
    assert tokens.shape != again.shape or (tokens != again).any()


@pytest.mark.parametrize(
    "policy, name",
    [(f"mixed_{x}", y) for x in ("bfloat16", "float16") for y in SEARCHES],
)
def test_half_precision_streams_the_same(policy, name):
    with dtype_policy(policy):
        model = make_model("transformer")
    result = model.generate(SOURCES, SEARCHES[name], LENGTH)
    assert_same_tokens(stream_tokens(model, SOURCES, SEARCHES[name], LENGTH), result)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="has no XLA")
def test_xla_streams_the_same(model):
    result = model.generate(SOURCES, max_length=LENGTH)
    tokens = stream_tokens(model, SOURCES, max_length=LENGTH, jit_compile=True)
    assert_same_tokens(tokens, result)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch compiles nothing")
def test_a_step_is_compiled_once(model, monkeypatch):
    traced, step = [], model.step

    def counting(*arguments):
        traced.append(1)
        return step(*arguments)

    monkeypatch.setattr(model, "step", counting)
    search = GreedySearch([BannedTokens([3, 4])])
    assert stream_tokens(model, SOURCES, search, 9).shape == (5, 9)
    assert len(traced) == 1
    stream_tokens(model, [[4] * 12, *SOURCES[1:], SOURCES[0]], search, 9)
    assert len(traced) == 1


def test_the_next_stream_uses_changed_weights(model):
    stream_tokens(model, SOURCES, max_length=3)
    bias = keras.ops.convert_to_numpy(model.head.bias)
    model.head.bias.assign(bias + 50 * (np.arange(TARGET_SIZE) == 4))
    tokens = stream_tokens(model, SOURCES, max_length=3)
    model.head.bias.assign(bias)
    assert (tokens == 4).all()


@pytest.mark.parametrize(
    "search", [BeamSearch(1), BeamSearch(4), Sampling(num_draws=2)]
)
def test_immediately_rejects_a_search_that_revises_tokens(model, search):
    with pytest.raises(ValueError, match="never revises tokens.*num_(beams|draws)="):
        model.generate_stream(SOURCES, search)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_length": 0}, "`max_length` must be a positive integer"),
        ({"source": [[99]]}, "`source` must hold integers"),
        ({"search": "greedy"}, "`search` must be a search object"),
        ({"prefix": [[4]]}, "5 rows of source and 1 of prefix"),
        ({"jit_compile": "auto"}, "`jit_compile`"),
    ],
)
def test_immediately_rejects_invalid_options(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.generate_stream(**{"source": SOURCES, **options})
