"""Streamed texts: pieces of whole characters that join to the text of `generate`."""

import itertools
import unicodedata

import keras
import numpy as np
import pytest

import kseq
from kseq.decoding import BannedTokens, BeamSearch, GreedySearch, Sampling
from kseq.text import TextToText, TextWriter, Vocabulary
from kseq.text.streaming import TextStream, joining_characters

TEXTS = [
    "한국어 값이 닭",
    "no\u0301 e\u0323\u0301a",
    "क्षि 値 hi-fi, (a) “b”.",
    "각ㄱ1 가",
]
SPLITS = ("character", "word", "word_and_mark", "word_piece")
FORMS = ("NFC", "NFD", "NFKC", "NFKD", None)
SCRIPTS = list(itertools.product(SPLITS, FORMS))


def stream_of(vocabulary, ids):
    stream = TextStream(vocabulary)
    return [*(stream.push([i]) for i in ids), stream.close()]


@pytest.mark.parametrize("split, form", SCRIPTS)
def test_pieces_join_to_the_decoded_text(split, form):
    limit = {"max_tokens": 150} if split == "word_piece" else {}
    vocabulary = Vocabulary(split, form, **limit).adapt(TEXTS)
    random = np.random.default_rng(4)
    rows = list(vocabulary.encode(TEXTS))
    rows += [random.integers(0, vocabulary.size, 30).tolist() for _ in range(40)]
    for ids in rows:
        pieces = stream_of(vocabulary, ids)
        assert "".join(pieces) == vocabulary.decode([ids])[0]


def test_a_syllable_is_emitted_once_nothing_can_be_added():
    letters = Vocabulary("character", "NFD").adapt(["한국어 1"])
    ids = letters.encode(["한국 1어"])[0]
    # A final consonant could still be added to the last syllable.
    pieces = ["", "", "한", "", "", "국", " ", "1", "", "", "어"]
    assert stream_of(letters, ids) == pieces
    assert stream_of(letters, [*ids, 3, 0, 5])[-4:] == ["어", "", "", ""]


@pytest.mark.parametrize("form", ["NFD", None])
def test_no_piece_splits_a_syllable(form):
    spelled = [unicodedata.normalize("NFD", text) for text in TEXTS]
    letters = Vocabulary("character", form).adapt(spelled)
    for text, ids in zip(TEXTS, letters.encode(spelled), strict=True):
        pieces = [p for p in stream_of(letters, ids) if p]
        composed = [unicodedata.normalize("NFC", piece) for piece in pieces]
        assert "".join(composed) == unicodedata.normalize("NFC", text)
        assert len(pieces) > len(text) / 3


def test_text_that_cannot_change_is_emitted_at_once():
    words = Vocabulary("word").adapt(["a b"])
    assert stream_of(words, [4, 5, 1]) == ["a", " b", " \ufffd", ""]
    syllables = Vocabulary("character").adapt(["한국어"])
    ids = syllables.encode(["국한"])[0]
    assert stream_of(syllables, ids) == ["국", "한", ""]
    symbols = Vocabulary(None).adapt([["ab", "c"]])
    assert stream_of(symbols, [4, 5]) == [["ab"], ["c"], []]


def test_a_word_piece_may_begin_with_a_joining_character():
    assert joining_characters(["##\u1161", "##", "a", "\u1100"]) == ["\u1161"]


BYTES = {
    "byte": lambda: Vocabulary("byte"),
    "jamo": lambda: Vocabulary("jamo"),
    "byte, NFC": lambda: Vocabulary("byte", normalization="NFC"),
    "sentence_piece": lambda: Vocabulary("sentence_piece", max_tokens=400).adapt(
        ["한국어 문장을 읽는 사람과 한국어 문장을 쓰는 사람"] * 9
    ),
}


@pytest.mark.parametrize("make", BYTES.values(), ids=BYTES)
def test_bytes_are_emitted_as_whole_characters(make):
    vocabulary = make()
    rng = np.random.default_rng(5)
    ids = list(vocabulary.encode(["한국 e\u0301 ▁", "a👩‍👩‍👧"]))
    ids += rng.integers(0, vocabulary.size, (50, 13)).tolist()
    for row in ids:
        pieces = stream_of(vocabulary, row)
        assert "".join(pieces) == vocabulary.decode([row])[0]
    [ids] = vocabulary.encode(["😀a"])
    pieces = stream_of(vocabulary, ids)
    assert "".join(pieces) == "😀a" and pieces.count("") >= 3


# Pipelines --------------------------------------------------------------------------


def jamo():
    return Vocabulary("character", "NFD").adapt(["한국어", "나라"])


def with_a_biased_end(model):
    """Give the end token a small bias, so that texts have different lengths."""
    model.head.bias.assign(0.5 * (np.arange(model.output_shape[-1]) == 3))
    return model


@pytest.fixture(scope="module")
def writer():
    words = jamo()
    keras.utils.set_random_seed(4)
    model = kseq.encoder_decoder(words.size, words.size, width=8)
    return TextToText(with_a_biased_end(model), words, words)


def joined(stream, count):
    """Return the joined pieces of each text."""
    steps = list(stream)
    assert all(len(pieces) == count and any(pieces) for pieces in steps)
    assert len(steps) > 2, "comes in pieces"
    return ["".join(column) for column in zip(*steps, strict=True)]


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize(
    "search", [GreedySearch([BannedTokens([3])]), Sampling(3.0, seed=4)]
)
def test_pieces_of_a_pipeline_join_to_what_it_generates(writer, search):
    texts = ["한국", "나", "라라라"]
    expected = [best.text for [best] in writer.generate(texts, search, 12)]
    assert joined(writer.generate_stream(texts, search, 12), 3) == expected


@pytest.mark.thorough(all_but=1)
@pytest.mark.parametrize("window", [7, None])
@pytest.mark.parametrize("decoder", ["gru", "transformer"])
def test_pieces_of_a_text_writer_join_to_what_it_generates(window, decoder):
    words = jamo()
    model = with_a_biased_end(kseq.one_to_many(words.size, decoder=decoder, width=8))
    writer, prompts = TextWriter(model, words, window), ["한국", "", "나", "라라"]
    lengths = set()
    for search in (GreedySearch([BannedTokens([3])]), Sampling(2.0)):
        keras.utils.set_random_seed(5)
        expected = writer.generate(prompts, search, 23)
        keras.utils.set_random_seed(5)
        stream = writer.generate_stream(prompts, search, 23)
        assert joined(stream, 4) == expected
        lengths |= {len(text) for text in expected}
    assert len(lengths) > 2


def test_blank_texts_keep_their_places_in_a_stream(writer):
    search = GreedySearch([BannedTokens([3])])
    whole = joined(writer.generate_stream(["한국", "나"], search, 7), 2)
    stream = writer.generate_stream(["", "한국", "", "나"], search, 7, allow_blank=True)
    assert joined(stream, 4) == ["", whole[0], "", whole[1]]
    assert list(writer.generate_stream([""], allow_blank=True)) == []


def test_no_texts_give_no_pieces(writer):
    assert list(writer.generate_stream([])) == []
    model = kseq.one_to_many(jamo().size, width=2)
    assert list(TextWriter(model, jamo()).generate_stream([])) == []


def test_rejects_invalid_requests_before_the_first_piece(writer):
    with pytest.raises(ValueError, match="never revises tokens"):
        writer.generate_stream(["한"], BeamSearch(2))
    with pytest.raises(ValueError, match=r"texts\[0\], which has none"):
        writer.generate_stream([""])
    model = kseq.one_to_many(jamo().size, width=2)
    with pytest.raises(ValueError, match="prompt of 6 tokens"):
        TextWriter(model, jamo()).generate_stream(["한국"], max_length=6)


def test_rejects_a_model_that_cannot_stream():
    class WithoutStream(keras.Model):
        def generate(self, source_ids, search=None, max_length=40):
            raise NotImplementedError

    words = jamo()
    with pytest.raises(ValueError, match="must have a method `generate_stream`"):
        TextToText(WithoutStream(), words, words).generate_stream(["한"])
