"""The option `ban_unknown` of pipelines."""

import numpy as np
import pytest

import kseq
from kseq.decoding import BannedTokens, GreedySearch, Sampling
from kseq.text import TextToText, TextWriter, Vocabulary

UNKNOWN = "\ufffd"


@pytest.fixture(scope="module")
def letters():
    return Vocabulary("character").adapt(["abc"])


def prefer_unknown(model):
    """Make a model prefer the unknown token, and after it the letter b."""
    bias = np.zeros(model.output_shape[-1])
    bias[1], bias[5] = 9, 5
    model.head.bias.assign(bias)
    model.head.kernel.assign(0.0 * model.head.kernel)
    return model


@pytest.mark.parametrize(
    "search", [None, GreedySearch([BannedTokens([3])]), Sampling(0.1, seed=1)]
)
def test_a_pipeline_generates_the_unknown_token_unless_it_is_banned(letters, search):
    model = kseq.encoder_decoder(letters.size, letters.size, width=2)
    translator = TextToText(prefer_unknown(model), letters, letters)
    options = {"search": search, "max_length": 3}
    [[best]] = translator.generate(["ab"], **options)
    assert best.text == UNKNOWN * 3
    [[best]] = translator.generate(["ab"], **options, ban_unknown=True)
    assert best.text == "bbb"
    pieces = translator.generate_stream(["ab"], **options, ban_unknown=True)
    assert "".join(piece for [piece] in pieces) == "bbb"


def test_a_ban_keeps_unknown_tokens_of_the_prompt(letters):
    model = prefer_unknown(kseq.one_to_many(letters.size, width=2))
    for window in (None, 4):
        writer = TextWriter(model, letters, window=window)
        assert writer.generate(["a?"], max_length=6) == ["a" + UNKNOWN * 5]
        options = {"max_length": 6, "ban_unknown": True}
        assert writer.generate(["a?"], **options) == ["a" + UNKNOWN + "bbbb"]
        pieces = writer.generate_stream(["a?"], **options)
        assert "".join(piece for [piece] in pieces) == "a" + UNKNOWN + "bbbb"
